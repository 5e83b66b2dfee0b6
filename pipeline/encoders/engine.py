"""Which engine computes an encoder's vectors on this machine, and what an engine is."""

import importlib.util
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cpu import bfloat16_instructions, widest_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Entry, Runtime
from pipeline.core.trained import Precision
from pipeline.encoders.batching import Batch
from pipeline.encoders.openvino_model import Converted

EngineName = Literal["torch", "openvino"]
Device = Literal["cpu", "cuda", "mps"]

# What GPUs' drivers put there: NVIDIA, AMD, Windows' subsystem for Linux.
_GPU_SIGNS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))


class Engine(Protocol):
    """Computes batches; several threads may call it at once.

    Attributes:
        batch_tokens: how many tokens it likes in a batch.
        threads: how many threads should call it.
    """

    batch_tokens: int
    threads: int

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Return the pooled vectors of a batch's texts, float32, shape [texts, dimension]."""
        ...


class Computer(Protocol):
    """Computes a stream of batches, on this machine or on others.

    Attributes:
        batch_tokens: how many tokens its engines like in a batch.
    """

    batch_tokens: int

    def compute(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Yield each batch with its texts' vectors, in any order; takes only some batches ahead."""
        ...


class OnThreads:
    """Computes on the threads of this process; see `Computer`."""

    def __init__(self, engine: Engine) -> None:
        """Take an engine."""
        self._engine = engine
        self.batch_tokens = engine.batch_tokens

    def compute(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Compute the batches, in their order."""
        engine = self._engine
        return in_parallel(lambda batch: (batch, engine(batch)), batches, engine.threads)


@dataclass(frozen=True)
class EngineChoice:
    """An engine and the device it computes on.

    Attributes:
        name: the engine.
        device: the device.
        pads: whether texts may be padded to one length; see `padding`.
        converted: the model in openvino's form, if it was looked up already.
    """

    name: EngineName
    device: Device
    pads: bool = True
    converted: Converted | None = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        return f"{self.name}-{self.device}"


def choose_engine(spec: Entry, runtime: Runtime) -> EngineChoice:
    """Return what `runtime` means for an encoder on this machine; nothing is loaded.

    `auto` is a GPU where there is one, with torch; on a CPU, openvino where it is installed. int8
    is openvino's, float16 is torch's; bfloat16 on a CPU is openvino's, unless torch is asked for.

    Raises:
        PipelineError: the device is not there, or openvino is needed and not installed.
    """
    installed = importlib.util.find_spec("openvino") is not None
    needed = spec.precision == "int8" or runtime.engine == "openvino"
    device = "cpu" if needed else _device(runtime)
    if runtime.engine == "auto" and device == "cpu":
        needed = needed or spec.precision == "bfloat16"
        if spec.precision == "float32" and installed:
            return EngineChoice("openvino", "cpu")
    if needed and not installed:
        raise PipelineError(
            "openvino is not installed. Run `pip install openvino`, or use precision float32 with "
            "runtime.engine auto or torch."
        )
    return EngineChoice("openvino" if needed else "torch", device)


def computed_by(choice: EngineChoice, precision: Precision) -> str:
    """Return an engine, its device and what of the hardware decides the last bits of its vectors.

    That is a GPU's name, or the widest vector instructions of a CPU and, where it multiplies in
    bfloat16, those for that; with int8 more than the last bits depend on these.
    """
    if choice.device == "cuda":
        import torch

        return f"{choice} {torch.cuda.get_device_name() if torch.cuda.is_available() else ''}"
    if choice.device != "cpu":
        return str(choice)
    if precision == "bfloat16":
        return f"{choice} {widest_instructions()} {bfloat16_instructions()}"
    return f"{choice} {widest_instructions()}"


def _device(runtime: Runtime) -> Device:
    if runtime.device == "cpu" or (runtime.device == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    devices: dict[Device, bool] = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if runtime.device == "auto":
        return next(device for device, there in devices.items() if there)
    if not devices[runtime.device]:
        raise PipelineError(
            f"runtime.device: {runtime.device}, but torch finds no such device on this machine. "
            "Set auto or cpu."
        )
    return runtime.device


def _may_have_gpu() -> bool:
    """Look for signs of a GPU, so that where there is none torch need not be loaded to say so."""
    return platform.system() != "Linux" or any(sign.exists() for sign in _GPU_SIGNS)
