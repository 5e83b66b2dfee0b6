"""What clean read and kept of a locale, and how it made the texts: its counts.json."""

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.param_types import Choices, Number
from pipeline.core.params import Clean, ProductField


class Kept(BaseModel):
    """What clean read and kept of one kind, and by reason what it left out or noticed."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    read: Number = Field(alias="in")
    kept: Number = Field(alias="out")

    @property
    def reasons(self) -> dict[str, int]:
        """Return the rows by reason; those that start with `dropped` were left out."""
        return {
            name: number
            for name, number in (self.model_extra or {}).items()
            if isinstance(number, int) and not isinstance(number, bool)
        }

    @model_validator(mode="after")
    def _nothing_vanished(self) -> Self:
        if min(self.reasons.values(), default=0) < 0:
            raise ValueError("a count is below 0")
        dropped = sum(n for name, n in self.reasons.items() if name.startswith("dropped"))
        if self.read != self.kept + dropped:
            raise ValueError(f"{self.read} were read, but {self.kept} kept and {dropped} dropped")
        return self


class KeptProducts(Kept):
    """The same of products, and what their texts were made of."""

    fields: Choices[ProductField]
    separator: str


class Corrected(BaseModel):
    """How many queries and words were corrected, by how many words of the catalogue.

    `sharing_a_text` counts the corrected queries whose text another query has too.
    """

    model_config = ConfigDict(strict=True, frozen=True)
    queries: Number
    sharing_a_text: Number
    vocabulary: Number
    words: Number


class CleanCounts(BaseModel):
    """What clean counted of each kind of row; `spelling` where it corrected queries."""

    model_config = ConfigDict(strict=True, frozen=True)
    queries: Kept
    products: KeptProducts
    judgements: Kept
    spelling: Corrected | None = None

    def kinds(self) -> dict[str, Kept]:
        """Return the counts by kind of row."""
        return {
            "queries": self.queries, "products": self.products, "judgements": self.judgements,
        }  # fmt: skip

    @property
    def has_judgements(self) -> bool:
        """Whether the sample had any query or judgement: else it is only searched."""
        return self.queries.read + self.judgements.read > 0


def read_counts(locale: str) -> CleanCounts:
    """Read a locale's counts.

    Raises:
        PipelineError: they are missing, damaged or of another version, or a row vanished uncounted.
    """
    return read_model(layout.clean(locale).counts, CleanCounts, layout.rerun_hint("clean", locale))


def check_text_settings(locale: str, settings: Clean) -> None:
    """Check that a locale's texts were made of these fields, joined in this way.

    Raises:
        PipelineError: they were not, or the counts of `clean` are missing or damaged.
    """
    made, asked = (
        {"products.fields": list(of.fields), "products.separator": of.separator}
        for of in (read_counts(locale).products, settings)
    )
    refuse_differences(
        layout.clean(locale).counts, made, asked, "the texts are made by other settings",
        layout.rerun_hint("clean", locale),
    )  # fmt: skip
