"""Models in OpenVINO's form: converted once, compared with torch, and kept in the cache."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, layout
from pipeline.core.cache import build_once, folder_name
from pipeline.core.cpu import bfloat16_instructions
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.log import log
from pipeline.core.params import Encoder, Entry
from pipeline.core.trained import Precision
from pipeline.encoders.batching import STEP
from pipeline.encoders.model import LoadedModel, built_in_form, load_any, traceable
from pipeline.encoders.obey_entry import check_max_tokens
from pipeline.encoders.openvino_engine import compile_graph, infer
from pipeline.encoders.padding import PROBED_TOKENS, may_pad
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    import openvino

EXACT = 1e-5
"""The largest cosine distance from torch at which a converted model counts as exact."""

NEAR = 5e-5
"""The largest mean cosine distance from torch, in float32, of a model's vectors in bfloat16."""

FAR = 1e-3
"""The largest cosine distance of a single one of these vectors."""

NEAR_SCORES, FAR_SCORES = 1e-3, 2e-2
"""The same of scores, which are single numbers: means of 384 components vary less. They are 4 % and
20 % of a logit."""

NEAR_IN_8_BITS = 2e-2
"""The largest mean cosine distance from torch of a model's vectors in int8, on made-up texts."""

_FLOAT_SHARE = 1 / 3
"""The share of an int8 model's linear layers that stays in float32, the last ones: with them in 8
bits, multilingual-e5-small's vectors are two and a half times as far from the exact ones."""

_FORM = 2  # raise it when converting changes what is made
_CHECKS = 2  # raise it when models are compared with torch in another way


@dataclass(frozen=True)
class Converted:
    """A converted model in the cache.

    `refused` says why openvino cannot run the model; it is empty where openvino can.
    """

    folder: Path
    pad_id: int
    refused: str

    def tokenizer(self) -> str:
        """Return the model's tokenizer, as JSON of the tokenizers library."""
        return (self.folder / "tokenizer.json").read_text(encoding="utf-8")


def converted_model(spec: Entry, weights: LocalWeights) -> Converted:
    """Return an encoder's model in OpenVINO's form, converted if the cache lacks it.

    Raises:
        PipelineError: the model cannot be loaded or cannot do what the entry asks.
    """
    folder = _folder(spec, weights)

    def fill(partial: Path) -> None:
        log.info("converting %s for openvino, once", weights.name)
        pads = may_pad(spec, weights)
        _convert(load_any(spec, weights), spec, partial, pads=pads)

    build_once(folder, fill)
    card = files.read_json(folder / "card.json", f"Delete {folder}.")
    entry = weights.entry
    check_max_tokens(spec.max_tokens, card["longest"], card["special"], entry)
    converted = Converted(folder, card["pad_id"], card["refused"])
    if spec.precision == "bfloat16" and not converted.refused:
        return replace(converted, refused=_bfloat16_refusal(spec, weights, converted))
    return converted


def known_refusal(spec: Entry, weights: LocalWeights) -> str:
    """Return why openvino cannot run a model; empty too where it was not converted yet."""
    folders = [_folder(spec, weights)]
    if spec.precision == "bfloat16":
        folders.append(_bfloat16_folder(spec, weights))
    for folder in folders:
        with contextlib.suppress(PipelineError, KeyError, TypeError):  # none, or it is made again
            if refused := str(files.read_json(folder / "card.json", "")["refused"]):
                return refused
    return ""


def _bfloat16_refusal(spec: Entry, weights: LocalWeights, converted: Converted) -> str:
    """Say how far a converted model is from torch in bfloat16 on this CPU, if it is too far."""
    import openvino

    folder = _bfloat16_folder(spec, weights)

    def fill(partial: Path) -> None:
        log.info("comparing %s in bfloat16 with float32, once", weights.name)
        graph = openvino.Core().read_model(converted.folder / "model.xml")
        pads = may_pad(spec, weights)
        each = _distances(graph, load_any(spec, weights), "bfloat16", pads=pads)
        found = np.concatenate(list(each))
        mean, largest = float(found.mean()), float(found.max())
        most_mean, most = _bounds(spec)
        near = mean <= most_mean and largest <= most  # not so for NaN
        refused = (
            ""
            if near
            else f"its vectors in bfloat16 differ from float32's by {mean:.2g} on average, and by "
            f"{largest:.2g} at most"
        )
        card = {"largest": f"{largest:.2g}", "mean": f"{mean:.2g}", "refused": refused}
        files.write_json(partial / "card.json", card)

    build_once(folder, fill)
    return str(files.read_json(folder / "card.json", f"Delete {folder}.")["refused"])


def _bounds(spec: Entry) -> tuple[float, float]:
    """Return how far vectors or scores in bfloat16 may be from float32: on average, and at most."""
    return (NEAR, FAR) if isinstance(spec, Encoder) else (NEAR_SCORES, FAR_SCORES)


def _bfloat16_folder(spec: Entry, weights: LocalWeights) -> Path:
    """Return where the comparison is kept; the graph is that of float32."""
    identity = {
        **version_of(spec.precision),
        **built_in_form(weights),
        "bounds": [*_bounds(spec)],
        "checks": _CHECKS,
        "instructions": bfloat16_instructions(),
        "pooling": spec.output,
        "weights": weights.sha256,
    }
    return layout.cache() / "engines" / folder_name("bfloat16", identity)


def version_of(precision: Precision) -> dict[str, str | int]:
    """Return what decides how a model is converted and computed, beside the model itself."""
    # Other versions may compute otherwise, run more models, or cut texts into other tokens.
    libraries = ("openvino", "tokenizers", "transformers")
    quantiser = ("nncf",) if precision == "int8" else ()
    return {"converted": _FORM, **{name: version(name) for name in (*libraries, *quantiser)}}


def _folder(spec: Entry, weights: LocalWeights) -> Path:
    identity = {
        **version_of(spec.precision),
        **built_in_form(weights),
        "checks": _CHECKS,
        "weights": weights.sha256,
        "pooling": spec.output,
        "int8": spec.precision == "int8",
        **({"bound": NEAR_IN_8_BITS} if spec.precision == "int8" else {}),
    }
    return layout.cache() / "engines" / folder_name("openvino", identity)


def _convert(model: LoadedModel, spec: Entry, folder: Path, *, pads: bool) -> None:
    import openvino

    try:
        graph = _graph(model)
        refused = _differs_from_torch(graph, model, pads=pads)
        if not refused and spec.precision == "int8":
            graph = _in_8_bits(graph)
            refused = _far_in_8_bits(graph, model, pads=pads)
    except (MemoryError, OSError, ImportError):
        raise  # of the machine, not of the model: what is kept would be wrong tomorrow
    except Exception as err:  # noqa: BLE001 (anything that the converter meets in a model's code)
        refused = f"it cannot be converted ({one_line(err)[:200]})"
    if not refused:
        try:
            openvino.save_model(graph, folder / "model.xml", compress_to_fp16=False)
        except RuntimeError as err:  # it does not say which system error it met
            raise PipelineError(
                f"{folder.parent}: openvino cannot write the converted model there "
                f"({one_line(err)}). Check that the disk has room, or move the cache to another "
                "disk (PIPELINE_CACHE)."
            ) from err
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

    ids, mask = (torch.from_numpy(array) for array in _made_up(model, 2, STEP))
    free = openvino.PartialShape([-1, -1])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing warns of every branch; the result is checked
        return openvino.convert_model(
            traceable(model), example_input=(ids, mask), input=[free, free]
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


def _differs_from_torch(graph: "openvino.Model", model: LoadedModel, *, pads: bool) -> str:
    """Say how far a float32 graph is from torch, if it is too far; see `_distances`."""
    for distances in _distances(graph, model, "float32", pads=pads):
        distance = float(distances.max())
        if not distance <= EXACT:
            return f"its vectors differ from torch's by {distance:.2g}"
    return ""


def _far_in_8_bits(graph: "openvino.Model", model: LoadedModel, *, pads: bool) -> str:
    """Say how far an int8 graph is from torch in float32, if it is too far."""
    mean = float(np.concatenate(list(_distances(graph, model, "int8", pads=pads))).mean())
    return (
        "" if mean <= NEAR_IN_8_BITS else f"its vectors in int8 differ from torch's by {mean:.2g}"
    )


def _distances(
    graph: "openvino.Model", model: LoadedModel, precision: Precision, *, pads: bool
) -> Iterator[NDArray[np.float64]]:
    """Yield how far texts of other shapes than the traced one are from torch; shape [texts].

    With `pads`, the batches of `STEP` rows hold a text of every length that is padded to theirs, so
    the shortest has the most padding that a real batch has.
    """
    request = compile_graph(graph, 1, precision).create_infer_request()
    for rows, length in ((1, 5), (3, PROBED_TOKENS), (STEP, STEP), (STEP, 6 * STEP)):
        ids, mask = _made_up(model, rows, min(length, model.longest or length))
        if not pads:
            mask[:] = 1
        # A graph knows of no prompt: a model that leaves it out when pooling shows here.
        expected = model.pool(ids, mask, prompt=2)
        yield model.distance(infer(request, ids, mask), expected)


def _made_up(
    model: LoadedModel, rows: int, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return token ids and a mask of a shape: every row one token longer than the one before."""
    ids = np.random.default_rng(0).integers(0, model.vocabulary, (rows, length))
    mask = np.tri(rows, length, length - rows, dtype=np.int64)
    mask[:, 0] = 1
    return ids, mask
