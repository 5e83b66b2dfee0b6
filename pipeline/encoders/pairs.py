"""Pairs of a query and a document: their tokens and their scores by a cross-encoder."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import Reranker, Runtime
from pipeline.encoders.encoder import Encoded, compute, refuse_broken
from pipeline.encoders.engine import EngineChoice, OnThreads
from pipeline.encoders.identity import engine_identity
from pipeline.encoders.loading import load_engine, resolve_engine
from pipeline.encoders.tokens import Tokens, refuse_surrogates
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    from tokenizers import Encoding
    from tokenizers import Tokenizer as Library

Pair = tuple[str, str]
"""A query and a document."""

_FORM = 1  # of logits; raise it when a change here changes any of their bits


def type_offset(tokenizer: "Library") -> int:
    """Return what is added to the ids of a pair's second text; see `PairModel`."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1


class PairTokenizer:
    """Tokenises pairs by the model's own template, on the threads of the tokenizers library.

    A pair that is too long loses tokens of its longer text first, as in
    `CrossEncoder.predict` of sentence-transformers.
    """

    def __init__(self, json: str, max_tokens: int, where: str) -> None:
        """Make a tokenizer; the arguments are those of `Tokenizer`, for pairs."""
        from tokenizers import Tokenizer as Library

        self._tokenizer = Library.from_str(json)
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(
            max_tokens,
            strategy="longest_first",
            direction=(self._tokenizer.truncation or {}).get("direction", "right"),
        )
        self._offset = type_offset(self._tokenizer)
        self._where = where

    def __call__(self, pairs: Sequence[Pair]) -> list[Tokens]:
        """Return the tokens of pairs, in their order; `cut` is not empty where tokens are cut off.

        Raises:
            PipelineError: a text is not Unicode (it holds a lone surrogate).
        """
        try:
            encodings = self._tokenizer.encode_batch(list(pairs))
        except (TypeError, UnicodeEncodeError):
            refuse_surrogates((text for pair in pairs for text in pair), self._where)
            raise
        return [self._tokens(encoding) for encoding in encodings]

    def _tokens(self, encoding: "Encoding") -> Tokens:
        ids = np.array(encoding.ids, dtype=np.int32)
        types = np.array(encoding.type_ids, dtype=np.int32)
        cut = np.zeros(int(bool(encoding.overflowing)), dtype=np.int32)
        return Tokens(ids + types * self._offset, cut, prompt=0)


class PairScorer:
    """Scores pairs. A pair's logits depend on the pair alone: not on others, nor the threads."""

    def __init__(
        self, spec: Reranker, weights: LocalWeights, choice: EngineChoice, threads: int
    ) -> None:
        """Load a reranker onto the engine that `resolve_engine` returned for it.

        Raises:
            PipelineError: as `load_engine`; or the model's output is not one logit a label.
        """
        loaded = load_engine(choice, spec, weights, threads)
        self._computer = OnThreads(loaded.engine)
        self._spec, self._weights = spec, weights
        self._pad_id, self._pads = loaded.pad_id, choice.pads
        self.tokenizer = PairTokenizer(loaded.tokenizer, spec.max_tokens, weights.entry)
        (one,) = self.score_tokens(enumerate(self.tokenizer([("x", "x")])))
        if one.raw.shape != (1, spec.labels):
            raise PipelineError(
                f"{weights.entry}.labels: {spec.labels}, but the model gives {one.raw.shape[-1]}. "
                "Set the number that it has: 1 or 4."
            )

    def score_tokens(self, pairs: Iterable[tuple[int, Tokens]]) -> Iterator[Encoded]:
        """Score a stream of pairs, each under a number of its own, in bounded memory.

        The pairs of one length come out together; `Encoded.raw` are logits, [pairs, labels].
        """
        return compute(self._computer, pairs, self._spec.max_tokens, self._pad_id, pads=self._pads)

    def logits(self, pairs: Sequence[Pair]) -> Matrix:
        """Return the logits of pairs, float32, [pairs, labels], in their order.

        Raises:
            PipelineError: a text is not Unicode, or a logit is NaN or infinity.
        """
        raw = np.empty((len(pairs), self._spec.labels), dtype=np.float32)
        for part in self.score_tokens(enumerate(self.tokenizer(pairs))):
            raw[part.places] = part.raw
        refuse_broken(raw, pairs, self._weights.entry)
        return raw


def load_scorer(spec: Reranker, weights: LocalWeights, runtime: Runtime) -> PairScorer:
    """Load a reranker onto the engine and device that `runtime` and its precision ask for."""
    choice = resolve_engine(spec, weights, runtime)
    return PairScorer(spec, weights, choice, runtime.thread_count())


def probabilities(logits: Matrix) -> NDArray[np.float64]:
    """Return the probabilities of labels: softmax of each row, [pairs, labels]."""
    raised = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    found: NDArray[np.float64] = raised / raised.sum(axis=1, keepdims=True)
    return found


def scores_of(logits: Matrix, spec: Reranker) -> NDArray[np.float64]:
    """Return the scores of pairs, each one that float32 holds, [pairs].

    One label's logit is the score. Of four labels it is the expected gain, their probabilities
    times `gains`.
    """
    scores = logits[:, 0] if spec.gains is None else probabilities(logits) @ np.array(spec.gains)
    return scores.astype(np.float32).astype(np.float64)


def identity(spec: Reranker, weights: LocalWeights, engine: EngineChoice) -> dict[str, Any]:
    """Return all that a pair's logits depend on, beside the pair; see `encoders.identity`."""
    return {
        "engine": engine_identity(engine, spec.precision),
        "form": _FORM,
        "max_tokens": spec.max_tokens,
        "of": "pairs",
        "pads": engine.pads,
        "precision": spec.precision,
        "weights": weights.sha256,
    }
