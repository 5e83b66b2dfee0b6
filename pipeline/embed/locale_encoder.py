"""The encoder of a locale: its weights and engine at once, its model when it is needed."""

from contextlib import ExitStack
from functools import cached_property

from pipeline.core.params import Params
from pipeline.core.trained_folder import refuse_other_model
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_on, resolve_engine
from pipeline.encoders.remote import RemoteEncoder
from pipeline.encoders.weights import resolve_weights


class LocaleEncoder:
    """The encoder that params.yaml names for a locale.

    Attributes:
        name: its key under `encoders` or `trained`.
        spec: its entry.
        weights: its files on this machine.
        engine: what computes it, and on which device.
    """

    def __init__(self, params: Params, locale: str, *, convert: bool = True) -> None:
        """Find the weights and the engine; the model is not loaded yet.

        With `convert` False the model is not converted for its engine, and cannot be loaded.

        Raises:
            PipelineError: as `resolve_weights`, `refuse_other_model` and `resolve_engine`.
        """
        self.name, self.spec = params.encoder[locale], params.encoder_of(locale)
        self._runtime = params.runtime
        self._open = ExitStack()
        self.weights = resolve_weights(self.spec, self.name)
        if convert:
            refuse_other_model(params, self.name, self.weights.sha256)
        self.engine = resolve_engine(self.spec, self.weights, params.runtime, convert=convert)

    @cached_property
    def model(self) -> TextEncoder:
        """The model, loaded on this machine or on a Ray cluster."""
        if self.distributed:
            remote = RemoteEncoder(self.engine, self.spec, self.weights, self._runtime)
            return self._open.enter_context(remote)
        threads = self._runtime.thread_count()
        return load_on(self.engine, self.spec, self.weights, threads)

    @property
    def threads(self) -> int:
        """How many threads compute on this machine; 1 if a GPU or a cluster computes instead."""
        if self.distributed or self.engine.device != "cpu":
            return 1
        return self._runtime.thread_count()

    @property
    def distributed(self) -> bool:
        """Whether a Ray cluster computes."""
        return self._runtime.executor == "ray"

    def close(self) -> None:
        """End the workers on the cluster, if there are any."""
        self._open.close()
