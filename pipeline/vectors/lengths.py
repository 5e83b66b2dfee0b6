"""From a model's pooled vectors to those of an encoder's entry: dimension and length."""

from collections.abc import Callable

import numpy as np

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder
from pipeline.vectors.shards import PIECE_ROWS, shard_bounds


def apply_contract(raw: Matrix, encoder: Encoder, what: Callable[[int], str]) -> Matrix:
    """Make of a model's pooled vectors those that the encoder's entry asks for.

    Each row by itself: a text's vector does not depend on its company, to the last bit.

    Args:
        raw: finite, float32, shape [rows, the model's dimension].
        encoder: tells how many leading components are kept, and whether rows are normalised.
        what: names a row, for messages.

    Returns:
        float32, C-contiguous, shape [rows, dimension].

    Raises:
        PipelineError: the model's dimension is less than asked for, or a vector that is to be
            normalised has no length.
    """
    if encoder.dimension != "model":
        if encoder.dimension > raw.shape[1]:
            raise PipelineError(
                f"an encoder's dimension is set to {encoder.dimension}, but its model's vectors "
                f"have {raw.shape[1]} components; set it to `model`, or lower"
            )
        raw = raw[:, : encoder.dimension]
    if not encoder.normalize:
        return np.ascontiguousarray(raw)
    return _at_length_one(
        raw,
        lambda row: (
            f"{what(row)}: its vector is zero and cannot be normalised; "
            "use an encoder with normalize: false, or leave that text out"
        ),
    )


def at_unit_length(vectors: Matrix, what: str, first_row: int = 0) -> Matrix:
    """Return the vectors at length 1, so that their inner product is their cosine.

    Raises:
        PipelineError: a vector has no direction; `what` names the vectors, which are numbered from
            `first_row`.
    """
    return _at_length_one(
        vectors,
        lambda row: (
            f"{what}: the vector of row {first_row + row} is zero and has no cosine; "
            "use an encoder with another similarity, or leave that text out"
        ),
    )


def _at_length_one(vectors: Matrix, zero_told: Callable[[int], str]) -> Matrix:
    out: Matrix = np.empty(vectors.shape, dtype=np.float32)
    for start, stop in shard_bounds(len(vectors), PIECE_ROWS):
        piece = vectors[start:stop]
        # In float64 no square over- or underflows. In C order each row is summed by itself, in the
        # same order however many rows there are, which no BLAS and no einsum promises.
        lengths = np.sqrt(np.square(piece, dtype=np.float64, order="C").sum(axis=1, keepdims=True))
        if (zero := np.flatnonzero(lengths == 0)).size:
            raise PipelineError(zero_told(start + int(zero[0])))
        np.divide(piece, lengths, out=out[start:stop], casting="same_kind")
    return out
