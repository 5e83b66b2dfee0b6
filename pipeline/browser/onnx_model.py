"""An encoder as ONNX with 8-bit weights: exported by torch, then compared with our vectors.

Each weight matrix becomes int8 with one scale per output channel, each embedding table int8 with
one scale per row. Activations stay in float32, so a browser computes what Python computes from the
same file, and the vectors stay ten times as near to ours as with activations in 8 bits.
"""

import logging
import multiprocessing
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Encoder
from pipeline.encoders.tokens import Tokens
from pipeline.encoders.weights import LocalWeights

OPSET = 17
"""The operators' version; browsers of 2023 and later run it."""

_LEAST_VALUES = 4_096
"""Smaller tables stay in float32: they take no room."""


def export_model(spec: Encoder, weights: LocalWeights, path: Path) -> str:
    """Write an encoder as ONNX with 8-bit weights, and return its tokenizer's JSON.

    The graph takes `ids` and `mask`, int64 [rows, length], and gives `vectors`, float32
    [rows, dimension], pooled, cut and normalised as the entry says. A process of its own exports:
    tracing changes torch's state.

    Raises:
        PipelineError: the model cannot be loaded or cannot be exported.
    """
    spawn = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(1, mp_context=spawn) as process:
            return process.submit(_export, spec, weights, path).result()
    except BrokenProcessPool as err:
        raise PipelineError(
            f"{weights.entry}: the process that exports the model was killed. Check that "
            "there is enough memory, and run it again."
        ) from err


def _export(spec: Encoder, weights: LocalWeights, path: Path) -> str:
    import onnx
    import torch

    from pipeline.encoders.model import load_model, traceable

    model = load_model(spec, weights)

    class Encode(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.pooled = traceable(model)

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            vectors: torch.Tensor = self.pooled(ids, mask)
            if spec.dimension != "model":
                vectors = vectors[:, : spec.dimension]
            if spec.normalize or spec.similarity == "cosine":
                vectors = torch.nn.functional.normalize(vectors, dim=1)
            return vectors

    ids = torch.arange(2 * 16).reshape(2, 16) % model.vocabulary
    axes = {0: "rows", 1: "length"}
    logging.disable(logging.WARNING)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of every branch; the result is checked
            torch.onnx.export(
                Encode().eval(),
                (ids, torch.ones_like(ids)),
                str(path),
                dynamo=False,  # the other exporter needs two more packages
                opset_version=OPSET,
                input_names=["ids", "mask"],
                output_names=["vectors"],
                dynamic_axes={"ids": axes, "mask": axes, "vectors": {0: "rows"}},
            )
        exported = onnx.load(path)
        quantise(exported)
        onnx.save(exported, path)
    except (MemoryError, OSError, ImportError):
        raise
    except Exception as err:  # anything that the exporter meets in a model's code
        raise PipelineError(
            f"{weights.entry}: the model cannot be exported as ONNX "
            f"({one_line(err)[:200]}). Use another encoder for this locale."
        ) from err
    return model.tokenizer


def quantise(model: Any) -> None:
    """Store the weights of an `onnx.ModelProto` in 8 bits, in place.

    A matrix [in, out] of a MatMul becomes int8 with a scale per column. A table [rows, dimension]
    of a Gather becomes int8 with a scale per row.
    """
    from onnx import helper, numpy_helper

    graph = model.graph
    weights = {each.name: each for each in graph.initializer}
    reshaped: list[Any] = []
    done: set[str] = set()
    for node in graph.node:
        place = {"MatMul": 1, "Gather": 0}.get(node.op_type)
        name = "" if place is None else node.input[place]
        values: Any = numpy_helper.to_array(weights[name]) if name in weights else np.empty(0)
        if values.ndim != 2 or values.dtype != np.float32 or values.size < _LEAST_VALUES:
            reshaped.append(node)
            continue
        codes, scales = f"{name}.codes", f"{name}.scales"
        if name not in done:
            done.add(name)
            held, scale = to_8_bits(values, axis=0 if place else 1)
            graph.initializer.append(numpy_helper.from_array(held, codes))
            shape = -1 if place else (-1, 1)
            graph.initializer.append(numpy_helper.from_array(scale.reshape(shape), scales))
            if place:
                wide = [codes, scales]
                reshaped.append(helper.make_node("DequantizeLinear", wide, [f"{name}.f"], axis=1))
        if place:
            node.input[1] = f"{name}.f"
            reshaped.append(node)
        else:
            reshaped += _gather(node, codes, scales)
    used = {name for node in reshaped for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(reshaped)


def _gather(node: Any, codes: str, scales: str) -> list[Any]:
    """Return the nodes that look up rows of a table in 8 bits, with a scale per row."""
    from onnx import TensorProto, helper

    (out,) = node.output
    index = node.input[1]
    return [
        helper.make_node("Gather", [codes, index], [f"{out}.codes"], axis=0),
        helper.make_node("Gather", [scales, index], [f"{out}.scales"], axis=0),
        helper.make_node("Cast", [f"{out}.codes"], [f"{out}.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", [f"{out}.float", f"{out}.scales"], [out]),
    ]


def to_8_bits(values: Matrix, axis: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return values as int8 and the scales to multiply them by; one scale along `axis`.

    Args:
        values: float32, [rows, columns].
        axis: the axis that shares a scale: 1 gives a scale per row, 0 one per column.

    Returns:
        int8 from -127 to 127, of the shape of `values`; float32, that shape with 1 at `axis`.
        The error of a value is at most half its scale.
    """
    largest = np.abs(values).max(axis=axis, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(127), 1).astype(np.float32)
    return np.rint(values / scales).astype(np.int8), scales


class OnnxEncoder:
    """An exported model in onnxruntime, one text at a time, as the browser runs it."""

    def __init__(self, path: Path, threads: int) -> None:
        """Load a model on so many threads."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Else it fuses the 8-bit weights with the products, and rounds the activations to 8 bits.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, texts: Sequence[Tokens]) -> NDArray[np.float32]:
        """Return the vectors of texts, float32 [texts, dimension]."""
        rows = []
        for text in texts:
            ids = text.ids[None].astype(np.int64)
            rows.append(self._session.run(None, {"ids": ids, "mask": np.ones_like(ids)})[0][0])
        return np.stack(rows)
