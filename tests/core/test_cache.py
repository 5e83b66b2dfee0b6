import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

from pipeline.core.cache import build_once, folder_name, forget
from pipeline.core.files import sha256_file

FILES = {"model.bin": b"weights" * 100, "deep/er/config.json": b"{}", "empty": b""}

MAKE = """
import os, sys, time
from pathlib import Path
from pipeline.core.cache import build_once

def fill(folder):
    with open(sys.argv[2], "a") as log:
        log.write("made\\n")
    (folder / "first").write_text("1")
    {then}
    (folder / "second").write_text("2")

print("asking", flush=True)
sys.stdout.write(str(build_once(Path(sys.argv[1]), fill)))
"""


class Making:
    """Fills a folder, and counts how often."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, folder: Path) -> None:
        self.count += 1
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)


def as_made(folder: Path) -> bool:
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    return found == FILES


def start(folder: Path, log: Path, then: str = "pass") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", MAKE.replace("{then}", then), str(folder), str(log)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def wait_until_it_asks(process: "subprocess.Popen[str]") -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "asking\n"


def test_a_folder_is_made_once_and_its_hashes_are_those_of_its_files(tmp_path: Path) -> None:
    folder, making = tmp_path / "not/there/yet", Making()
    for _ in range(3):
        digests = build_once(folder, making)
        assert digests == {name: sha256_file(folder / name) for name in FILES}
    assert making.count == 1
    assert as_made(folder)


def _flip_a_bit(folder: Path) -> None:
    data = bytearray(FILES["model.bin"])
    data[300] ^= 4
    (folder / "model.bin").write_bytes(data)


def _touch(path: Path) -> None:
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 10**9))


@pytest.mark.parametrize(
    "spoil",
    [
        _flip_a_bit,
        lambda folder: (folder / "model.bin").write_bytes(FILES["model.bin"] + b"!"),
        lambda folder: (folder / "model.bin").write_bytes(b""),
        lambda folder: (folder / "empty").unlink(),
        lambda folder: (folder / "more").write_bytes(b""),
        lambda folder: (folder / "empty").rename(folder / "renamed"),
        lambda folder: folder.with_name(".model.seal.json").write_text("{"),
        lambda folder: folder.with_name(".model.seal.json").write_text("[]"),
        lambda folder: folder.with_name(".model.seal.json").write_text(
            '{"stamps": 1, "sha256": {}}'
        ),
        lambda folder: folder.with_name(".model.seal.json").unlink(),
    ],
)
def test_a_folder_that_is_not_as_it_was_made_is_built_again_with_a_warning(
    tmp_path: Path, spoil: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    folder, making = tmp_path / "model", Making()
    build_once(folder, making)
    spoil(folder)
    digests = build_once(folder, making)
    assert making.count == 2
    assert as_made(folder)
    assert set(digests) == set(FILES)
    assert f"{folder} is not as it was built; it is built again" in caplog.text
    build_once(folder, making)
    assert making.count == 2


def test_a_folder_that_is_gone_is_made_again_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, making = tmp_path / "model", Making()
    build_once(folder, making)
    shutil.rmtree(folder)
    build_once(folder, making)
    assert (making.count, caplog.text) == (2, "")
    assert as_made(folder)


def test_a_folder_is_forgotten_except_while_a_process_builds_it(tmp_path: Path) -> None:
    folder, lock = tmp_path / "model", tmp_path / ".model.lock"
    build_once(folder, Making())
    with FileLock(lock):
        forget(folder)
    assert as_made(folder)
    held = lock.stat().st_ino
    forget(folder)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]
    assert lock.stat().st_ino == held  # who waits for it excludes others


def test_the_same_content_under_another_time_is_taken(tmp_path: Path) -> None:
    folder, making = tmp_path / "model", Making()
    first = build_once(folder, making)
    for name in FILES:
        _touch(folder / name)
    assert build_once(folder, making) == first
    assert making.count == 1


def test_a_making_that_fails_leaves_nothing_and_what_was_there_stays(tmp_path: Path) -> None:
    folder, making = tmp_path / "model", Making()

    def fail(partial: Path) -> None:
        (partial / "half").write_bytes(b"x")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        build_once(folder, fail)
    assert [path.name for path in tmp_path.iterdir()] == [".model.lock"]
    build_once(folder, making)
    (folder / "model.bin").write_bytes(b"changed")
    with pytest.raises(OSError, match="disk full"):
        build_once(folder, fail)
    assert (folder / "model.bin").read_bytes() == b"changed"


@pytest.mark.slow
def test_processes_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    go_on = tmp_path / "go on"
    wait = f"while not Path({str(go_on)!r}).exists(): time.sleep(0.01)"
    processes = [start(tmp_path / "model", tmp_path / "log", wait) for _ in range(3)]
    for process in processes:
        wait_until_it_asks(process)
    go_on.touch()
    outputs = {process.communicate()[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 3
    assert (tmp_path / "log").read_text() == "made\n"
    assert len(outputs) == 1
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["first", "second"]


@pytest.mark.slow
def test_a_making_that_is_killed_leaves_nothing_that_counts_as_made(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    killed = start(folder, tmp_path / "log", then="os.kill(os.getpid(), 9)")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert not folder.exists()
    making = Making()
    build_once(folder, making)
    assert making.count == 1
    assert as_made(folder)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_what_a_process_elsewhere_builds_stays_while_it_holds_the_lock(tmp_path: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()  # as the process of another machine, its number names none here
    partial = tmp_path / f".model.{gone.pid}.partial"
    partial.mkdir()
    with FileLock(tmp_path / ".model.lock"):
        waiting = start(tmp_path / "model", tmp_path / "log")
        wait_until_it_asks(waiting)
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(timeout=0.5)
        assert partial.is_dir()
    waiting.communicate()
    assert (waiting.returncode, partial.exists()) == (0, False)


def test_equal_identities_have_equal_names_and_others_have_others() -> None:
    name = folder_name("wheel", {"a": 1, "b": [2]})
    assert name == folder_name("wheel", {"b": [2], "a": 1})
    assert name.startswith("wheel-")
    others = [folder_name("hub", {"a": 1, "b": [2]}), folder_name("wheel", {"a": 1, "b": [3]})]
    assert len({name, *others}) == 3
