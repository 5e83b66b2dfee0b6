"""BM25's index of a locale's products; the first search of new products may have to make it."""

from pipeline.bm25 import analysers
from pipeline.bm25.kept import open_postings
from pipeline.bm25.search import TermIndex
from pipeline.core.params import Params


def open_terms(
    params: Params, locale: str, analyser: analysers.Analyser, products: int, source_sha256: str
) -> TermIndex:
    """Return the index of a locale's products, over the postings that bm25 keeps.

    Its scores are computed for the terms of each query: so a search starts at once, and needs the
    memory of none but these.

    Args:
        params: the settings of bm25.
        locale: whose products they are.
        analyser: what makes the terms.
        products: how many there are.
        source_sha256: the hash of the clean products.

    Raises:
        PipelineError: as `open_postings` does.
    """
    found, _ = open_postings(params, locale, analyser, products, source_sha256)
    return TermIndex.of(found, params.bm25)
