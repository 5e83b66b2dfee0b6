"""What a model folder must hold before anything of it is loaded."""

from pathlib import Path
from typing import Any

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Encoder, Entry, FolderWeights, HubWeights, Reranker
from pipeline.core.tables import LABELS
from pipeline.encoders.model_folder import (
    PICKLED,
    SAFE,
    decisive_files,
    has_any,
    list_modules,
)
from pipeline.encoders.model_settings import check_settings, read_settings
from pipeline.encoders.own_code import is_jina_bert

_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
_MODULES = (
    "CNN", "Dense", "Dropout", "LSTM", "LayerNorm", "Normalize", "Pooling", "Transformer",
    "WeightedLayerPooling",
)  # fmt: skip
"""Classes of sentence-transformers that a model may be made of."""

_HEAD = "ForSequenceClassification"
"""What the classes of cross-encoders end with."""

_WITH_WEIGHTS = ("CNN", "Dense", "LSTM", "LayerNorm", "Transformer", "WeightedLayerPooling")


def check_folder(folder: Path, spec: Entry, where: str) -> None:
    """Check that a folder holds a model that `spec` allows to be loaded.

    Args:
        folder: a sentence-transformers folder, or a plain transformers one.
        spec: what the entry allows: pickles, remote code, and the pooling it asks for.
        where: the key of the weights in params.yaml, for messages.

    Raises:
        PipelineError: the folder is missing, is not a model, lacks its settings, weights or
            tokenizer, holds weights as a pickle only, needs code that the entry does not allow, or
            has a setting that is impossible or reaches outside the folder.
    """
    if not folder.is_dir():
        raise PipelineError(f"{where}: the folder {folder} is missing. Copy the model there.")
    if not (folder / "modules.json").is_file():
        _check_plain(folder, spec, where)
    modules = list_modules(folder)
    runs_code = isinstance(spec.weights, HubWeights) and spec.weights.remote_code
    _check_classes(modules, folder, where, runs_code=runs_code)
    transformer = folder / modules[0]["path"]
    if not (transformer / "config.json").is_file():
        raise PipelineError(f"{where}: {transformer} has no config.json. {_remedy(spec)}")
    for module in modules:
        path, kind = folder / module["path"], module["type"].rsplit(".", 1)[-1]
        if kind in _WITH_WEIGHTS and not has_any(path, SAFE + PICKLED):
            raise PipelineError(
                f"{where}: {path} has no weights: {SAFE[0]} is missing. {_remedy(spec)}"
            )
    if not (isinstance(spec.weights, HubWeights | FolderWeights) and spec.weights.allow_pickle):
        _refuse_pickles(modules, folder, spec, where)
    if not has_any(transformer, _VOCABULARIES) and not list(transformer.glob("*.model")):
        raise PipelineError(
            f"{where}: {transformer} has no tokenizer (none of {', '.join(_VOCABULARIES)}, "
            f"*.model). {_remedy(spec)}"
        )
    check_settings(decisive_files(folder), runs_code=runs_code)
    if isinstance(spec, Reranker):
        _check_head(transformer, spec, where)
    if runs_code:
        refuse_needless_code(transformer, where)


def refuse_needless_code(transformer: Path, where: str) -> None:
    """Refuse to run a model's own code where its class is built in.

    Args:
        transformer: the folder of its config.json, if it has one.
        where: the key of the weights in params.yaml, for the message.

    Raises:
        PipelineError: the class is built in.
    """
    config = transformer / "config.json"
    if config.is_file() and is_jina_bert(read_settings(config)):
        raise PipelineError(
            f"{where}.remote_code: true, but the model is a JinaBERT, which is built in. Remove "
            "remote_code and code_revision."
        )


def _check_plain(folder: Path, spec: Entry, where: str) -> None:
    if not (folder / "config.json").is_file():
        raise PipelineError(
            f"{where}: {folder} is not a model folder: it has neither modules.json nor "
            "config.json. Give the folder that holds them."
        )
    if isinstance(spec, Encoder) and spec.pooling == "model":
        raise PipelineError(
            f"{where}: {folder} has no modules.json, so it names no pooling of its own. Set "
            f"{where.removesuffix('weights')}pooling, such as to mean."
        )


def _check_head(transformer: Path, spec: Reranker, where: str) -> None:
    """Check that a model ends in a head that scores pairs, with as many labels as `spec` says."""
    config = read_settings(transformer / "config.json")
    named = config.get("architectures") if isinstance(config, dict) else None
    classes = named if isinstance(named, list) else []
    if not any(str(each).endswith(_HEAD) for each in classes):
        raise PipelineError(
            f"{where}: {transformer} has no head that scores a pair: its config.json names "
            f"{shorten(', '.join(map(str, classes)) or 'no class')}, expected a class that ends "
            f"with {_HEAD}. Use a cross-encoder; an encoder of texts belongs under encoders."
        )
    labels = config.get("id2label")
    count = len(labels) if isinstance(labels, dict) else config.get("num_labels", 2)
    if count != spec.labels:
        raise PipelineError(
            f"{where.removesuffix('weights')}labels: {spec.labels}, but the model has "
            f"{shorten(count)} (config.json of {transformer}). Set the number that it has: 1 or 4."
        )
    order = [labels.get(str(at)) for at in range(count)] if isinstance(labels, dict) else []
    unnamed = [f"LABEL_{at}" for at in range(count)]
    if count == len(LABELS) and order not in ([], unnamed, [*LABELS]):
        raise PipelineError(
            f"{where}: the labels of the model must be {', '.join(LABELS)}, in this order, as the "
            f"gains are (found {shorten(', '.join(map(str, order)))} in config.json of "
            f"{transformer}). Name them so if they mean that, or use another model."
        )


def _check_classes(
    modules: list[dict[str, Any]], folder: Path, where: str, *, runs_code: bool
) -> None:
    """Check that modules.json asks for classes that may run, none of another repository."""
    for module in modules:
        kind = module["type"]
        if runs_code and "--" not in kind:
            continue
        if not kind.startswith("sentence_transformers."):
            raise PipelineError(
                f"{where}: {folder}/modules.json asks for the class {shorten(kind)}, code of the "
                "model's own. Only hub weights may run it, with remote_code: true."
            )
        if kind.rsplit(".", 1)[-1] not in _MODULES:
            raise PipelineError(
                f"{where}: {folder}/modules.json asks for the class {shorten(kind)}, expected one "
                f"of {', '.join(_MODULES)}. Use another model."
            )
    if not runs_code and not modules[0]["type"].endswith(".Transformer"):
        raise PipelineError(
            f"{where}: the first module of {folder} must be a transformer (found "
            f"{shorten(modules[0]['type'])}). Use another model."
        )


def _remedy(spec: Entry) -> str:
    if isinstance(spec.weights, HubWeights):
        return "Pin a commit that has it, or use another model."
    return "Copy it there from the original model."


def _refuse_pickles(modules: list[dict[str, Any]], folder: Path, spec: Entry, where: str) -> None:
    safe = "Pin a commit" if isinstance(spec.weights, HubWeights) else "Use a copy"
    for module in modules:
        path = folder / module["path"]
        if has_any(path, PICKLED) and not has_any(path, SAFE):
            raise PipelineError(
                f"{where}.allow_pickle: {path} holds its weights as a pickle only "
                f"({PICKLED[0]}), which can run code when read. {safe} with {SAFE[0]}, or "
                "set allow_pickle: true if you trust it."
            )
