"""How good a model is on the dev queries: what chooses the best epoch."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import ESCI_GAINS
from pipeline.core.tables import LABELS
from pipeline.encoders.pairs import probabilities
from pipeline.evaluate.judged_run import Judgements, judge
from pipeline.evaluate.metrics import MEAN_DECIMALS, ndcg
from pipeline.runs.ranking import SCORE_DECIMALS, rank_pairs
from pipeline.train.pairs import Pairs

CUTOFF = 10
_QUERIES_AT_ONCE = 256

CATALOGUE = f"dev_ndcg@{CUTOFF}"
"""Among all products of the dev queries of a locale; those that are not judged have no gain."""

POOL = f"dev_pool_ndcg@{CUTOFF}"
"""Among the query's judged products."""


class Development:
    """The dev queries and their judged products.

    Attributes:
        chooses: the measure that chooses the best epoch.
        queries: how many dev queries there are.
        of_one_label: how many of them have products of one label alone, so that every order of
            these is right: only the catalogue's measure says something of them.
    """

    def __init__(self, pairs: Pairs, where: str, *, catalogue: bool) -> None:
        """Keep the judged pairs.

        Args:
            pairs: the dev part.
            where: the file, for messages.
            catalogue: whether all products are ranked for each query, beside its judged ones.

        Raises:
            PipelineError: no query has a product with a gain.
        """
        self.pairs = pairs
        self.queries = pairs.queries_count()
        self._catalogue = catalogue
        judged = np.flatnonzero(pairs.has(LABELS))
        self._judged = judged
        self._judgements = Judgements.from_pairs(
            pairs.group[judged], pairs.product[judged], pairs.label[judged], self.queries
        )
        counts = self._judgements.label_counts()
        gains = counts @ np.array(ESCI_GAINS)
        self.of_one_label = int(((counts > 0).sum(axis=1) <= 1).sum())
        self.chooses = CATALOGUE if catalogue else POOL
        if not (gains > 0).any():
            raise PipelineError(
                f"{where}: no query has a product with a gain (E, S or C), so no epoch can be "
                "chosen. Raise training.dev_share, or take more queries."
            )

    def of_vectors(self, queries: Matrix, texts: Matrix) -> dict[str, float]:
        """Return an encoder's measures, from the vectors of `pairs.queries` and `pairs.texts`."""
        pairs, rows = self.pairs, self._judged
        queries, texts = _units(queries), _units(texts)
        cosines = np.einsum("ij,ij->i", queries[pairs.query[rows]], texts[pairs.text[rows]])
        run = rank_pairs(pairs.group[rows], pairs.product[rows], cosines)
        return {CATALOGUE: self._mean(self._rank_catalogue(queries, texts)), POOL: self._mean(run)}

    def of_logits(self, logits: Matrix) -> dict[str, float]:
        """Return a reranker's measures, from the logits of all pairs."""
        pairs, rows = self.pairs, self._judged
        scores = expected_gains(logits[rows])
        return {POOL: self._mean(rank_pairs(pairs.group[rows], pairs.product[rows], scores))}

    def _mean(self, run: tuple[Ints, Ints, NDArray[np.float64]]) -> float:
        """Return the mean nDCG of a ranking, over the queries that have one."""
        queries, products, _ = run
        values = ndcg(judge(queries, products, self._judgements), CUTOFF)
        return round(float(np.nanmean(values)), MEAN_DECIMALS)

    def _rank_catalogue(
        self, queries: Matrix, texts: Matrix
    ) -> tuple[Ints, Ints, NDArray[np.float64]]:
        """Rank each query's first products among all of its locale, in the order of `ranking`."""
        parts = [rank_pairs(*part) for part in self._nearest(queries, texts)]
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))  # type: ignore[return-value]

    def _nearest(
        self, queries: Matrix, texts: Matrix
    ) -> Iterator[tuple[Ints, Ints, NDArray[np.float64]]]:
        """Yield the products that may be among a query's first, as (query, product, score)."""
        pairs = self.pairs
        for locale in np.unique(pairs.locale):
            own = pairs.locale == locale
            groups, at = np.unique(pairs.group[own], return_index=True)
            products, of = np.unique(pairs.product[own], return_index=True)
            found = texts[pairs.text[own][of]]
            asked = queries[pairs.query[own][at]]
            for start in range(0, len(groups), _QUERIES_AT_ONCE):
                part = slice(start, start + _QUERIES_AT_ONCE)
                cosines = _multiply(asked[part], found)
                scores = cosines.astype(np.float64).round(SCORE_DECIMALS)
                last = min(CUTOFF, len(products)) - 1
                least = -np.partition(-scores, last, axis=1)[:, last]
                query, product = np.nonzero(scores >= least[:, None])  # with all ties of the last
                yield groups[part][query], products[product], scores[query, product]


def expected_gains(logits: Matrix) -> NDArray[np.float64]:
    """Return the expected gain of pairs, float64, shape [pairs]; logits, shape [pairs, labels]."""
    gains: NDArray[np.float64] = probabilities(logits) @ np.array(ESCI_GAINS)
    return gains


def _multiply(queries: Matrix, products: Matrix) -> Matrix:
    """Return all products of two sets of vectors, [queries, products].

    By torch, on the threads of the training: numpy's last bits would depend on this machine's
    cores, and so might the epoch that is kept.
    """
    import torch

    found: Matrix = (torch.from_numpy(queries) @ torch.from_numpy(products).T).numpy()
    return found


def _units(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Matrix = vectors / np.maximum(lengths, np.finfo(np.float32).tiny)
    return units
