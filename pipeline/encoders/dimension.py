"""Whether a model's vectors may be cut to the dimension that an entry asks for."""

from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Encoder
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.model_settings import trained_dimensions
from pipeline.encoders.weights import LocalWeights


def check_dimension(spec: Encoder, weights: LocalWeights, width: int) -> None:
    """Check that a model's vectors may be cut to the entry's `dimension`.

    A model that lists its `matryoshka_dimensions` in config.json is cut to one of those; for one
    that lists none see `warn_of_cut`.

    Args:
        spec: the entry.
        weights: its weights.
        width: the dimension of the model's own vectors.

    Raises:
        PipelineError: the model has fewer components, or was trained for other dimensions.
    """
    kept = spec.dimension
    if kept in ("model", width):
        return
    assert kept != "model"
    where = f"{weights.entry}.dimension: {kept}"
    if kept > width:
        raise PipelineError(
            f"{where} is more than the model's {width} components. Set it to model."
        )
    trained = _trained(weights)
    if trained and kept not in trained:
        raise PipelineError(
            f"{where}, but the model was trained to be cut at {', '.join(map(str, trained))}. Set "
            "it to one of those, or to model."
        )


def warn_of_cut(spec: Encoder, weights: LocalWeights, width: int) -> None:
    """Warn if a model's vectors are cut and its config.json does not say that they may be."""
    if spec.dimension not in ("model", width) and not _trained(weights):
        log.warning(
            "warning: %s.dimension: %s: nothing says that the model was trained to be cut "
            "(config.json has no matryoshka_dimensions); compare its nDCG with dimension: model",
            weights.entry, spec.dimension,
        )  # fmt: skip


def _trained(weights: LocalWeights) -> list[int]:
    return trained_dimensions(transformer_folder(weights.folder) / "config.json")
