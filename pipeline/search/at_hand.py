"""Who must contact no other host, such as a server, loads only models that are on this machine."""

from pipeline.core.errors import PipelineError
from pipeline.core.params import FolderWeights, Weights
from pipeline.core.systems import System
from pipeline.encoders.weights import at_hand


def refuse_absent(weights: Weights, entry: str, locale: str, system: System) -> None:
    """Raise a `PipelineError` where `resolve_weights` would fetch the weights.

    Args:
        weights: what the entry names; a folder is never fetched.
        entry: its key in params.yaml, for the message.
        locale: the locale that needs the model.
        system: a system that needs it.
    """
    if not isinstance(weights, FolderWeights) and not at_hand(weights):
        raise PipelineError(
            f"{entry}: its weights are not on this machine, and a server fetches none. Run "
            f"`python -m pipeline.search a --locale {locale} --system {system}`, which does."
        )
