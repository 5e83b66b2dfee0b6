"""What a model folder must hold before anything of it is loaded, and what identifies it."""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, sha256_file, sha256_lines
from pipeline.core.params import Encoder, FolderWeights, HubWeights

_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json")
_DECISIVE = (".json", ".txt", ".model", ".py", ".safetensors")


def check_folder(folder: Path, spec: Encoder, where: str) -> None:
    """Check that a folder holds a model that `spec` allows to be loaded.

    Args:
        folder: a sentence-transformers folder, or a plain transformers one.
        spec: what the entry allows: pickles, remote code, and the pooling it asks for.
        where: the key of the weights in params.yaml, for messages.

    Raises:
        PipelineError: the folder is missing, is no model, lacks its weights or tokenizer, holds
            them as a pickle only, or needs code that the entry does not allow.
    """
    weights = spec.weights
    if not folder.is_dir():
        raise PipelineError(f"{where}: the folder {folder} is missing")
    if not (folder / "modules.json").is_file():
        if not (folder / "config.json").is_file():
            raise PipelineError(
                f"{where}: {folder} is not a model folder: it has neither modules.json nor "
                "config.json; give the folder that holds them"
            )
        if spec.pooling == "model":
            raise PipelineError(
                f"{where}: {folder} has no modules.json, so it names no pooling of its own; set "
                f"{where.removesuffix('weights')}pooling, such as mean"
            )
    modules = _modules(folder)
    allows_code = isinstance(weights, HubWeights) and weights.remote_code
    for module in modules:
        if not module["type"].startswith("sentence_transformers.") and not allows_code:
            raise PipelineError(
                f"{where}: {folder}/modules.json asks for the class {module['type']}, code of the "
                "model's own; only hub weights may run it, with remote_code: true"
            )
    if not modules[0]["type"].endswith(".Transformer") and not allows_code:
        raise PipelineError(
            f"{where}: the first module of {folder} is {modules[0]['type']}; only transformer "
            "models can be used"
        )
    transformer = folder / modules[0]["path"]
    if not _has_any(transformer, _SAFE + _PICKLED):
        raise PipelineError(f"{where}: {transformer} has no weights: {_SAFE[0]} is missing")
    allows_pickle = isinstance(weights, HubWeights | FolderWeights) and weights.allow_pickle
    for module in modules:
        path = folder / module["path"]
        if not allows_pickle and _has_any(path, _PICKLED) and not _has_any(path, _SAFE):
            raise PipelineError(
                f"{where}.allow_pickle: {path} holds its weights as a pickle only "
                f"({_PICKLED[0]}), which can run code when read; use a copy with {_SAFE[0]}, or "
                "set allow_pickle: true if you trust it"
            )
    if not _has_any(transformer, _VOCABULARIES) and not list(transformer.glob("*.model")):
        raise PipelineError(
            f"{where}: {transformer} has no tokenizer (none of {', '.join(_VOCABULARIES)}, "
            "*.model); copy it there from where the model came from"
        )


def folder_sha256(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Return the hash of the files that decide the vectors: equal files, equal hash, anywhere.

    They are the configuration, vocabulary, code and weights in the folders that modules.json
    names; README, other formats of the weights and other folders have no say.
    The folder must be one that `check_folder` accepts. `known` holds the SHA-256 of files whose
    hash is known already, by their path in the folder.
    """
    known = known or {}
    files: set[Path] = set()
    for module in _modules(folder):
        path = folder / module["path"]
        inside = path.glob("*") if path == folder else path.rglob("*")
        suffixes = _DECISIVE if _has_any(path, _SAFE) else (*_DECISIVE, ".bin")
        files.update(file for file in inside if file.suffix in suffixes and file.is_file())
    named = sorted((file.relative_to(folder).as_posix(), file) for file in files)
    return sha256_lines(f"{known.get(name) or sha256_file(file)}  {name}" for name, file in named)


def transformer_folder(folder: Path) -> Path:
    """Return where in a model folder the transformer itself lies."""
    return folder / str(_modules(folder)[0]["path"])


def _modules(folder: Path) -> list[dict[str, Any]]:
    """Return the modules that modules.json lists, or the one that a plain folder is."""
    path = folder / "modules.json"
    if not path.is_file():
        return [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    remedy = "Restore the original file of the model."
    modules = read_json(path, remedy)
    if not isinstance(modules, list) or not modules:
        raise PipelineError(f"{path} lists no modules. {remedy}")
    for module in modules:
        if not isinstance(module, dict) or not {"path", "type"} <= set(module):
            raise PipelineError(f"{path}: {module!r} is not a module with path and type. {remedy}")
        relative = PurePosixPath(module["path"])
        if relative.is_absolute() or ".." in relative.parts:
            raise PipelineError(f"{path}: the path {module['path']!r} leads outside. {remedy}")
    return modules


def _has_any(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_file() for name in names)
