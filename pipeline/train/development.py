"""How good a model is on the dev queries: what chooses the best epoch."""

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import ESCI_GAINS
from pipeline.core.tables import LABELS
from pipeline.encoders.pairs import probabilities
from pipeline.evaluate.judged_run import Judgements, judge
from pipeline.evaluate.metrics import MEAN_DECIMALS, ndcg
from pipeline.runs.ranking import rank_pairs
from pipeline.train.catalogue import rank_catalogue, units
from pipeline.train.pairs import Pairs

CUTOFF = 10

CATALOGUE = f"dev_catalogue_ndcg@{CUTOFF}"
"""Among the products of the query's locale, those of `draw_others` too; what is not judged has no
gain.
"""

POOL = f"dev_pool_ndcg@{CUTOFF}"
"""Among the query's judged products."""

WITH_MINED = f"dev_mined_ndcg@{CUTOFF}"
"""Among the query's judged products and those that nobody judged of the base's first ones."""


class Development:
    """The dev queries and their judged products.

    Attributes:
        chooses: the measure that chooses the best epoch.
        queries: how many dev queries there are.
        products: how many products they are searched among, in all locales, if any are beside the
            judged ones.
        of_one_label: how many of them have products of one label alone, so that every order of
            these is right: only the catalogue's measure says something of them.
    """

    def __init__(self, pairs: Pairs, where: str, *, catalogue: bool) -> None:
        """Keep the judged pairs.

        Args:
            pairs: the dev part; a reranker's may have unjudged pairs, which have no gain.
            where: the file, for messages.
            catalogue: whether all products are ranked for each query, beside its judged ones.

        Raises:
            PipelineError: no query has a product with a gain.
        """
        self.pairs = pairs
        self.queries = pairs.queries_count()
        self.products = len(pairs.text_of)
        judged = np.flatnonzero(pairs.has(LABELS))
        self._judged = judged
        self._judgements = Judgements.from_pairs(
            pairs.group[judged], pairs.product[judged], pairs.label[judged], self.queries
        )
        counts = self._judgements.label_counts()
        gains = counts @ np.array(ESCI_GAINS)
        self.of_one_label = int(((counts > 0).sum(axis=1) <= 1).sum())
        mined = POOL if pairs.judged.all() else WITH_MINED
        self.chooses = CATALOGUE if catalogue else mined
        if not (gains > 0).any():
            raise PipelineError(
                f"{where}: no query has a product with a gain (E, S or C), so no epoch can be "
                "chosen. Raise training.dev_share, or take more queries."
            )

    def of_vectors(self, queries: Matrix, texts: Matrix) -> dict[str, float]:
        """Return an encoder's measures, from the vectors of `pairs.queries` and `pairs.texts`."""
        pairs, rows = self.pairs, self._judged
        queries, texts = units(queries), units(texts)
        cosines = np.einsum("ij,ij->i", queries[pairs.query[rows]], texts[pairs.text[rows]])
        run = rank_pairs(pairs.group[rows], pairs.product[rows], cosines)
        nearest = rank_catalogue(pairs, queries, texts, CUTOFF)
        return {CATALOGUE: self._mean(nearest), POOL: self._mean(run)}

    def of_logits(self, logits: Matrix) -> dict[str, float]:
        """Return a reranker's measures, from the logits of all pairs."""
        pairs, rows = self.pairs, self._judged
        scores = expected_gains(logits)
        measures = {POOL: rows}
        if self.chooses == WITH_MINED:
            measures = {WITH_MINED: np.arange(len(pairs)), **measures}
        return {
            name: self._mean(rank_pairs(pairs.group[each], pairs.product[each], scores[each]))
            for name, each in measures.items()
        }

    def _mean(self, run: tuple[Ints, Ints, NDArray[np.float64]]) -> float:
        """Return the mean nDCG of a ranking, over the queries that have one."""
        queries, products, _ = run
        values = ndcg(judge(queries, products, self._judgements), CUTOFF)
        return round(float(np.nanmean(values)), MEAN_DECIMALS)


def expected_gains(logits: Matrix) -> NDArray[np.float64]:
    """Return the expected gain of pairs, float64, shape [pairs]; logits, shape [pairs, labels]."""
    gains: NDArray[np.float64] = probabilities(logits) @ np.array(ESCI_GAINS)
    return gains
