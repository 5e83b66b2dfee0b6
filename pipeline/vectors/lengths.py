"""The last steps from a model's pooled vectors to an encoder's: dimension and length."""

from collections.abc import Callable

import numpy as np

from pipeline.core.arrays import Floats, Matrix, blocks
from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder, Similarity
from pipeline.vectors.shards import PIECE_ROWS

LARGEST_COMPONENT = 1e9
"""Of a vector that is compared as it is. The products and squares of such vectors, and what indexes
make of them, stay far below the largest number of 32 bits; with 1e20, FAISS would find nothing."""


def apply_contract(raw: Matrix, encoder: Encoder, what: Callable[[int], str]) -> Matrix:
    """Cut and normalise a model's pooled vectors as the encoder's entry says.

    Each row is computed by itself: a text's vector is bit-identical regardless of the other rows.

    Args:
        raw: finite, float32, shape [rows, the model's dimension].
        encoder: the entry; it says how many leading components stay, and whether to normalise.
        what: returns the name of a row for messages.

    Returns:
        float32, C-contiguous, shape [rows, dimension].

    Raises:
        PipelineError: the model has fewer components than the entry asks for, a vector to be
            normalised is zero, or one that is compared as it is has scores that would overflow.
    """
    if encoder.dimension != "model":
        if encoder.dimension > raw.shape[1]:
            raise PipelineError(
                f"an encoder's dimension must be at most its model's {raw.shape[1]} components "
                f"(found {encoder.dimension}). Set it to `model`, or lower."
            )
        raw = raw[:, : encoder.dimension]
    if not encoder.normalize:
        if encoder.similarity != "cosine":
            _refuse_overflow(raw, what)
        return np.ascontiguousarray(raw)
    return _at_length_one(
        raw,
        lambda row: (
            f"{what(row)}: its vector is zero and cannot be normalised. "
            "Use an encoder with normalize: false, or leave that text out."
        ),
    )


def at_unit_length(vectors: Matrix, what: str, first_row: int = 0) -> Matrix:
    """Return the vectors at length 1, so that their inner product is their cosine.

    Args:
        vectors: float32, shape [rows, dimension].
        what: the name of the vectors for messages.
        first_row: the number of the first of them, for messages.

    Raises:
        PipelineError: a vector is zero.
    """
    return _at_length_one(
        vectors,
        lambda row: (
            f"{what}: the vector of row {first_row + row} is zero and has no cosine. "
            "Use an encoder with another similarity, or leave that text out."
        ),
    )


def unit_or_zero(vectors: Matrix) -> Matrix:
    """Return vectors at length 1 as `at_unit_length` does, but zero where they are zero."""
    lengths = np.sqrt(squared_lengths(vectors))[:, np.newaxis]
    out: Matrix = np.zeros(vectors.shape, dtype=np.float32)
    np.divide(vectors, lengths, out=out, where=lengths > 0, casting="same_kind")
    return out


def to_index_form(matrix: Matrix, similarity: Similarity, what: str, first_row: int = 0) -> Matrix:
    """Return vectors in the form that is compared: at length 1 for cosine, else as they are.

    `what` they are and the number of the first are for messages.

    Raises:
        PipelineError: a vector has no length and must have one, or its scores would overflow.
    """
    if similarity == "cosine":
        return at_unit_length(matrix, what, first_row)
    _refuse_overflow(matrix, lambda row: f"{what}: row {first_row + row}")
    return matrix


def _refuse_overflow(vectors: Matrix, what: Callable[[int], str]) -> None:
    """Raise a `PipelineError` if scores of a vector would overflow; `what` names a row."""
    if max(vectors.max(initial=0), -vectors.min(initial=0)) <= LARGEST_COMPONENT:
        return
    largest = np.abs(vectors).max(axis=1)
    row = int(np.argmax(largest > LARGEST_COMPONENT))
    raise PipelineError(
        f"{what(row)}: a component must be at most {LARGEST_COMPONENT:g}, else scores overflow "
        f"(found {largest[row]:g}). Use an encoder with normalize: true, or leave that text out."
    )


def squared_lengths(vectors: Matrix) -> Floats:
    """Return the squared length of each vector, float64 [rows]; other rows do not change a bit."""
    # In float64 no square over- or underflows. In C order NumPy sums each row by itself and in the
    # same order, whatever the number of rows; BLAS and einsum do not promise that.
    found = np.empty(len(vectors))
    for rows in blocks(range(len(vectors)), PIECE_ROWS):
        piece = vectors[rows.start : rows.stop]
        found[rows.start : rows.stop] = np.square(piece, dtype=np.float64, order="C").sum(axis=1)
    return found


def _at_length_one(vectors: Matrix, say_zero: Callable[[int], str]) -> Matrix:
    out: Matrix = np.empty(vectors.shape, dtype=np.float32)
    for rows in blocks(range(len(vectors)), PIECE_ROWS):
        piece = vectors[rows.start : rows.stop]
        lengths = np.sqrt(squared_lengths(piece))[:, np.newaxis]
        if (zero := np.flatnonzero(lengths == 0)).size:
            raise PipelineError(say_zero(rows.start + int(zero[0])))
        np.divide(piece, lengths, out=out[rows.start : rows.stop], casting="same_kind")
    return out
