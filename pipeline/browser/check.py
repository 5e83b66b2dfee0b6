"""Is the exported encoder ours? Its vectors of real texts beside those that `embed` wrote."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.browser.onnx_model import OnnxEncoder
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.encoders.encoder import Role, prefix_of
from pipeline.encoders.tokens import Tokenizer
from pipeline.retrieve import neighbours
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import Kind, Manifest
from pipeline.vectors.shards import ShardReader

TEXTS = 256
"""Texts that are compared: queries, and products where there are fewer queries."""

LEAST_COSINE = 0.99
"""The least cosine that any of them may have to our vector."""

LEAST_OVERLAP = 0.9
DEPTH = 10
"""The least mean share of the exact first ten products that the query vectors must find."""


def compare(
    params: Params, locale: str, held: Manifest, encode: OnnxEncoder, tokenizer: str
) -> tuple[float, float | None]:
    """Return the least cosine to our vectors over texts, and the mean overlap over queries.

    Without queries no overlap is measured: it is None.

    Raises:
        PipelineError: one of them is below what is wanted.
    """
    queries = min(TEXTS, held.queries.rows)
    products = min(TEXTS - queries, held.products.rows)
    sides: tuple[tuple[Role, Kind, int], ...] = (
        ("query", "queries", queries), ("passage", "products", products),
    )  # fmt: skip
    spec, name = params.encoder_of(locale), params.entry_of(held.encoder)
    cosines: list[float] = []
    overlap: float | None = None
    for role, kind, wanted in sides:
        if not wanted:
            continue
        rows = np.linspace(0, held.side(kind).rows - 1, wanted).astype(np.int64)
        make = Tokenizer(tokenizer, prefix_of(spec, role), spec.max_tokens, name)
        ours = ShardReader(held, kind, locale).take(rows)
        theirs = encode(make(_texts(locale, kind, rows)))
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
        cosines.append(float((np.einsum("ij,ij->i", ours, theirs) / lengths).min()))
        if kind == "queries":
            catalogue = ShardReader(held, "products", locale)
            exact, found = (
                neighbours.exact_codes(
                    catalogue, to_index_form(each, spec.similarity, kind), DEPTH, spec.similarity
                )
                for each in (ours, theirs)
            )
            overlap = float(neighbours.overlap(found, exact))
    least = min(cosines)
    # NaN is refused too.
    if not (least >= LEAST_COSINE and (overlap is None or overlap >= LEAST_OVERLAP)):
        share = "" if overlap is None else f", and find {overlap:.3f} of the exact first ten"
        raise PipelineError(
            f"{name}: in 8 bits its vectors have a cosine of only {least:.4f} to ours{share} "
            f"(wanted: {LEAST_COSINE} and {LEAST_OVERLAP}). Use another encoder for {locale}."
        )
    return least, overlap


def _texts(locale: str, kind: Kind, rows: NDArray[np.int64]) -> list[str]:
    path, remedy = layout.clean(locale).side(kind), layout.rerun_hint("clean", locale)
    schema: Any = tables.QUERIES if kind == "queries" else tables.PRODUCTS
    texts: list[str] = tables.read_column(path, schema, "text", remedy).take(rows).to_pylist()
    return texts
