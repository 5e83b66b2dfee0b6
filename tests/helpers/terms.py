"""BM25's index of products that are given by their terms."""

from collections.abc import Sequence

from pipeline.bm25.counting import count_terms
from pipeline.bm25.postings import Postings, collect
from pipeline.bm25.search import TermIndex
from pipeline.core.params import Bm25


def postings_of(products: Sequence[Sequence[str]], piece: int = 1_000) -> Postings:
    starts = range(0, len(products), piece)
    return collect(count_terms(products[start : start + piece]) for start in starts)


def index_of(products: Sequence[Sequence[str]], settings: Bm25) -> TermIndex:
    return TermIndex.of(postings_of(products), settings, threads=1)
