"""What a text's raw vector depends on."""

from importlib.metadata import version
from typing import Any

from pipeline.core.params import Encoder
from pipeline.core.trained import Precision
from pipeline.encoders.encoder import Role, prefix_of
from pipeline.encoders.engine import EngineChoice, computed_by
from pipeline.encoders.model import built_in_form
from pipeline.encoders.openvino_model import version_of
from pipeline.encoders.weights import LocalWeights

_FORM = 1  # of raw vectors; raise it when a change here changes any of their bits


def identity(
    spec: Encoder, weights: LocalWeights, engine: EngineChoice, role: Role
) -> dict[str, Any]:
    """Return all that a text's raw vector depends on, beside the text.

    Machines and environments with the same identity may share a store of vectors.
    """
    about: dict[str, Any] = {
        **built_in_form(weights),
        "engine": engine_identity(engine, spec.precision),
        "form": _FORM,
        "max_tokens": spec.max_tokens,
        "pooling": spec.pooling,
        "precision": spec.precision,
        "prefix": prefix_of(spec, role),
        "weights": weights.sha256,
    }
    return about if engine.pads else about | {"pads": False}


def engine_identity(engine: EngineChoice, precision: Precision) -> str:
    """Return an engine, what of the hardware decides its last bits, and its libraries' versions."""
    libraries: dict[str, str | int] = {
        name: version(name) for name in ("tokenizers", "torch", "transformers")
    }
    if engine.name == "openvino":
        libraries = version_of(precision)
    return ", ".join(
        [computed_by(engine, precision), *(f"{key} {of}" for key, of in libraries.items())]
    )
