"""An encoder shows that it encodes."""

from dataclasses import dataclass

import numpy as np

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder, Runtime
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_on, resolve_engine
from pipeline.encoders.weights import LocalWeights

TEXT = "red running shoes, zapatillas rojas, 赤いランニングシューズ"
OTHER = "12 V battery charger"


@dataclass(frozen=True)
class Proof:
    """What encoding one query gave.

    Attributes:
        tokens: how many tokens it has, prefix and special ones included.
        dimension: how many components its vector has.
        length: its vector's length.
        engine: what computed it.
    """

    tokens: int
    dimension: int
    length: float
    engine: str

    def __str__(self) -> str:
        return (
            f"proof: a query of {self.tokens} tokens has a vector of {self.dimension} components "
            f"and length {self.length:.3f} ({self.engine})"
        )


def prove(spec: Encoder, weights: LocalWeights, runtime: Runtime) -> Proof:
    """Load an encoder as embed does, and encode a query and a product.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.
        runtime: the engine and device.

    Raises:
        PipelineError: as `load_encoder` and `TextEncoder`; or unlike texts have the same vector.
    """
    engine = resolve_engine(spec, weights, runtime)
    encoder: TextEncoder = load_on(engine, spec, weights, runtime.thread_count())
    query, other = encoder.encode_queries([TEXT, OTHER])
    encoder.encode_passages([TEXT])
    if np.array_equal(query, other):
        raise PipelineError(
            f"{weights.entry}: {TEXT!r} and {OTHER!r} have the same vector, so the model "
            "tells no texts apart. Its weights or its vocabulary are damaged; use another copy."
        )
    (tokens,) = encoder.tokenizer("query")([TEXT])
    return Proof(len(tokens.ids), query.size, float(np.linalg.norm(query)), str(engine))
