"""What a model on the hub is made of, and its files, continued where a download was cut off."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from pipeline.core.errors import shorten
from pipeline.core.files import parse_json
from pipeline.encoders.hub_requests import (
    FleetingFault,
    Repository,
    another_commit,
    check_status,
    client,
    endpoint,
    hub_constants,
    repeat,
    request_headers,
    translated,
)

_WINDOW, _LEAST = 60.0, 60_000  # a server that sends fewer bytes in so many seconds has stalled


@dataclass(frozen=True)
class RemoteFile:
    """A file of a model on the hub.

    Attributes:
        name: its path in the model.
        size: in bytes; None if a mirror does not say.
        digest: its SHA-256, or the SHA-1 that Git gives a small file, in hexadecimal; None if a
            mirror does not say.
    """

    name: str
    size: int | None
    digest: str | None


def list_files(model: str, revision: str, where: str) -> list[RemoteFile]:
    """Return the files of a model at a commit, with their sizes; nothing is downloaded.

    Args:
        model: its name on the hub, such as `intfloat/multilingual-e5-small`.
        revision: 40 hexadecimal digits.
        where: the key that names it in params.yaml, or the command; messages begin with it.

    Raises:
        PipelineError: the hub cannot be reached, has no such model or commit, does not let it be
            read, or answers what is not such a list.
    """
    constants = hub_constants()
    repository = Repository(model, revision, where)
    url = f"{constants.ENDPOINT}/api/models/{model}/revision/{revision}"

    def ask() -> bytes:
        response = client(repository.model).get(
            url,
            params={"blobs": "true"},
            headers=request_headers(),
            timeout=constants.HF_HUB_ETAG_TIMEOUT,
        )
        check_status(response, repository)
        content: bytes = response.content
        return content

    with translated(repository):
        answer = repeat(ask, repository)
    remedy = "Check HF_ENDPOINT."
    found = parse_json(answer, f"{where}: the answer of {endpoint()}", remedy, foreign=True)
    files = [_remote_file(one, repository) for one in _entries(found)]
    if not files:
        raise repository.failure("its answer lists no files", remedy)
    if (commit := found.get("sha")) != revision:
        raise another_commit(repository, commit)
    return sorted(files, key=lambda file: file.name)


def download(
    repository: Repository, file: RemoteFile, part: Path, advance: Callable[[int], None]
) -> None:
    """Append to `part` what it lacks of a file, until it is whole; the digest is not checked.

    Args:
        repository: where the file is.
        file: which one.
        part: what a download that was cut off left, if it exists.
        advance: called with the number of bytes that came.

    Raises:
        PipelineError: the hub does not give the file, or not all of it after repeated tries.
        OSError: the disk is full or fails.
    """
    with translated(repository):
        repeat(
            lambda: _append(repository, file, part, advance),
            repository,
            lambda: part.stat().st_size if part.exists() else 0,
        )


def _append(
    repository: Repository, file: RemoteFile, part: Path, advance: Callable[[int], None]
) -> None:
    constants = hub_constants()
    have = part.stat().st_size if part.exists() else 0
    if have and have == file.size:
        return
    if file.size is not None and have > file.size:
        part.unlink()
        have = 0
    place = f"{repository.model}/resolve/{repository.revision}/{quote(file.name)}"
    headers = request_headers() | ({"range": f"bytes={have}-"} if have else {})
    with client(repository.model).stream(
        "GET",
        f"{constants.ENDPOINT}/{place}",
        headers=headers,
        timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT,
    ) as response:
        goes_on = response.headers.get("content-range", "").startswith(f"bytes {have}-")
        if response.status_code == 416 or (response.status_code == 206 and not goes_on):
            part.unlink(missing_ok=True)
            cause = f"{file.name} has no byte {have}"
            raise FleetingFault(cause) if file.size is None else repository.failure(cause)
        check_status(response, repository)
        for answer in (*response.history, response):
            commit = answer.headers.get("x-repo-commit", repository.revision)
            if commit != repository.revision:
                raise another_commit(repository, commit)
        with part.open("ab" if goes_on else "wb") as handle:
            for chunk in _arriving(response, file):
                handle.write(chunk)
                advance(len(chunk))
                if file.size is not None and handle.tell() > file.size:
                    raise repository.failure(f"{file.name} has more than {file.size} bytes")
    if file.size not in (None, found := part.stat().st_size):
        raise FleetingFault(f"{file.name} ended after {found} of {file.size} bytes")


def _arriving(response: Any, file: RemoteFile) -> Iterator[bytes]:
    """Yield a file's bytes as they come, unless they come too slowly."""
    since, count = time.monotonic(), 0
    for chunk in response.iter_raw():
        yield chunk
        count += len(chunk)
        if (now := time.monotonic()) - since > _WINDOW:
            if count < _LEAST:
                raise FleetingFault(f"{file.name}: only {count} bytes came in {now - since:.0f} s")
            since, count = now, 0


def is_inside(name: str) -> bool:
    """Say whether a file's name is a path inside a model."""
    path = PurePosixPath(name)
    outside = path.is_absolute() or ".." in path.parts or not path.parts
    return not outside and "\\" not in name and name.isprintable()


def _entries(found: Any) -> list[Any]:
    entries = found.get("siblings") if isinstance(found, dict) else None
    return entries if isinstance(entries, list) else []


def _remote_file(entry: Any, repository: Repository) -> RemoteFile:
    """Return an entry of the list, whose name must be a path inside the model."""
    entry = entry if isinstance(entry, dict) else {}
    name, size = entry.get("rfilename"), entry.get("size")
    if not isinstance(name, str) or not is_inside(name):
        raise repository.failure(f"it lists {shorten(name)}, which is no path inside a model")
    lfs = entry.get("lfs") if isinstance(entry.get("lfs"), dict) else {}
    digest = lfs.get("sha256") or entry.get("blobId")
    return RemoteFile(
        PurePosixPath(name).as_posix(),
        size if type(size) is int else None,
        digest if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", str(digest)) else None,
    )
