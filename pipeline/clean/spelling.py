"""The spelling of queries, corrected by the words of the catalogue."""

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean.products import BATCH_ROWS
from pipeline.core import layout, tables
from pipeline.text.correction import Corrector
from pipeline.text.vocabulary import count_words


def correct_queries(queries: pa.Table, files: layout.CleanFiles) -> tuple[pa.Table, dict[str, int]]:
    """Correct the queries by the words of the clean products, and write both tables of it.

    Args:
        queries: columns as in `tables.QUERIES`.
        files: the products are there; the vocabulary and the corrections are written.

    Returns:
        The queries as they are to be searched for, and what `clean_counts.Corrected` reads.
    """
    products = tables.iter_table(files.products, tables.PRODUCTS, BATCH_ROWS, "Run clean again.")
    vocabulary = count_words(batch["text"] for batch in products)
    corrector = Corrector(vocabulary)
    typed = queries["text"].to_pylist()
    texts = pa.array(map(corrector.correct, typed), pa.string())
    columns = [queries["query_id"], queries["text"], texts]
    corrections = pa.table(columns, names=tables.CORRECTIONS.names)
    changed = corrections.filter(pc.not_equal(corrections["typed"], corrections["text"]))
    tables.write_table(files.vocabulary, vocabulary, tables.VOCABULARY)
    tables.write_table(files.corrections, changed, tables.CORRECTIONS)
    having = Counter(texts.to_pylist())
    counts = {
        "queries": len(changed),
        "sharing_a_text": sum(having[text] > 1 for text in changed["text"].to_pylist()),
        "vocabulary": len(vocabulary),
        "words": sum(map(corrector.count, changed["typed"].to_pylist())),
    }
    return queries.set_column(1, "text", texts), counts
