"""Which files of a model folder decide its vectors, and their hash.

A model is loaded from a view of its folder that holds these files and no other, so no setting
inside the folder can make a file count that the hash does not cover.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import sha256_file, sha256_lines
from pipeline.encoders.model_settings import REMEDY, read_settings

SAFE = ("model.safetensors", "model.safetensors.index.json")
"""Weights as plain numbers."""

PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""Weights as a pickle, which can run code when it is read."""

_DECISIVE = (".json", ".txt", ".model", ".py", ".safetensors")
_OF_THE_WHOLE = ("modules.json", "config_sentence_transformers.json")


def folder_sha256(folder: Path, known: Mapping[str, str] | None = None) -> str:
    """Return the hash of the files that decide the vectors: equal files, equal hash, anywhere.

    The folder must be one that `check_folder` accepts. `known` holds the SHA-256 of files whose
    hash is known already, by their path in the folder.
    """
    known = known or {}
    return sha256_lines(
        f"{known.get(name) or sha256_file(file)}  {name}"
        for name, file in decisive_files(folder).items()
    )


def decisive_files(folder: Path) -> dict[str, Path]:
    """Return the files that decide the vectors by their path in the folder, sorted.

    They are the configuration, vocabulary, code and weights in the folders that modules.json
    names. README, other formats of the weights and other folders do not count.

    Raises:
        PipelineError: a name holds what cannot be printed, such as a line break.
    """
    files = {folder / name for name in _OF_THE_WHOLE if (folder / name).is_file()}
    for module in list_modules(folder):
        path = folder / module["path"]
        inside = path.glob("*") if path == folder else path.rglob("*")
        suffixes = _DECISIVE if has_any(path, SAFE) else (*_DECISIVE, ".bin")
        files.update(file for file in inside if file.suffix in suffixes and file.is_file())
    found = dict(sorted((file.relative_to(folder).as_posix(), file) for file in files))
    for name in found:  # a line of the hash is a file
        if not name.isprintable():
            raise PipelineError(f"{folder}: {shorten(name)} is not a name of a file. {REMEDY}")
    return found


def is_decisive(name: str) -> bool:
    """Say whether a file of this name, in a model with safetensors, can decide the vectors."""
    return PurePosixPath(name).suffix in _DECISIVE


@contextlib.contextmanager
def view_decisive(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that holds the decisive files of a model folder and no other."""
    with tempfile.TemporaryDirectory(prefix="model-") as scratch:
        # The same name: transformers names the module of a model's own code after it.
        name = Path(os.path.abspath(folder)).name  # noqa: PTH100 (without .., links as they are)
        view = Path(scratch) / (name or "model")
        view.mkdir()
        for name, file in decisive_files(folder).items():
            link = view / name
            link.parent.mkdir(parents=True, exist_ok=True)
            try:
                link.symlink_to(file.absolute())
            except OSError:  # Windows lets only some users make links
                shutil.copyfile(file, link)
        for module in list_modules(folder):  # some hold no file, but the library asks for them
            (view / module["path"]).mkdir(parents=True, exist_ok=True)
        yield view


def transformer_folder(folder: Path) -> Path:
    """Return the folder of the transformer inside a model folder."""
    return folder / str(list_modules(folder)[0]["path"])


def list_modules(folder: Path) -> list[dict[str, Any]]:
    """Return the modules that modules.json lists, or the one module of a plain folder.

    Raises:
        PipelineError: modules.json does not list modules with a path inside the folder and a type.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules = read_settings(path)
    if not isinstance(modules, list) or not modules:
        raise PipelineError(f"{path} lists no modules (found {shorten(modules)}). {REMEDY}")
    for module in modules:
        if not isinstance(module, dict) or not all(
            isinstance(module.get(key), str) for key in ("path", "type")
        ):
            raise PipelineError(
                f"{path}: a module must be an object with a path and a type, both texts (found "
                f"{shorten(module)}). {REMEDY}"
            )
        relative = PurePosixPath(module["path"])
        if relative.is_absolute() or ".." in relative.parts or not module["path"].isprintable():
            raise PipelineError(
                f"{path}: the path {shorten(module['path'])} leads outside the folder. {REMEDY}"
            )
    return modules


def has_any(folder: Path, names: tuple[str, ...]) -> bool:
    """Say whether a folder holds a file of one of these names."""
    return any((folder / name).is_file() for name in names)
