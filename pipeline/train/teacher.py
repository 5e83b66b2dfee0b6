"""A reranker as a teacher: how sure it is that a product is right for a query."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.params import Params
from pipeline.core.progress import Progress
from pipeline.core.tables import LABELS
from pipeline.core.trained_folder import refuse_other_settings
from pipeline.encoders.pairs import identity
from pipeline.rerank.scores import PairScores, pair_keys
from pipeline.train.pairs import Pairs

log = logging.getLogger("pipeline")


class Teacher:
    """A reranker whose scores are learned from; the store of the stage `rerank` keeps them.

    Attributes:
        weights_sha256: the hash of its weights.
        about: all that decides its scores, JSON.
    """

    def __init__(self, params: Params, name: str) -> None:
        """Find the weights and the engine; the model is loaded if a pair was never scored.

        Raises:
            PipelineError: as `PairScores`; or it was trained with other settings than params.yaml
                has.
        """
        spec = params.reranker_named(name)
        assert spec is not None
        self._name = name
        self._scores = PairScores(name, spec, params.runtime)
        refuse_other_settings(params, name)
        self.weights_sha256 = self._scores.weights.sha256
        self.about: dict[str, Any] = identity(spec, self._scores.weights, self._scores.engine)

    def log_odds(self, pairs: Pairs, rows: Ints, positives: tuple[str, ...]) -> NDArray[np.float32]:
        """Score some rows of pairs; takes and returns what `Pairs.taught` is.

        Not inside `deterministic`: the engine sets threads of its own.

        Args:
            pairs: the pairs.
            rows: the rows to score.
            positives: the labels that are right.

        Raises:
            PipelineError: as `PairScores.logits`.
        """
        texts = [
            (pairs.queries[query], pairs.texts[text])
            for query, text in zip(
                pairs.query[rows].tolist(), pairs.text[rows].tolist(), strict=True
            )
        ]
        distinct = np.unique(pair_keys(texts), axis=0)
        with Progress(len(self._scores.missing(distinct)), "pairs") as progress:
            logits, _ = self._scores.logits(texts, progress)
        log.info(
            "teacher name=%s pairs=%d distinct=%d reused=%d scored=%d",
            self._name, len(texts), len(distinct), len(distinct) - self._scores.scored,
            self._scores.scored,
        )  # fmt: skip
        found = np.full(len(pairs), np.nan, np.float32)
        found[rows] = log_odds(logits, positives)
        return found


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
