"""The OpenVINO engine: a model converted once, kept in the cache, and checked against torch.

float32 computes what torch does, faster on CPUs. int8 keeps the weights in 8 bits (asymmetric, one
scale and zero an output channel) and, on CPUs with 8-bit dot products (VNNI), rounds activations to
8 bits as they come, one scale for 32 components of a token: no calibration, and no text's vector
depends on another's. The last third of the linear layers stays in float32.
"""

import contextlib
import logging
import os
import threading
import warnings
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, layout
from pipeline.core.cpu import allowed_cores, cpu_flags
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Encoder, Precision
from pipeline.encoders.batching import CPU_BATCH_TOKENS, STEP, Batch
from pipeline.encoders.contract import check_max_tokens
from pipeline.encoders.model import LoadedModel, load_model
from pipeline.encoders.sealed import build_once, folder_name
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    import openvino

log = logging.getLogger("pipeline")

EXACT = 1e-5
"""The largest cosine distance from torch at which a converted model counts as exact."""

_GROUP = 32  # components that share a scale when activations are rounded; more lose more
_FLOAT_SHARE = 1 / 3
"""The share of an int8 model's linear layers that stays in float32, the last ones: with them in 8
bits, multilingual-e5-small's vectors are two and a half times as far from the exact ones."""

_CHECKED_TOKENS = 256  # of the longest texts that a converted model is compared on

_FORM = 2  # raise it when converting changes what is made


@dataclass(frozen=True)
class Converted:
    """A converted model in the cache.

    `refused` says why the model cannot be run by openvino; it is empty where it can.
    """

    folder: Path
    pad_id: int
    refused: str

    def tokenizer(self) -> str:
        """Return the model's tokenizer, as JSON of the tokenizers library."""
        return (self.folder / "tokenizer.json").read_text(encoding="utf-8")


def converted_model(spec: Encoder, weights: LocalWeights) -> Converted:
    """Return an encoder's model in OpenVINO's form; converted where the cache has it not.

    Raises:
        PipelineError: the model cannot be loaded or cannot do what the entry asks.
    """
    folder = _folder(spec, weights)

    def fill(partial: Path) -> None:
        log.info("converting %s for openvino, once", weights.name)
        _convert(load_model(spec, weights), spec, partial)

    build_once(folder, fill)
    card = files.read_json(folder / "card.json", f"Delete {folder}.")
    entry = f"encoders.{weights.name}"
    check_max_tokens(spec.max_tokens, card["longest"], card["special"], entry)
    return Converted(folder, card["pad_id"], card["refused"])


def known_refusal(spec: Encoder, weights: LocalWeights) -> str:
    """Return why openvino cannot run a model; empty too where it was not converted yet."""
    with contextlib.suppress(PipelineError, KeyError, TypeError):  # none, or it is made again
        return str(files.read_json(_folder(spec, weights) / "card.json", "")["refused"])
    return ""


def _folder(spec: Encoder, weights: LocalWeights) -> Path:
    identity = {
        **version_of(spec.precision),
        "weights": weights.sha256,
        "pooling": spec.pooling,
        "int8": spec.precision == "int8",
    }
    return layout.cache() / "engines" / folder_name("openvino", identity)


def version_of(precision: Precision) -> dict[str, str | int]:
    """Return what decides how a model is converted and computed, beside the model itself."""
    # Other versions may compute otherwise, or run more models.
    libraries = ("openvino", "nncf") if precision == "int8" else ("openvino",)
    return {"converted": _FORM, **{name: version(name) for name in libraries}}


class OpenVinoEngine:
    """Runs a converted model; every thread computes a batch of its own on one core."""

    def __init__(self, converted: Converted, threads: int) -> None:
        """Read and compile a converted model."""
        import openvino

        self.batch_tokens = CPU_BATCH_TOKENS
        self.threads = threads
        graph = openvino.Core().read_model(converted.folder / "model.xml")
        self.compiled = _compile(graph, threads)
        self._own = threading.local()
        # openvino fills tables of its own at its first inference, and hangs where two threads come
        # first at once: one holds Python's lock and waits for the table, one the other way round.
        ones = np.ones((1, STEP), dtype=np.int64)
        self(Batch(np.zeros(1, dtype=np.int64), ones, ones, prompt=0))

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Compute a batch; see `Engine`."""
        if not hasattr(self._own, "request"):
            self._own.request = self.compiled.create_infer_request()
        return _infer(self._own.request, batch.ids, batch.mask)[: len(batch.places)].copy()


def computes_in_8_bits() -> bool:
    """Tell whether this CPU multiplies 8-bit numbers fast; True where it cannot be told.

    Without such instructions openvino keeps activations in float32, and int8 gains no speed.
    """
    flags = cpu_flags()
    return not flags or not flags.isdisjoint({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"})


def _convert(model: LoadedModel, spec: Encoder, folder: Path) -> None:
    import openvino

    try:
        graph = _graph(model)
        refused = _differs_from_torch(graph, model)
        if not refused and spec.precision == "int8":
            graph = _in_8_bits(graph)
    except (MemoryError, OSError, ImportError):
        raise  # of the machine, not of the model: what is kept would be wrong tomorrow
    except Exception as err:  # noqa: BLE001 (whatever the converter meets in a model's code)
        refused = f"it cannot be converted ({one_line(err)[:200]})"
    if not refused:
        openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    (folder / "tokenizer.json").write_text(model.tokenizer, encoding="utf-8")
    card = {
        "longest": model.longest,
        "pad_id": model.pad_id,
        "refused": refused,
        "special": model.special,
    }
    files.write_json(folder / "card.json", card)


def _graph(model: LoadedModel) -> "openvino.Model":
    """Trace a model: token ids and mask, int64 [rows, length], to pooled vectors."""
    import openvino
    import torch

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.modules_ = model.modules

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            features = model.features(ids, mask, prompt=0)
            for module in self.modules_:
                features = module(features)
            pooled: torch.Tensor = features["sentence_embedding"]
            return pooled

    ids, mask = (torch.from_numpy(array) for array in _made_up(model, 2, STEP))
    free = openvino.PartialShape([-1, -1])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every branch; the result is checked
        return openvino.convert_model(
            Pooled().eval(), example_input=(ids, mask), input=[free, free]
        )


def _in_8_bits(graph: "openvino.Model") -> "openvino.Model":
    import nncf

    logging.getLogger("nncf").setLevel(logging.ERROR)
    linear = [
        node.get_friendly_name()
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "MatMul"
        and node.input_value(1).get_node().get_type_name() == "Constant"
    ]
    kept = linear[len(linear) - round(len(linear) * _FLOAT_SHARE) :]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
        return nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT8_ASYM,
            ignored_scope=nncf.IgnoredScope(names=kept),
        )


def _differs_from_torch(graph: "openvino.Model", model: LoadedModel) -> str:
    """Say how far a float32 graph is from torch on texts of other shapes than the traced one."""
    import torch

    request = _compile(graph, 1).create_infer_request()
    for rows, length in ((1, 5), (3, _CHECKED_TOKENS), (5, STEP)):
        ids, mask = _made_up(model, rows, min(length, model.longest or length))
        with torch.inference_mode():
            # A graph knows of no prompt: a model that leaves it out when pooling shows here.
            features = model.features(torch.from_numpy(ids), torch.from_numpy(mask), prompt=2)
            expected = model.modules(features)["sentence_embedding"].numpy()
        distance = float(_distance(_infer(request, ids, mask), expected).max())
        if not distance <= EXACT:
            return f"its vectors differ from torch's by {distance:.2g}"
    return ""


def _made_up(
    model: LoadedModel, rows: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return token ids and a mask of a shape: every row one token longer than the one before."""
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (rows, length))
    mask = np.tri(rows, length, length - rows, dtype=np.int64)
    mask[:, 0] = 1
    return ids, mask


def _distance(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the cosine distance of rows, and more where their lengths differ; NaN for NaN."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    squares = np.square(a - b).sum(axis=1)
    distance: NDArray[np.float64] = squares / np.maximum(2 * lengths, np.finfo(float).tiny)
    return distance


def _compile(graph: "openvino.Model", threads: int) -> Any:
    import openvino

    return openvino.Core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": "f32",  # never bfloat16, which some CPUs would take
            "NUM_STREAMS": str(threads),
            "INFERENCE_NUM_THREADS": str(threads),
            # Two processes that each leave cores to the other would be pinned to the same ones.
            "ENABLE_CPU_PINNING": threads >= allowed_cores(),
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(_GROUP),
        },
    )


def _infer(request: Any, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    request.infer({0: ids, 1: mask}, share_inputs=True)
    vectors: NDArray[np.float32] = request.get_output_tensor(0).data
    return vectors
