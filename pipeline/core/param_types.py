"""The types of values in `params.yaml` that several of its sections use."""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipeline.core.errors import did_you_mean
from pipeline.core.languages import LANGUAGES

T = TypeVar("T", bound=Hashable)

MOST_PORT = 65_535


def distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return values that are not empty and have no repetition; raise what pydantic reports."""
    if not values:
        raise PydanticCustomError("empty", "must not be empty")
    return unrepeated(values)


def unrepeated(values: tuple[T, ...]) -> tuple[T, ...]:
    """Return values, of which none is there twice; raise what pydantic reports."""
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("repeated", "{value} is repeated", {"value": repr(value)})
    return values


SOURCE_COLUMNS = (
    "product_id", "product_title", "product_description", "product_bullet_point", "product_brand",
    "product_color", "product_locale", "query", "query_id", "esci_label", "split", "example_id",
    "small_version", "large_version",
)  # fmt: skip
"""The columns of ESCI's two files."""


def _known_columns(columns: dict[str, str]) -> dict[str, str]:
    for name, own in columns.items():
        if name not in SOURCE_COLUMNS:
            raise PydanticCustomError(
                "column", "{name} is no column of ESCI{near} (it has: {known})",
                {"name": name, "near": did_you_mean(name, SOURCE_COLUMNS),
                 "known": ", ".join(SOURCE_COLUMNS)},
            )  # fmt: skip
        if (twice := [each for each in columns if columns[each] == own])[1:]:
            raise PydanticCustomError(
                "column", "the column {own} is named for {twice}: name it for one of them",
                {"own": repr(own), "twice": " and for ".join(twice)},
            )  # fmt: skip
    return columns


def _known_language(code: str) -> str:
    if code not in LANGUAGES and code != "any":
        raise PydanticCustomError("language", "must be an ISO 639-1 code or 'any'")
    return code


def _known_address(address: str) -> str:
    found = re.fullmatch(r"(?:ray://)?[A-Za-z0-9.-]+:([1-9][0-9]{0,4})", address)
    if address != "auto" and (found is None or int(found[1]) > MOST_PORT):
        raise PydanticCustomError(
            "address",
            "must be auto, HOST:PORT or ray://HOST:PORT with a port from 1 to {most}",
            {"most": MOST_PORT},
        )
    return address


def _known_commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PydanticCustomError(
            "commit", "must be the 40 hex digits of a commit: what a branch or tag names can change"
        )
    return revision


# A dot in a name would read as a path of parameters.
NAME, MOST_NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$", 60
"""What a locale or a model may be called, and its longest name: it is part of file names."""
Name = Annotated[str, Field(pattern=NAME, max_length=MOST_NAME)]
NO_RERANKER = "none"
"""The reranker of a locale that has no system `rerank`, and of a model that has no teacher."""
Text = Annotated[str, Field(min_length=1)]
# In one spelling, as artefacts name the file: a/b, not ./a//b.
FilePath = Annotated[Text, AfterValidator(lambda path: Path(path).as_posix())]
Label = Literal["E", "S", "C", "I"]
# The source's own name of a column by ESCI's.
Columns = Annotated[dict[str, Text], AfterValidator(_known_columns)]
# ESCI's label by the source's own.
Labels = dict[Text, Label]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Language = Annotated[str, AfterValidator(_known_language)]
Commit = Annotated[str, AfterValidator(_known_commit)]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]
# FAISS takes seeds of 32 bits, with a sign.
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
Share = Annotated[float, Field(ge=0, le=1)]
# Scores are numbers of 32 bits, rounded to 1e-6: beyond such bounds they overflow or are all equal.
Gain = Annotated[float, Field(ge=-1e6, le=1e6, allow_inf_nan=False)]
Saturation = Annotated[float, Field(ge=0, le=1_000, allow_inf_nan=False)]
Choices = Annotated[tuple[T, ...], AfterValidator(distinct)]
Links = Annotated[int, Field(ge=1, le=1_000_000)]
# Below a billionth, no number of draws that a machine can make is enough.
Fraction = Annotated[float, Field(ge=1e-9, lt=1)]
# A system and one of its measures, such as dense.ndcg@10.
Metric = Annotated[str, Field(pattern=r"^[a-z0-9_-]+\.[a-z0-9_]+(@[1-9][0-9]*)?$")]
Cutoffs = Choices[Count]
# This machine's cluster, one by Ray's own port, or one from outside by its client port.
RayAddress = Annotated[str, AfterValidator(_known_address)]


class Part(BaseModel):
    """Part of an artefact: its other keys are for other readers."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
