"""The torch engine: the reference, any model, CPU or GPU."""

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError
from pipeline.core.trained import Precision
from pipeline.encoders.batching import CPU_BATCH_TOKENS, Batch
from pipeline.encoders.engine import Device
from pipeline.encoders.model import LoadedModel

GPU_BATCH_TOKENS = 16_384


class TorchEngine:
    """Runs the model as sentence-transformers would.

    On a CPU every thread computes a batch of its own on one core, so that the number of threads
    changes no bit; on a GPU one thread feeds it.
    """

    def __init__(
        self, model: LoadedModel, device: Device, precision: Precision, threads: int
    ) -> None:
        """Move a model to its device, in its precision."""
        import torch

        on_cpu = device == "cpu"
        self.batch_tokens = CPU_BATCH_TOKENS if on_cpu else GPU_BATCH_TOKENS
        self.threads = threads if on_cpu else 1
        self._model = model
        self._device = device
        kind = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision, torch.float32)
        model.modules.to(device=device, dtype=kind)

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Compute a batch; see `Engine`.

        Raises:
            PipelineError: the device's memory does not hold it.
        """
        import torch

        if self._device == "cpu":
            torch.set_num_threads(1)  # for the calling thread
        try:
            return self._compute(batch)
        except torch.OutOfMemoryError as err:
            raise PipelineError(
                f"the memory of {self._device} is too small for {batch.ids.size} tokens at once. "
                "End other programs that use it, lower the entry's max_tokens, or set "
                "runtime.device: cpu."
            ) from err

    def _compute(self, batch: Batch) -> NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            features = self._model.features(
                torch.from_numpy(batch.ids).to(self._device),
                torch.from_numpy(batch.mask).to(self._device),
                batch.prompt,
            )
            pooled = self._model.modules(features)["sentence_embedding"][: len(batch.places)]
            vectors: NDArray[np.float32] = pooled.float().cpu().numpy()
        return vectors
