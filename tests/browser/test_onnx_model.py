"""Weights in 8 bits: the graph computes what it did, as exactly as 8 bits can."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from pipeline.browser.onnx_model import export_model, quantise, to_8_bits
from tests.helpers.tiny_models import build_model, entry, weights_of


def run(model: Any, ids: Any) -> Any:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {"ids": ids})[0]


def a_model(rng: np.random.Generator) -> Any:
    """A table, a matrix, the same matrix again, and a bias: ids [n] to [n, 64]."""
    table = rng.standard_normal((300, 64)) * rng.uniform(0.01, 10, (300, 1))
    matrix = rng.standard_normal((64, 64)) * rng.uniform(0.01, 10, (1, 64))
    weights = {"table": table, "matrix": matrix, "bias": rng.standard_normal(64)}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["a"]),
        helper.make_node("MatMul", ["a", "matrix"], ["b"]),
        helper.make_node("Add", ["b", "bias"], ["c"]),
        helper.make_node("MatMul", ["c", "matrix"], ["d"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
        [helper.make_tensor_value_info("d", TensorProto.FLOAT, ["n", 64])],
        [numpy_helper.from_array(each.astype(np.float32), name) for name, each in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_graph_with_weights_in_8_bits_computes_nearly_the_same() -> None:
    model = a_model(np.random.default_rng(0))
    ids = np.arange(300)
    before, size = run(model, ids), len(model.SerializeToString())
    quantise(model)
    onnx.checker.check_model(model, full_check=True)
    after = run(model, ids)
    cosines = (
        (before * after).sum(1) / np.linalg.norm(before, axis=1) / np.linalg.norm(after, axis=1)
    )
    assert cosines.min() > 0.9995
    assert len(model.SerializeToString()) < size * 0.3
    kept = {each.name for each in model.graph.initializer}
    assert kept == {"table.codes", "table.scales", "matrix.codes", "matrix.scales", "bias"}


def test_a_scale_along_either_axis_leaves_half_a_step_of_error_at_most() -> None:
    values = np.random.default_rng(1).standard_normal((7, 5)).astype(np.float32)
    values[:, 2] = 0
    for axis in (0, 1):
        codes, scales = to_8_bits(values, axis)
        assert scales.shape == ((1, 5) if axis == 0 else (7, 1))
        assert codes.dtype == np.int8
        assert (np.abs(codes * scales - values) <= scales * 0.5001).all()


@pytest.mark.slow
def test_the_same_encoder_is_exported_as_the_same_bytes(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    exported = []
    for path in (tmp_path / "one.onnx", tmp_path / "two.onnx"):
        tokenizer = export_model(entry(folder), weights_of(folder), path)
        exported.append((tokenizer, path.read_bytes()))
    assert exported[0] == exported[1]
