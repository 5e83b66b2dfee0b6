"""What names and examples come from: a product's first field, and its brand."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.core import layout
from pipeline.core.params import Clean
from pipeline.evaluate.product_fields import BRAND, iter_fields


@dataclass(frozen=True)
class Fields:
    """Some products' titles and brands, in the order of their rows; a brand may be empty."""

    titles: list[str]
    brands: list[str]


def has_brands(settings: Clean) -> bool:
    """Say whether texts have the field product_brand."""
    return BRAND in settings.fields


def read_fields(locale: str, settings: Clean) -> Iterator[Fields]:
    """Yield the titles and brands of all clean products, some thousands at a time.

    A title is the first field that holds anything.

    Raises:
        PipelineError: the table is missing, damaged, or of another number of fields.
    """
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    for batch in iter_fields(path, settings, [BRAND], remedy, title_characters=None):
        yield Fields(batch.titles, batch.values.get(BRAND) or [""] * len(batch.titles))
