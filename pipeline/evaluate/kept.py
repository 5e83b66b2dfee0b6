"""What clean read and kept of a locale, by its counts.json."""

from pydantic import BaseModel, ConfigDict, Field

from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.errors import PipelineError
from pipeline.core.param_types import Number
from pipeline.core.params import Clean


class Kept(BaseModel):
    """How many rows of a table clean read and wrote; counts.json holds more."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, populate_by_name=True)

    read: Number = Field(alias="in")
    written: Number = Field(alias="out")


class KeptProducts(Kept):
    """The same of products, and what their texts were made of."""

    fields: tuple[str, ...]
    separator: str


class Counts(BaseModel):
    """The part of clean's counts.json that evaluate reads."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    judgements: Kept
    products: KeptProducts
    queries: Kept

    @property
    def has_judgements(self) -> bool:
        """Whether the sample had any query or judgement: else it is only searched."""
        return self.queries.read + self.judgements.read > 0


def read_counts(locale: str) -> Counts:
    """Read a locale's counts.

    Raises:
        PipelineError: they are missing or cannot be.
    """
    remedy = layout.rerun_hint("clean", locale)
    return read_model(layout.clean(locale).counts, Counts, remedy)


def read_dropped(locale: str, settings: Clean) -> dict[str, int]:
    """Return how many judgements, products and queries clean left out.

    Raises:
        PipelineError: the counts are missing or cannot be, or the products' texts were made of
            other fields than these or joined otherwise: titles and brands would be cut out of them
            at wrong places.
    """
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    counts = read_counts(locale)
    made, asked = (
        {"products.fields": list(of.fields), "products.separator": of.separator}
        for of in (counts.products, settings)
    )
    refuse_differences(path, made, asked, "the texts are of other fields", remedy)
    dropped = {
        f"{name}_dropped": kept.read - kept.written
        for name, kept in (
            ("judgements", counts.judgements),
            ("products", counts.products),
            ("queries", counts.queries),
        )
    }
    for name, number in dropped.items():
        if number < 0:
            raise PipelineError(
                f"{path}: {name.removesuffix('_dropped')}: out is {-number} more than in. {remedy}"
            )
    return dropped
