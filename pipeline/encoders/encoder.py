"""A loaded encoder: texts in, vectors out, under the whole contract of its entry."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Encoder
from pipeline.encoders.batching import Batch, Batcher
from pipeline.encoders.engine import Computer
from pipeline.encoders.tokens import Tokenizer, Tokens
from pipeline.encoders.weights import LocalWeights
from pipeline.vectors.lengths import apply_contract

GROUP_SECONDS = 10.0
"""What is computed is stored after this time, at the latest: a kill loses one group."""

Role = Literal["query", "passage"]
"""Which prefix goes before a text."""


@dataclass(frozen=True)
class Encoded:
    """Some texts' vectors.

    Attributes:
        places: which texts; int64, shape [texts].
        raw: as the model pools them, neither cut nor normalised; float32, shape [texts, dimension].
        computed: how many tokens the engine computed for them, padding included.
    """

    places: NDArray[np.int64]
    raw: Matrix
    computed: int


class TextEncoder:
    """Encodes queries and passages, each with its prefix, which is added here and nowhere else.

    A text's vector depends on the text alone: not on other texts, its place or the threads.

    Attributes:
        dimension: how many components the model's own vectors have, before any cut.
    """

    def __init__(
        self,
        computer: Computer,
        tokenizer: str,
        pad_id: int,
        spec: Encoder,
        weights: LocalWeights,
        *,
        pads: bool = True,
    ) -> None:
        """Put the parts together; `load_encoder` does. `pads` is what `resolve_engine` found."""
        self._computer = computer
        self._tokenizer = tokenizer
        self._tokenizers: dict[Role, Tokenizer] = {}
        self._pad_id = pad_id
        self._pads = pads
        self._spec = spec
        self._weights = weights
        one_token = Tokens(np.zeros(1, np.int32), np.empty(0, np.int32), prompt=0)
        (one_text,) = self.encode_tokens([(0, one_token)])
        self.dimension: int = one_text.raw.shape[1]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of queries, all at once.

        Returns:
            float32, C-contiguous, shape (texts, dimension), in the order of the texts; unit length
            if the entry says `normalize`. An empty text has the vector of its prefix.

        Raises:
            PipelineError: a text is not Unicode (a lone surrogate), or its vector holds NaN or
                infinity or, if it is to be normalised, has no length.
        """
        return self._encode(texts, "query")

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages; as `encode_queries`, with the passages' prefix."""
        return self._encode(texts, "passage")

    def tokenizer(self, role: Role) -> Tokenizer:
        """Return what makes tokens of queries or passages; made once, for it takes a second."""
        if role not in self._tokenizers:
            self._tokenizers[role] = Tokenizer(
                self._tokenizer,
                prefix_of(self._spec, role),
                self._spec.max_tokens,
                self._weights.entry,
            )
        return self._tokenizers[role]

    def encode_tokens(self, texts: Iterable[tuple[int, Tokens]]) -> Iterator[Encoded]:
        """Encode a stream of texts, each under a number of its own, in bounded memory.

        The texts of one length come out together, so not in their order; all have come out at the
        end. Vectors are not checked here: see `refuse_broken`.
        """
        return compute(self._computer, texts, self._spec.max_tokens, self._pad_id, pads=self._pads)

    def _encode(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        raw = np.empty((len(texts), self.dimension), dtype=np.float32)
        for part in self.encode_tokens(enumerate(self.tokenizer(role)(texts))):
            raw[part.places] = part.raw
        refuse_broken(raw, texts, self._weights.entry)
        return apply_contract(
            raw,
            self._spec,
            lambda row: f"{self._weights.entry}: text {row} ({shorten(texts[row])})",
        )


def compute(
    computer: Computer,
    texts: Iterable[tuple[int, Tokens]],
    max_tokens: int,
    pad_id: int,
    *,
    pads: bool,
) -> Iterator[Encoded]:
    """Compute the output for a stream of texts, each under a number of its own.

    Args:
        computer: what computes batches.
        texts: their numbers and tokens.
        max_tokens: the length of the longest text.
        pad_id: the id that fills the places without a token.
        pads: whether texts may be padded.

    Yields:
        The texts of one batch, in bounded memory; not in the order of the texts.
    """
    batcher = Batcher(computer.batch_tokens, max_tokens, pad_id, pads=pads)

    def batches() -> Iterator[Batch]:
        for place, tokens in texts:
            if batch := batcher.add(place, tokens):
                yield batch
        yield from batcher.flush()

    for batch, raw in computer.compute(batches()):
        yield Encoded(batch.places, raw, batch.ids.size)


def in_groups(parts: Iterable[Encoded], size: int) -> Iterator[list[Encoded]]:
    """Yield outputs as they come, in groups to store: of at least `size`, or of `GROUP_SECONDS`."""
    group: list[Encoded] = []
    begun = time.monotonic()
    for part in parts:
        group.append(part)
        held = sum(len(each.places) for each in group)
        if held >= size or time.monotonic() - begun >= GROUP_SECONDS:
            yield group
            group, begun = [], time.monotonic()
    if group:
        yield group


def prefix_of(spec: Encoder, role: Role) -> str:
    """Return what goes before a text."""
    return spec.query_prefix if role == "query" else spec.passage_prefix


def refuse_broken(raw: Matrix, inputs: Sequence[str | tuple[str, str]], entry: str) -> None:
    """Raise a `PipelineError` if a model's output is NaN or infinity.

    Args:
        raw: the output, [inputs, components].
        inputs: of each row, a text, or a query and a product's text.
        entry: the key of the model's entry.
    """
    broken = ~np.isfinite(raw).all(axis=1)
    if broken.any():
        first = inputs[int(broken.argmax())]
        shown = f"the text {shorten(first)}"
        if not isinstance(first, str):
            shown = f"the query {shorten(first[0])} and the product {shorten(first[1])}"
        raise PipelineError(
            f"{entry}: the output for {shown} holds NaN or infinity: the model's weights are "
            "damaged, do not match the model code, or overflow at this precision. Bring the model "
            "again, or use precision float32."
        )
