"""How the queries of a locale are spelled in its clean tables: as typed, or corrected."""

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from pipeline.core import layout, tables
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.param_types import Number
from pipeline.core.params import AS_TYPED, CORRECTED, Spelling


class Corrected(BaseModel):
    """How many queries and words were corrected, by how many words of the catalogue.

    `sharing_a_text` counts the corrected queries whose text another query has too.
    """

    model_config = ConfigDict(strict=True, frozen=True)
    queries: Number
    sharing_a_text: Number
    vocabulary: Number
    words: Number


class _Counts(BaseModel):
    """The part of the counts of `clean` that says how queries are spelled."""

    model_config = ConfigDict(strict=True, frozen=True)
    spelling: Corrected | None = None


def check_spelling(locale: str, asked: Spelling) -> None:
    """Check that the queries of a locale are spelled as params.yaml says.

    Raises:
        PipelineError: they are not, or the counts of `clean` are missing or damaged.
    """
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    found = AS_TYPED if _read_corrected(locale) is None else CORRECTED
    why = "the queries are spelled otherwise"
    refuse_differences(path, {"spelling": found}, {"spelling": asked}, why, remedy)


def read_typed(locale: str) -> dict[int, str]:
    """Return the clean text as it was typed of each query that was corrected, by query_id.

    Raises:
        PipelineError: a file is missing or damaged.
    """
    if _read_corrected(locale) is None:
        return {}
    path, remedy = layout.clean(locale).corrections, layout.rerun_hint("clean", locale)
    table = tables.read_table(path, tables.CORRECTIONS, remedy)
    return dict(zip(table["query_id"].to_pylist(), table["typed"].to_pylist(), strict=True))


def typed_texts(queries: pa.Table, locale: str) -> list[str]:
    """Return the text of each clean query as it was typed; raises as `read_typed`.

    Args:
        queries: columns as in `tables.QUERIES`.
        locale: theirs.
    """
    typed, ids = read_typed(locale), queries["query_id"].to_pylist()
    texts = queries["text"].to_pylist()
    return [typed.get(query_id, text) for query_id, text in zip(ids, texts, strict=True)]


def _read_corrected(locale: str) -> Corrected | None:
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    return read_model(path, _Counts, remedy).spelling
