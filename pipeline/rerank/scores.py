"""Scores of pairs, each computed once: score what the store lacks into it, then read all from it.

Locales, branches and experiments share the store, as they share that of vectors, and a killed run
loses only the pairs of its last seconds.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Reranker, Runtime
from pipeline.core.progress import Progress
from pipeline.encoders.encoder import in_groups, refuse_broken
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.pairs import Pair, PairScorer, identity
from pipeline.encoders.tokens import Tokens
from pipeline.encoders.weights import resolve_weights
from pipeline.store.store import Keys, Store, keys_of, read_or_fill

GROUP_PAIRS = 1_024
"""Logits are stored in groups of so many pairs, or after `GROUP_SECONDS`."""

TOKENISED_PAIRS = 256
"""How many pairs are tokenised together."""


class PairScores:
    """A reranker's logits of pairs, kept in the store.

    An entry of the store has a pair's logits, and 1 if the pair was cut at `max_tokens`, else 0.

    Attributes:
        name: the reranker's key under `rerankers` or `trained`.
        weights: its files on this machine.
        engine: what computes it, and on which device.
        scored: how many pairs were scored so far, the others being in the store.
        tokens: how many tokens the model read of them.
    """

    def __init__(self, name: str, spec: Reranker, runtime: Runtime) -> None:
        """Find the weights and the engine; the model is loaded when it is needed.

        Pairs are scored on this machine, also where a cluster encodes.

        Raises:
            PipelineError: as `resolve_weights` and `resolve_engine`.
        """
        self.name = name
        self._spec = spec
        self._runtime = runtime.local()
        self.weights = resolve_weights(spec, name)
        self.engine = resolve_engine(spec, self.weights, self._runtime)
        self._store = Store(layout.store(), identity(spec, self.weights, self.engine), "float32")
        self.scored = self.tokens = 0

    def missing(self, keys: Keys) -> Keys:
        """Return the distinct keys whose pairs are not in the store."""
        distinct = np.unique(keys, axis=0)
        held = self._store.holds(distinct)
        self._store.use(distinct[held])
        return distinct[~held]

    def logits(
        self, pairs: Sequence[Pair], keys: Keys, progress: Progress
    ) -> tuple[Matrix, NDArray[np.bool_]]:
        """Return the logits of pairs, [pairs, labels], and which pairs were cut, [pairs].

        Args:
            pairs: the pairs.
            keys: what `pair_keys` returns for them.
            progress: counts the pairs that are scored.

        Raises:
            PipelineError: a text is not Unicode, a logit is NaN or infinity, or the store loses
                pairs again and again.
        """
        if not pairs:
            return np.empty((0, self._spec.labels), np.float32), np.empty(0, np.bool_)
        found = read_or_fill(
            lambda: self._store.read(keys), lambda: self._fill(pairs, keys, progress)
        )
        logits: Matrix = found[:, :-1]
        return logits, found[:, -1] != 0

    def unload(self) -> None:
        """Let go of the model and of its memory; it is loaded again when it is needed."""
        self.__dict__.pop("_scorer", None)

    @cached_property
    def _scorer(self) -> PairScorer:
        threads = self._runtime.thread_count()
        return PairScorer(self._spec, self.weights, self.engine, threads)

    def _fill(self, pairs: Sequence[Pair], keys: Keys, progress: Progress) -> None:
        """Score the pairs that the store lacks, each once, into it."""
        self._store.refresh()  # another process may have scored them meanwhile
        _, once = np.unique(keys, axis=0, return_index=True)
        rows = np.sort(once[~self._store.holds(keys[once])])
        cut: dict[int, bool] = {}

        def texts() -> Iterator[tuple[int, Tokens]]:
            for part, tokens in self._tokenised(pairs, rows.tolist()):
                for row, each in zip(part, tokens, strict=True):
                    cut[row] = each.cut.size > 0
                    self.tokens += len(each.ids)
                    yield row, each

        for group in in_groups(self._scorer.score_tokens(texts()), GROUP_PAIRS):
            places = np.concatenate([part.places for part in group])
            raw = np.concatenate([part.raw for part in group])
            refuse_broken(raw, [pairs[row] for row in places.tolist()], self.weights.entry)
            was_cut = np.array([[cut.pop(row)] for row in places.tolist()], dtype=np.float32)
            self._store.add(keys[places], np.hstack([raw, was_cut]))
            self.scored += len(places)
            progress.advance(len(places))

    def _tokenised(
        self, pairs: Sequence[Pair], rows: Sequence[int]
    ) -> Iterator[tuple[Sequence[int], list[Tokens]]]:
        """Yield rows and the tokens of their pairs; the tokenizer is a little ahead."""
        tokenizer = self._scorer.tokenizer
        starts = range(0, len(rows), TOKENISED_PAIRS)
        yield from in_parallel(
            lambda part: (part, tokenizer([pairs[row] for row in part])),
            (rows[start : start + TOKENISED_PAIRS] for start in starts),
            threads=1,
        )


def pair_keys(pairs: Iterable[Pair]) -> Keys:
    """Return the key of each pair in the store; the length keeps the two texts apart."""
    return keys_of(f"{len(query)} {query}{document}" for query, document in pairs)
