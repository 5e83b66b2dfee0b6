"""How the queries of a locale are spelled in its clean tables: as typed, or corrected."""

import unicodedata

import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.cards import refuse_differences
from pipeline.core.clean_counts import read_counts
from pipeline.core.params import AS_TYPED, CORRECTED, Spelling


def check_spelling(locale: str, asked: Spelling) -> None:
    """Check that the queries of a locale are spelled as params.yaml says.

    Raises:
        PipelineError: they are not, or the counts of `clean` are missing or damaged.
    """
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    found = AS_TYPED if read_counts(locale).spelling is None else CORRECTED
    why = "the queries are spelled otherwise"
    refuse_differences(path, {"spelling": found}, {"spelling": asked}, why, remedy)


def read_typed(locale: str) -> dict[int, str]:
    """Return the clean text as it was typed of each query that was corrected, by query_id.

    Raises:
        PipelineError: a file is missing or damaged.
    """
    if read_counts(locale).spelling is None:
        return {}
    path, remedy = layout.clean(locale).corrections, layout.rerun_hint("clean", locale)
    table = tables.read_table(path, tables.CORRECTIONS, remedy)
    return dict(zip(table["query_id"].to_pylist(), table["typed"].to_pylist(), strict=True))


def text_key(text: str) -> str:
    """Return what two clean query texts have in common if they differ in case alone.

    I, i, İ and ı are one letter here: which of them are a capital and its small letter depends on
    the language, and it is safer to leave out a query too many than to learn from an evaluated one.
    """
    # Decomposed first, as the default caseless matching of the Unicode Standard has it.
    folded = unicodedata.normalize("NFD", text).casefold().replace("ı", "i")
    dotless = folded.replace("i\u0307", "i").replace("j\u0307", "j")
    return unicodedata.normalize("NFKC", dotless)


def typed_texts(queries: pa.Table, locale: str) -> list[str]:
    """Return the text of each clean query as it was typed; raises as `read_typed`.

    Args:
        queries: columns as in `tables.QUERIES`.
        locale: theirs.
    """
    typed, ids = read_typed(locale), queries["query_id"].to_pylist()
    texts = queries["text"].to_pylist()
    return [typed.get(query_id, text) for query_id, text in zip(ids, texts, strict=True)]
