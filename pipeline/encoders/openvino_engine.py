"""The OpenVINO engine: faster than torch on CPUs.

float32 computes what torch does. bfloat16 multiplies numbers of 8 binary digits and adds up in
float32. int8 keeps the weights in 8 bits (asymmetric, one scale and zero per output channel) and,
on CPUs with 8-bit dot products (VNNI), rounds activations to 8 bits as they come, one scale per 32
components of a token: no calibration, and no text's vector depends on another's. The last third of
the linear layers keeps float32 weights. On CPUs with AMX openvino 2026.4 rounds no activations, and
multiplies int8 in float32. Never ask it for bfloat16 there: with two streams, the vectors of small
models were wrong (cosine distance 0.6).
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cpu import allowed_cores, cpu_flags
from pipeline.core.trained import Precision
from pipeline.encoders.batching import CPU_BATCH_TOKENS, STEP, Batch

if TYPE_CHECKING:
    import openvino

_GROUP = 32  # components that share a scale when activations are rounded; more lose more


class OpenVinoEngine:
    """Runs a converted model; every thread computes a batch of its own on one core."""

    def __init__(self, folder: Path, threads: int, precision: Precision) -> None:
        """Read and compile the converted model in a folder."""
        import openvino

        self.batch_tokens = CPU_BATCH_TOKENS
        self.threads = threads
        graph = openvino.Core().read_model(folder / "model.xml")
        self.compiled = compile_graph(graph, threads, precision)
        self._own = threading.local()
        # openvino fills tables of its own at its first inference, and hangs where two threads come
        # first at once: one holds Python's lock and waits for the table, one the other way round.
        ones = np.ones((1, STEP), dtype=np.int64)
        self(Batch(np.zeros(1, dtype=np.int64), ones, ones, prompt=0))

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Compute a batch; see `Engine`."""
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        return infer(self._own.request, batch.ids, batch.mask)[: len(batch.places)].copy()


def computes_in_8_bits() -> bool:
    """Say whether this CPU multiplies 8-bit numbers fast; True where that is unknown.

    Without such instructions openvino keeps activations in float32, and int8 gains no speed.
    """
    flags = cpu_flags()
    return not flags or not flags.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def compile_graph(graph: "openvino.Model", threads: int, precision: Precision) -> Any:
    """Return a graph compiled for this many threads of the CPU."""
    import openvino

    return openvino.Core().compile_model(
        graph,
        "CPU",
        {
            # By itself, openvino takes bfloat16 on some CPUs.
            "INFERENCE_PRECISION_HINT": "bf16" if precision == "bfloat16" else "f32",
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            # Two processes that each leave cores to the other would be pinned to the same ones.
            "ENABLE_CPU_PINNING": threads >= allowed_cores(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(_GROUP),
        },
    )


def infer(request: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the vectors of a batch, which the next call with this request overwrites."""
    request.infer({0: ids, 1: mask}, share_inputs=True)
    vectors: NDArray[np.float32] = request.get_output_tensor(0).data
    return vectors
