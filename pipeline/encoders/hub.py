"""Models of the Hugging Face hub, at a pinned commit: looked at first, then downloaded."""

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from pipeline.core.cache import check_space
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.log import log
from pipeline.core.params import Entry, HubWeights
from pipeline.core.progress import Progress
from pipeline.encoders.hub_cache import cached_list, find_cached, has_digest
from pipeline.encoders.hub_files import RemoteFile, download, list_files
from pipeline.encoders.hub_requests import Repository, endpoint
from pipeline.encoders.model_check import check_folder, refuse_needless_code
from pipeline.encoders.model_folder import decisive_files, list_modules

_MB = 1_000_000
_PART = ".part"  # ends the name of a file that is not whole
_FOREIGN = re.compile(r'"([\w.-]+/[\w.-]+)--')


def fetch_model(spec: Entry, where: str, downloads: Path, target: Path) -> None:
    """Write a model of the hub to the existing folder `target`.

    Its file list and settings are read first, so a model that the entry does not allow to be
    loaded is refused before its weights are downloaded. Of its files those are fetched that
    decide the vectors.

    Args:
        spec: the entry, whose weights are of the hub.
        where: the key of the weights in params.yaml, for messages.
        downloads: the folder for files that are downloaded, on the disk of `target`. After a kill
            or a fault, the next call continues with what is there.
        target: an empty folder.

    Raises:
        PipelineError: the hub does not give the model, its files are not those of the list, the
            disk has no room, or the model is not one that `check_folder` accepts.
    """
    assert isinstance(spec.weights, HubWeights)
    weights = spec.weights
    repository = _repository(weights.model, weights.revision, where)
    with _disk_errors(repository, downloads):
        listed = _list(repository)
        needed = _look(repository, listed, spec, downloads / "model")
        _fetch(repository, needed, downloads / "model", target)
        if weights.remote_code:
            _join_code(weights, where, downloads, target)


def _repository(model: str, revision: str | None, where: str) -> Repository:
    if revision is None:
        raise PipelineError(
            f"{where}: the commit of {model} is not pinned. Give the 40 digits that `git ls-remote "
            f"https://huggingface.co/{model} HEAD` prints."
        )
    return Repository(model, revision, where)


def _list(repository: Repository) -> list[RemoteFile]:
    """Return a model's files, as the user's own cache knows them or else the hub."""
    found = cached_list(repository.model, repository.revision)
    return found or list_files(repository.model, repository.revision, repository.where)


def _look(
    repository: Repository, listed: Sequence[RemoteFile], spec: Entry, downloads: Path
) -> list[RemoteFile]:
    """Return the files that decide the vectors, once the model's settings are checked.

    A skeleton of the model, its settings and an empty file for everything else, is checked as the
    model's folder will be.
    """
    assert isinstance(spec.weights, HubWeights)
    with tempfile.TemporaryDirectory(prefix="skeleton-") as scratch:
        skeleton = Path(scratch) / "model"
        skeleton.mkdir()
        with _named(skeleton, repository):
            top = [file for file in listed if file.name == "modules.json"]
            _fetch(repository, top, downloads, skeleton)
            folders = {PurePosixPath(module["path"]) for module in list_modules(skeleton)}
            near = [file for file in listed if _is_near(PurePosixPath(file.name), folders)]
            settings = [file for file in near if _is_setting(file.name) and file not in top]
            _fetch(repository, settings, downloads, skeleton)
            for path in (skeleton / file.name for file in near):
                path.parent.mkdir(parents=True, exist_ok=True)
                if not path.exists():  # a setting may be a link, whose time must stay
                    path.touch()
            if spec.weights.remote_code:
                refuse_needless_code(skeleton, repository.where)  # before its commit is asked for
                for other in _take_code_as_own(skeleton):
                    _repository(other, spec.weights.code_revision, repository.where)
            check_folder(skeleton, spec, repository.where)
            names = set(decisive_files(skeleton))
    return [file for file in near if file.name in names]


def _is_near(path: PurePosixPath, folders: set[PurePosixPath]) -> bool:
    """Say whether a file is at the top or somewhere inside a module's folder."""
    top = PurePosixPath()
    return path.parent == top or bool((folders - {top}) & {*path.parents})


def _is_setting(name: str) -> bool:
    """Say whether a file is small and read by the checks."""
    return name == "modules.json" or name.endswith(("config.json", ".index.json"))


@contextlib.contextmanager
def _named(skeleton: Path, repository: Repository) -> Iterator[None]:
    """Put the model's name and commit into messages, for the skeleton's path."""
    try:
        yield
    except PipelineError as err:
        name = f"{repository.model}@{repository.revision}"
        raise PipelineError(str(err).replace(str(skeleton), name)) from err


def _fetch(
    repository: Repository, files: Sequence[RemoteFile], downloads: Path, target: Path
) -> None:
    """Put files of a model below `target`; what is not on this machine is downloaded."""
    missing = []
    for file in files:
        found = find_cached(repository.model, repository.revision, file)
        if found is None and _is_whole(downloads / file.name, file):
            found = downloads / file.name
        if found is None:
            missing.append(file)
        else:
            _put(found, target / file.name)
    if not missing:
        return
    left = sum(max(0, (file.size or 0) - _size(_part(downloads, file))) for file in missing)
    if any(not _is_setting(file.name) for file in missing):
        least = "at least " if any(file.size is None for file in missing) else ""
        log.info(
            "downloading %s from %s: %d files, %s%.1f MB",
            repository, endpoint(), len(missing), least, left / _MB,
        )  # fmt: skip
    downloads.mkdir(parents=True, exist_ok=True)
    check_space(downloads, left, f"{repository.where}: {repository}")
    done = 0
    with Progress(left // _MB, "MB") as progress:

        def advance(count: int) -> None:
            nonlocal done
            progress.advance((done + count) // _MB - done // _MB)
            done += count

        for file in missing:
            part = _part(downloads, file)
            part.parent.mkdir(parents=True, exist_ok=True)
            download(repository, file, part, advance)
            if not _is_whole(part, file):
                part.unlink()
                raise repository.failure(
                    f"{file.name} has another hash than the hub's list says, expected "
                    f"{file.digest}",
                    "Run it again. If it stays so, the file was changed under the commit: use "
                    "another mirror (HF_ENDPOINT).",
                )
            part.replace(downloads / file.name)
            _put(downloads / file.name, target / file.name)


def _part(downloads: Path, file: RemoteFile) -> Path:
    return downloads / (file.name + _PART)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _is_whole(path: Path, file: RemoteFile) -> bool:
    """Say whether a downloaded file is there with the size and the hash of the list."""
    if not path.is_file() or file.size not in (None, _size(path)):
        return False
    return file.digest is None or has_digest(path, file.digest)


def _put(source: Path, target: Path) -> None:
    """Make `target` the same file as `source`, or a copy where the disk has no links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    # A file that is there may be one with the user's own cache: it is replaced, never written to.
    target.unlink(missing_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or one without links
        shutil.copyfile(source, target)


@contextlib.contextmanager
def _disk_errors(repository: Repository, downloads: Path) -> Iterator[None]:
    try:
        yield
    except OSError as err:
        raise PipelineError(
            f"{repository.where}: {repository} cannot be written to {downloads} "
            f"({err.strerror or err}). Free some space, or set PIPELINE_CACHE to another disk. The "
            "next run continues the download."
        ) from err


def _join_code(weights: HubWeights, where: str, downloads: Path, target: Path) -> None:
    """Add the code of other repositories that config.json names to the model in `target`.

    The code is fetched at `code_revision`, and config.json names it as its own: what runs is then
    pinned, and part of the folder.
    """
    for other in _take_code_as_own(target):
        repository = _repository(other, weights.code_revision, where)
        code = [file for file in _list(repository) if file.name.endswith(".py")]
        _fetch(repository, code, downloads / f"code of {other.replace('/', '--')}", target)


def _take_code_as_own(folder: Path) -> list[str]:
    """Let config.json name code of other repositories as its own; return their names, sorted.

    A config.json that is no object names none; `check_folder` refuses it.
    """
    path = folder / "config.json"
    config = read_json(path, "Use another commit.", foreign=True) if path.is_file() else None
    if not isinstance(config, dict):
        return []
    text = json.dumps(config.get("auto_map", {}))
    others = sorted(set(_FOREIGN.findall(text)))
    if others:
        write_json(path, config | {"auto_map": json.loads(_FOREIGN.sub('"', text))})
    return others
