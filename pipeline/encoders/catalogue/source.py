"""Where a new encoder comes from, as it is written on the command line."""

import re
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import PipelineError, shorten

FORMS = (
    "Give a model folder (/models/mine), a model of the hub (organisation/model@commit) or a "
    "wheel (package==version)."
)


@dataclass(frozen=True)
class Folder:
    """A folder on this machine."""

    path: Path


@dataclass(frozen=True)
class Hub:
    """A model of the hub at a revision: a commit, a branch, or None for its default branch."""

    model: str
    revision: str | None


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index; `folder` is the model's inside it, None to look for it."""

    package: str
    version: str
    folder: str | None


Source = Folder | Hub | Wheel

_WHEEL = re.compile(
    r"(?P<package>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)=="
    r"(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)(?::(?P<folder>.+))?"
)
_HUB = re.compile(r"(?P<model>\w[\w.-]*/\w[\w.-]*)(?:@(?P<revision>[\w./-]+))?", re.ASCII)


def parse_source(text: str) -> Source:
    """Return what SOURCE means. A folder that is there wins over a model of the hub.

    Raises:
        PipelineError: it is a file, a folder that is missing, or of none of the three forms.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        return Folder(path)
    if text and path.exists():
        raise PipelineError(f"SOURCE: {shorten(text)} is a file. {FORMS}")
    if found := _WHEEL.fullmatch(text):
        return Wheel(found["package"], found["version"], found["folder"])
    if found := _HUB.fullmatch(text):
        return Hub(found["model"], found["revision"])
    if text.startswith(("/", ".", "~")):
        raise PipelineError(f"SOURCE: there is no folder {shorten(text)}. {FORMS}")
    raise PipelineError(f"SOURCE: {shorten(text)} is not a place of a model. {FORMS}")


def find_model_folders(files: list[str]) -> list[str]:
    """Return the folders among file paths that hold a model: a modules.json, or config and weights.

    A folder within a model's folder is a part of that model.
    """
    held: dict[str, set[str]] = {}
    for file in files:
        folder, _, name = file.rpartition("/")
        held.setdefault(folder, set()).add(name)
    models: list[str] = []
    for folder in sorted(held):
        names = held[folder]
        weights = any(name.endswith((".safetensors", ".bin")) for name in names)
        is_model = "modules.json" in names or ("config.json" in names and weights)
        if is_model and not any(folder.startswith(f"{outer}/") or not outer for outer in models):
            models.append(folder)
    return models
