"""What names and examples come from: a product's first field, and its brand."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.compute as pc

from pipeline.core import layout, tables
from pipeline.core.field_ends import field_bounds
from pipeline.core.params import Clean
from pipeline.evaluate.product_fields import BATCH_ROWS, first_ends


@dataclass(frozen=True)
class Fields:
    """Some products' titles and brands, in the order of their rows; a brand may be empty."""

    titles: list[str]
    brands: list[str]


def has_brands(settings: Clean) -> bool:
    """Say whether texts have the field product_brand."""
    return "product_brand" in settings.fields


def read_fields(locale: str, settings: Clean) -> Iterator[Fields]:
    """Yield the titles and brands of all clean products, some thousands at a time.

    A title is the first field that holds anything.

    Raises:
        PipelineError: the table is missing or damaged.
    """
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    place = settings.fields.index("product_brand") if has_brands(settings) else None
    for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
        ends = batch["field_ends"].combine_chunks().flatten().to_numpy().reshape(len(batch), -1)
        stops = first_ends(ends)
        # Only the part that is read: a text is a kilobyte, and there are a million.
        longest = max(stops.max(), 0 if place is None else ends[:, place].max())
        texts = pc.utf8_slice_codeunits(batch["text"], 0, int(longest)).to_pylist()
        titles = [text[:stop] for text, stop in zip(texts, stops.tolist(), strict=True)]
        brands = [""] * len(texts)
        if place is not None:
            bounds = zip(texts, *field_bounds(ends, place, settings.separator), strict=True)
            brands = [text[start:stop] for text, start, stop in bounds]
        yield Fields(titles, brands)
