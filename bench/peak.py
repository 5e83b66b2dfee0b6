"""What this machine's cores multiply at most, and what an encoder multiplies for a text.

A side's share of the peak says how much faster it could still be here, and it compares machines: a
ratio to another library does not, since both sides change with the machine.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core.cpu import bfloat16_instructions
from pipeline.core.trained import Precision

if TYPE_CHECKING:
    import openvino

SHAPES = ((512, 384), (512, 1024), (2048, 1024))
"""Rows and width of the multiplied matrices; the fastest shape is the peak."""

_CHAINED = 4  # products in one inference, so that starting one costs nothing
_SECONDS, _ROUNDS = 0.3, 3
_EIGHT_BITS = 4.0  # 8-bit numbers cover [-4, 4]: random ones are within it


def precisions() -> tuple[Precision, ...]:
    """Return float32, and bfloat16 where this CPU has instructions for it."""
    return ("float32", "bfloat16") if bfloat16_instructions() else ("float32",)


def peak_gflops(precision: Precision, threads: int) -> float:
    """Return the most that openvino multiplies with this many threads, in 1e9 operations a second.

    A multiplication and an addition are two operations. The numbers are float32, bfloat16, or 8-bit
    on both sides; each thread multiplies matrices of its own.
    """
    return max(_gflops(precision, threads, rows, width) for rows, width in SHAPES)


def _gflops(precision: Precision, threads: int, rows: int, width: int) -> float:
    import openvino

    # 8-bit products are fastest with bfloat16 between them, where the CPU has it.
    half = precision != "float32" and bfloat16_instructions() != ""
    compiled = openvino.Core().compile_model(
        _products(precision, rows, width),
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "bf16" if half else "f32",
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
        },
    )
    given = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    requests = [compiled.create_infer_request() for _ in range(threads)]

    def multiply(request: "openvino.InferRequest") -> int:
        until, done = time.perf_counter() + _SECONDS, 0
        while time.perf_counter() < until:
            request.infer({0: given}, share_inputs=True)
            done += 1
        return done

    for request in requests:
        request.infer({0: given}, share_inputs=True)
    best, operations = 0.0, _CHAINED * 2 * rows * width * width
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_ROUNDS):
            started = time.perf_counter()
            done = sum(pool.map(multiply, requests))
            best = max(best, done * operations / (time.perf_counter() - started))
    return best / 1e9


def _products(precision: Precision, rows: int, width: int) -> "openvino.Model":
    """Return a model that multiplies [rows, width] by square matrices, one after another."""
    import openvino
    from openvino import opset13 as ops

    weights = np.random.default_rng(1).standard_normal((width, width)) / np.sqrt(width)
    given = ops.parameter([rows, width], np.float32)
    found = given
    for _ in range(_CHAINED):
        right = ops.constant(weights.astype(np.float32))
        if precision == "int8":
            found = _rounded(found, _EIGHT_BITS, 256)
            right = _rounded(right, float(np.abs(weights).max()), 255)
        found = ops.matmul(found, right, False, False)
    return openvino.Model([found], [given])


def _rounded(node: "openvino.Node", most: float, levels: int) -> "openvino.Node":
    from openvino import opset13 as ops

    low, high = (ops.constant(np.float32(end)) for end in (-most, most))
    return ops.fake_quantize(node, low, high, low, high, levels)


def operations(graph: Path, config: Path) -> Callable[[NDArray[np.int64]], float]:
    """Return what counts a model's operations for texts of these lengths, in tokens.

    Linear layers cost two operations per weight and token; attention, in each layer and for each
    token, four per component of the hidden state and token of the text. Padding counts for nothing.

    Args:
        graph: the converted model (.xml), in float32.
        config: the folder with the transformer's config.json.
    """
    import openvino
    import transformers

    weights = sum(
        int(np.prod(node.input_value(1).get_shape()))
        for node in openvino.Core().read_model(graph).get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.get_output_partial_shape(0).rank.get_length() > 2  # of tokens, not of texts
        and node.input_value(1).get_node().get_type_name() == "Constant"
    )
    read = transformers.AutoConfig.from_pretrained(
        config, local_files_only=True, trust_remote_code=False
    )
    attention = 4 * read.num_hidden_layers * read.hidden_size

    def count(lengths: NDArray[np.int64]) -> float:
        tokens = lengths.astype(np.float64)
        return float(2 * weights * tokens.sum() + attention * np.square(tokens).sum())

    return count
