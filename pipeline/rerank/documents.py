"""What a reranker reads of products: their texts, or some fields of them."""

from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from pipeline.core import tables
from pipeline.core.arrays import Ints
from pipeline.core.field_ends import field_bounds, field_ends
from pipeline.core.params import Clean, Reranker

BATCH_ROWS = 16_384


def read_documents(
    path: Path, wanted: Ints, spec: Reranker, settings: Clean, remedy: str
) -> Mapping[int, str]:
    """Return the documents of some products by their rows.

    Args:
        path: the clean products.
        wanted: their rows, ascending.
        spec: which fields a document is made of.
        settings: which fields the texts were made of; `check_text_settings` says whether they were.
        remedy: a sentence that says what brings the file back; messages end with it.
    """
    found: dict[int, str] = {}
    done = 0
    for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
        mine = wanted[(wanted >= done) & (wanted < done + len(batch))]
        texts = documents_of(batch.take(mine - done), spec, settings)
        found.update(zip(mine.tolist(), texts, strict=True))
        done += len(batch)
    return found


def documents_of(products: pa.Table, spec: Reranker, settings: Clean) -> list[str]:
    """Return the documents of some rows of the clean products; as `read_documents`."""
    texts: list[str] = products["text"].to_pylist()
    if spec.fields == "all" or not texts:
        return texts
    ends = field_ends(products)
    places = [settings.fields.index(field) for field in spec.fields]
    parts = [
        [text[start:stop] for text, start, stop in zip(texts, *bounds, strict=True)]
        for bounds in (field_bounds(ends, place, settings.separator) for place in places)
    ]
    return [settings.separator.join(filter(None, each)) for each in zip(*parts, strict=True)]
