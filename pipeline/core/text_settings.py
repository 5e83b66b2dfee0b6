"""What the clean texts of a locale were made of, against what params.yaml says."""

from pydantic import BaseModel, ConfigDict

from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.params import Clean


class _Products(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)
    fields: tuple[str, ...]
    separator: str


class _Counts(BaseModel):
    """The part of the counts of `clean` that says what a text is made of."""

    model_config = ConfigDict(strict=True, frozen=True)
    products: _Products


def check_text_settings(locale: str, settings: Clean) -> None:
    """Check that a locale's texts were made of these fields, joined in this way.

    Raises:
        PipelineError: they were not, or the counts of `clean` are missing or damaged.
    """
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    found = read_model(path, _Counts, remedy).products
    why = "the texts are made by other settings"
    refuse_differences(path, found.model_dump(), settings.model_dump(), why, remedy)
