"""A reranker as a teacher: how sure it is that a product is right for a query."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.progress import Progress
from pipeline.core.tables import LABELS
from pipeline.core.trained_folder import refuse_other_model
from pipeline.encoders.pairs import identity
from pipeline.rerank.scores import PairScores, pair_keys
from pipeline.train.pairs import Pairs


class Teacher:
    """A reranker whose scores are learned from; the store of the stage `rerank` keeps them.

    Attributes:
        about: all that decides its scores, JSON: weights, engine, libraries and more.
    """

    def __init__(self, params: Params, name: str) -> None:
        """Find the weights and the engine; the model is loaded if a pair was never scored.

        Raises:
            PipelineError: as `PairScores` and `refuse_other_model`.
        """
        spec = params.reranker_named(name)
        assert spec is not None
        self._name = name
        self._scores = PairScores(name, spec, params.runtime)
        refuse_other_model(params, name, self._scores.weights.sha256)
        self.about: dict[str, Any] = identity(spec, self._scores.weights, self._scores.engine)

    @property
    def tokens(self) -> int:
        """Return how many tokens it read so far, of pairs that the store did not have."""
        return self._scores.tokens

    def log_odds(self, pairs: Pairs, rows: Ints, positives: tuple[str, ...]) -> NDArray[np.float64]:
        """Score some rows of pairs, and let go of the model.

        Not inside `deterministic`: the engine sets threads of its own.

        Args:
            pairs: the pairs.
            rows: the rows to score.
            positives: the labels that are right.

        Returns:
            The log-odds that the product is right, float64, shape [rows].

        Raises:
            PipelineError: as `PairScores.logits`.
        """
        texts = [
            (pairs.queries[query], pairs.texts[text])
            for query, text in zip(
                pairs.query[rows].tolist(), pairs.text[rows].tolist(), strict=True
            )
        ]
        keys = pair_keys(texts)
        with Progress(len(self._scores.missing(keys)), "pairs") as progress:
            logits, _ = self._scores.logits(texts, keys, progress)
        self._scores.unload()
        log.info("teacher name=%s pairs=%d scored=%d", self._name, len(texts), self._scores.scored)
        return log_odds(logits, positives)


def log_odds(logits: Matrix, positives: tuple[str, ...]) -> NDArray[np.float64]:
    """Return the logarithm of the chance that a pair is right, over the chance that it is not.

    Of four labels, whose chances are the softmax of their logits, it is the logarithm of the sum of
    exp(logit) over `positives`, less that over the other labels. The logit of one label is the
    log-odds itself.

    Args:
        logits: float32, shape [pairs, labels].
        positives: the labels that are right.

    Returns:
        float64, shape [pairs].
    """
    wide = logits.astype(np.float64)
    if wide.shape[1] == 1:
        return wide[:, 0]
    right = np.isin(LABELS, positives)
    these, others = (np.logaddexp.reduce(wide[:, of], axis=1) for of in (right, ~right))
    found: NDArray[np.float64] = these - others
    return found
