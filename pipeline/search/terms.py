"""BM25's postings, mapped from the cache; the first search of new products makes them."""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bm25 import analysers, postings
from pipeline.bm25.search import TermIndex
from pipeline.bm25.stage import memory_check, terms_of
from pipeline.core import files, layout, stage, tables
from pipeline.core.params import Params
from pipeline.core.progress import track
from pipeline.search import kept

FORM = 1
"""Version of the files; another makes them again."""

LIBRARIES = ("bm25s", "pystemmer", "regex", "sudachidict-core", "sudachipy")
"""What terms and scores also depend on."""


class SortedTerms(Mapping[str, int]):
    """The number of each term, looked up in a mapped table that is sorted by term."""

    def __init__(self, table: pa.Table) -> None:
        """Take the columns `term`, ascending, and `number`."""
        self._terms, self._numbers = table["term"], table["number"]

    def __getitem__(self, term: str) -> int:
        """Return the number of a term."""
        at = bisect_left(range(len(self._terms)), term, key=lambda row: self._terms[row].as_py())
        if at == len(self._terms) or self._terms[at].as_py() != term:
            raise KeyError(term)
        return int(self._numbers[at].as_py())

    def __iter__(self) -> Iterator[str]:
        """Yield the terms."""
        return (term.as_py() for term in self._terms)

    def __len__(self) -> int:
        """Return how many terms there are."""
        return len(self._terms)


def open_terms(
    params: Params, locale: str, analyser: analysers.Analyser, products: int, source_sha256: str
) -> TermIndex:
    """Return the weighted terms of a locale's products.

    Args:
        params: the settings of bm25.
        locale: whose products they are.
        analyser: what makes the terms.
        products: how many there are.
        source_sha256: the hash of the clean products.

    Raises:
        PipelineError: making them would take more memory than allowed, or the clean products are
            damaged.
    """
    settings = params.bm25
    made_by = [f"{name} {version(name)}" for name in LIBRARIES]
    lines = [str(FORM), source_sha256, analyser.name, repr(settings.k1), repr(settings.b), *made_by]
    found = layout.postings(f"{locale}-{files.sha256_lines(lines)[:16]}")
    kept.keep(
        found.folder,
        lambda folder: _make(params, locale, analyser, products, folder),
        len(params.locales),
    )
    vocabulary = SortedTerms(kept.map_table(found.terms))
    scores = None
    if len(vocabulary):
        scores = {
            "data": np.load(found.scores, mmap_mode="r", allow_pickle=False),
            "indices": np.load(found.products, mmap_mode="r", allow_pickle=False),
            "indptr": np.load(found.starts, allow_pickle=False),
            "num_docs": products,
        }
    return TermIndex.of(scores, vocabulary, products, settings)


def _make(
    params: Params, locale: str, analyser: analysers.Analyser, products: int, folder: Path
) -> None:
    stage.log.info("making the %s terms of %d products for the search, once", locale, products)
    out = layout.PostingFiles(folder)
    texts = terms_of(locale, "products", tables.PRODUCTS, analyser)
    counted = track(texts, products, "products", lambda _: 1)
    check = memory_check(params, locale, analyser, products, queries=1)
    found = postings.collect(counted, check)
    empty = {"data": np.empty(0), "indices": np.empty(0, np.int32), "indptr": np.zeros(1, np.int64)}
    scores: dict[str, Any] = found.score(params.bm25) if found.vocabulary else empty
    files.write_npy(out.scores, scores["data"])
    files.write_npy(out.products, scores["indices"])
    files.write_npy(out.starts, scores["indptr"])
    terms = pa.table(
        {
            "term": pa.array(found.vocabulary, pa.string()),
            "number": pa.array(found.vocabulary.values(), pa.int32()),
        }
    )
    kept.write_table(out.terms, terms.take(pc.sort_indices(terms["term"])))
