import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict

from pipeline.core.cards import check_hash, read_model
from pipeline.core.errors import PipelineError
from pipeline.core.files import (
    MOST_BYTES,
    atomic_directory,
    atomic_file,
    canonical_json,
    files_into,
    read_json,
    sha256_file,
    sha256_lines,
    write_json,
)
from tests.helpers.artefacts import ROOT


def tree(folder: Path) -> dict[str, bytes | None]:
    """Return everything under a folder: the bytes of files, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def test_a_file_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"

    with atomic_file(path) as partial:
        partial.write_text("whole")
        assert not path.exists()

    assert tree(tmp_path) == {"new": None, "new/a.txt": b"whole"}


def test_the_folders_above_what_is_written_are_made(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a/b/file", follow_links=True) as partial:
        partial.touch()
    with atomic_directory(tmp_path / "c/d/folder"):
        pass
    with files_into(tmp_path / "e/f") as folder:
        (folder / "file").touch()
    write_json(tmp_path / "g/h/file.json", {}, follow_links=True)
    made = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"a/b/file", "c/d/folder", "e/f/file", "g/h/file.json"} <= made


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("a longer old text")

    with atomic_file(path) as partial:
        partial.write_text("new")

    assert tree(tmp_path) == {"a.txt": b"new"}


def test_a_directory_appears_when_the_block_succeeds(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a"

    with atomic_directory(path) as partial:
        (partial / "1").write_text("one")
        assert not path.exists()

    assert tree(tmp_path) == {"new": None, "new/a": None, "new/a/1": b"one"}


def test_a_directory_is_replaced_whole_and_keeps_nothing_old(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.mkdir()
    (path / "old").write_text("old")

    with atomic_directory(path) as partial:
        (partial / "new").write_text("new")
        assert tree(path) == {"old": b"old"}

    assert tree(tmp_path) == {"a": None, "a/new": b"new"}


def test_an_artefact_that_is_a_link_into_a_cache_is_replaced_and_the_cache_stays(
    tmp_path: Path,
) -> None:
    (tmp_path / "cached").write_text("old")
    (tmp_path / "a.json").symlink_to("cached")
    write_json(tmp_path / "a.json", {})
    assert not (tmp_path / "a.json").is_symlink()
    assert (tmp_path / "cached").read_text() == "old"


def test_a_link_that_a_user_names_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/a.txt").write_text("old")
    (tmp_path / "hop.txt").symlink_to("far/a.txt")
    (tmp_path / "a.txt").symlink_to("hop.txt")
    (tmp_path / "new.txt").symlink_to("far/new.txt")

    for name in ("a.txt", "new.txt"):
        with atomic_file(tmp_path / name, follow_links=True) as partial:
            partial.write_text("new")
            assert partial.parent.resolve() == tmp_path / "far"
        assert (tmp_path / name).is_symlink()
        assert (tmp_path / "far" / name).read_text() == "new"


def test_a_folder_that_is_a_link_stays_one_and_its_target_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far/old").write_text("old")
    (tmp_path / "a").symlink_to("far")

    with atomic_directory(tmp_path / "a") as partial:
        (partial / "new").write_text("new")

    assert (tmp_path / "a").is_symlink()
    assert tree(tmp_path / "far") == {"new": b"new"}
    assert {path.name for path in tmp_path.iterdir()} == {"a", "far"}


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("pipe")
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        write_json(path, {"a": 1}, follow_links=True)
        assert json.loads(os.read(reader, 100)) == {"a": 1}
    os.close(reader)
    assert pipe.is_fifo()
    assert link.is_symlink()
    assert {path.name for path in tmp_path.iterdir()} == {"link", "pipe"}


def test_a_device_is_written_to_and_stays_one(tmp_path: Path) -> None:
    node = tmp_path / "null"
    try:
        os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        node.symlink_to(os.devnull)
    link = tmp_path / "link"
    link.symlink_to("null")
    for path in (node, link, Path(os.devnull)):
        write_json(path, {"a": 1}, follow_links=True)
    assert node.is_char_device()
    assert link.is_symlink()
    assert Path(os.devnull).is_char_device()


def test_a_full_device_is_the_systems_error() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_json(Path("/dev/full"), {"a": 1})
    assert Path("/dev/full").is_char_device()


@pytest.mark.slow
def test_standard_output_gets_the_file_after_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/dev/stdout")
    script = (
        "import sys; from pathlib import Path; from pipeline.core.files import write_json;"
        "print('before', flush=True);"
        "[write_json(Path(name), 1, follow_links=True) for name in sys.argv[1:]];"
        "print('after', flush=True)"
    )
    names = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link")
    command, env = [sys.executable, "-c", script, *names], {**os.environ, "PYTHONPATH": str(ROOT)}
    piped = subprocess.run(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, check=True)
    with (tmp_path / "out").open("ab") as out:
        subprocess.run(command, cwd=tmp_path, env=env, stdout=out, check=True)
    assert piped.stdout == b"before\n1\n1\n1\n1\nafter\n"
    assert (tmp_path / "out").read_bytes() == piped.stdout


MEMORY_DISK = Path("/dev/shm")  # noqa: S108 (each test makes its own folder there)


@pytest.mark.skipif(not MEMORY_DISK.is_dir(), reason="there is no disk in memory here")
def test_a_file_on_a_disk_in_memory_is_replaced_like_any_other() -> None:
    with TemporaryDirectory(dir=MEMORY_DISK) as folder:
        path, link = Path(folder) / "a.json", Path(folder) / "link.json"
        link.symlink_to("a.json")
        for number, name in enumerate((path, path, link)):
            write_json(name, number, follow_links=True)
            assert path.read_text() == f"{number}\n"
        assert link.is_symlink()


def test_what_can_be_neither_written_to_nor_replaced_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the address of a socket may have 108 bytes
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("round")
    (tmp_path / "round").symlink_to("circle")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        for name, told in (
            ("folder", "is a folder. Name a file."),
            ("socket", "is a socket. Name a file."),
            ("circle", "is a link that leads to itself. Remove it."),
        ):
            with pytest.raises(PipelineError, match=rf"^{name} {told}$"):
                write_json(Path(name), 1)
    (tmp_path / "file").write_text("old")
    for name, told in (("file", "must be a folder"), ("circle", "is a link that leads to itself")):
        with (
            pytest.raises(PipelineError, match=f"^{name} {told}"),
            atomic_directory(Path(name)) as partial,
        ):
            raise AssertionError(partial)
    assert stat.S_ISSOCK((tmp_path / "socket").stat().st_mode)
    assert (tmp_path / "file").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 5


def test_files_go_into_a_folder_when_the_block_succeeds_and_replace_those_of_their_names(
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    for text in ("old", "new"):
        with files_into(out) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / "a").write_text(text)
            (folder / text).write_text(text)
    assert tree(out) == {"sub": None, "sub/a": b"new", "old": b"old", "new": b"new"}


@pytest.mark.parametrize("error", [PipelineError, OSError, ValueError])
def test_files_that_cannot_all_be_placed_or_made_replace_none(
    tmp_path: Path, error: type[Exception]
) -> None:
    (tmp_path / "a").write_text("old")
    if error is PipelineError:
        (tmp_path / "sub" / "z").mkdir(parents=True)
    elif error is OSError:
        (tmp_path / "sub").write_text("a file")
    before = tree(tmp_path)

    def fill() -> None:
        with files_into(tmp_path) as folder:
            (folder / "a").write_text("new")
            (folder / "sub").mkdir()
            (folder / "sub" / "z").write_text("new")
            if error is ValueError:
                raise ValueError

    with pytest.raises(error):
        fill()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [True, False])
def test_an_exception_in_the_block_leaves_everything_as_it_was(
    tmp_path: Path, error: type[BaseException], before: bool
) -> None:
    if before:
        (tmp_path / "a.txt").write_text("old")
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "old").write_text("old")
    found = tree(tmp_path)

    def fail() -> None:
        with atomic_directory(tmp_path / "a") as folder, atomic_file(tmp_path / "a.txt") as file:
            (folder / "half").write_text("half")
            file.write_text("half")
            raise error

    with pytest.raises(error):
        fail()

    assert tree(tmp_path) == found


def test_what_a_killed_process_of_the_same_id_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for left_over in ("partial", "replaced.partial"):
        folder = tmp_path / f".a.{os.getpid()}.{left_over}"
        folder.mkdir()
        (folder / "half").write_text("half")

    with atomic_directory(tmp_path / "a") as partial:
        (partial / "new").write_text("new")

    assert tree(tmp_path) == {"a": None, "a/new": b"new"}


def test_a_directory_that_cannot_take_its_place_leaves_the_old_one_there(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")

    with pytest.raises(FileNotFoundError), atomic_directory(tmp_path / "a") as partial:
        partial.rmdir()

    assert tree(tmp_path) == {"a": None, "a/old": b"old"}


@pytest.mark.slow
def test_kill_9_in_the_block_leaves_the_old_artefacts_whole(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "old").write_text("old")
    script = """
        import sys, time
        from pathlib import Path
        from pipeline.core.files import atomic_directory, atomic_file
        with atomic_directory(Path("a")) as folder, atomic_file(Path("a.txt")) as file:
            (folder / "half").write_text("half")
            file.write_text("half")
            print("written", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        process.kill()

    assert process.returncode == -signal.SIGKILL
    left = tree(tmp_path)
    partial = {name for name in left if ".partial" in name}
    assert {name: left[name] for name in left.keys() - partial} == {
        "a.txt": b"old", "a": None, "a/old": b"old",
    }  # fmt: skip
    assert all(name.startswith(".a.") for name in partial)  # .gitignore and .dvcignore pass it by


def test_equal_data_give_equal_json_whatever_the_order_of_their_keys(tmp_path: Path) -> None:
    write_json(tmp_path / "1.json", {"b": 1, "a": {"d": "ñ水", "c": [1, 2]}})
    write_json(tmp_path / "2.json", {"a": {"c": [1, 2], "d": "ñ水"}, "b": 1})

    text = (tmp_path / "1.json").read_bytes()
    assert text == (tmp_path / "2.json").read_bytes()
    assert text.endswith(b"}\n")
    assert "ñ水".encode() in text
    assert read_json(tmp_path / "1.json", "") == {"a": {"c": [1, 2], "d": "ñ水"}, "b": 1}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_refuses_what_it_cannot_hold_and_leaves_no_file(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": value})
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json([value])

    assert not list(tmp_path.iterdir())


NO_JSON: dict[str, bytes] = {
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": [-Infinity]}',
    "beyond floats": b'{"a": 1e400}',
    "400 digits": b'{"a": 1' + b"0" * 400 + b"}",
    "5,000 digits": b'{"a": ' + b"9" * 5_000 + b"}",
    "brackets without end": b"[" * 100_000,
    "deep brackets": b"[" * 100_000 + b"]" * 100_000,
    "65 levels": b'{"a":' * 65 + b"1" + b"}" * 65,
    "a repeated key": b'{"a": 1, "a": 2}',
    "half a pair": b'{"a": "\\ud800"}',
    "half a pair as key": b'{"\\udfff": 1}',
    "a mark of byte order": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "Latin-1": b'{"a": "\xe9"}',
    "NUL": b"\x00" * 10,
    "two documents": b"{}{}",
    "nothing": b"",
    "half": b'{"a": ',
}


@pytest.mark.parametrize("kind", NO_JSON)
def test_what_json_may_spell_and_no_artefact_holds_is_one_message(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(NO_JSON[kind])
    with pytest.raises(PipelineError, match=rf"^{path} is not readable as JSON \(.*\)\. Do it\.$"):
        read_json(path, "Do it.")


def test_json_of_64_levels_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a":' * 64 + "1" + "}" * 64, encoding="utf-8")
    assert read_json(path, "") == json.loads(path.read_bytes())


def unreadable(folder: Path, kind: str) -> tuple[Path, str]:
    """Return a path that no file can be read from, and what is said about it."""
    path = folder / "a.json"
    match kind:
        case "folder":
            path.mkdir()
            return path, "is not a regular file"
        case "pipe":
            os.mkfifo(path)
            return path, "is not a regular file"
        case "device":
            path.symlink_to("/dev/zero")
            return path, "is not a regular file"
        case "circle":
            path.symlink_to(path)
            return path, "cannot be read: Too many levels of symbolic links"
        case "name":
            return folder / ("a" * 300), "cannot be read: File name too long"
        case "file as folder":
            path.write_text("{}")
            return path / "b.json", "cannot be read: Not a directory"
        case "dangling":
            path.symlink_to("nowhere")
            return path, "is missing"
        case "absent":
            return path, "is missing"
        case _:
            path.write_bytes(b"")
            os.truncate(path, MOST_BYTES + 1)
            return path, "must have at most"


UNREADABLE = (
    "folder", "pipe", "device", "circle", "name", "file as folder", "dangling", "absent",
    "too large",
)  # fmt: skip


@pytest.mark.parametrize("kind", UNREADABLE)
def test_what_cannot_be_read_as_json_is_one_message(tmp_path: Path, kind: str) -> None:
    path, told = unreadable(tmp_path, kind)
    with pytest.raises(PipelineError) as caught:
        read_json(path, "Do it.")
    assert str(caught.value).startswith(f"{path} {told}")
    assert str(caught.value).endswith(". Do it.")


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    version: int
    shares: dict[str, tuple[float, ...]]
    name: str | None


def test_a_number_has_at_most_64_bits_except_in_files_of_other_projects(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for number in (2**64 - 1, -(2**64) + 1):
        write_json(path, number)
        assert read_json(path, "") == number
    for number in (2**64, 10**30, -(10**300), 2**1023 - 1):
        write_json(path, [number])
        assert read_json(path, "", foreign=True) == [number]
        with pytest.raises(PipelineError, match="a number has more than 64 bits"):
            read_json(path, "")
    write_json(path, 2**1023)
    with pytest.raises(PipelineError, match="a number has more than 1023 bits"):
        read_json(path, "", foreign=True)


def test_a_damaged_card_gives_the_same_card_or_one_message(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    card = Form(version=3, shares={"es": (0.5, 1.0), "ñ": ()}, name="水")
    write_json(path, card.model_dump(mode="json"))
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    parts = [
        b"NaN",
        b"1e999",
        b"[" * 2_000,
        b"9" * 5_000,
        b"null",
        b'"\\ud800"',
        b"{",
        b"\xff",
        b"",
    ]
    refused: list[str] = []
    for _ in range(500):
        first, last = sorted(rng.integers(0, len(whole) + 1, 2))
        path.write_bytes(whole[:first] + parts[rng.integers(len(parts))] + whole[last:])
        try:
            found = read_model(path, Form, "Do it.", ("version", 3))
        except PipelineError as err:
            refused.append(str(err))
        else:
            assert Form.model_validate(found.model_dump()) == found
    assert all(told.startswith(str(path)) and told.endswith(" Do it.") for told in refused)
    assert len(refused) > 450


def test_a_file_that_a_card_names_is_there_and_has_its_hash(tmp_path: Path) -> None:
    path, card = tmp_path / "table", tmp_path / "card.json"
    path.write_bytes(b"a")
    digest = sha256_file(path)
    check_hash(path, digest, card, "Do it.")
    path.write_bytes(b"b")
    with pytest.raises(
        PipelineError, match=rf"^{path}: sha256 must be .*card\.json was edited\. Do it\.$"
    ):
        check_hash(path, digest, card, "Do it.")
    path.unlink()
    with pytest.raises(PipelineError, match=rf"^{path} is missing\. Do it\.$"):
        check_hash(path, digest, card, "Do it.")
    os.mkfifo(path)
    with pytest.raises(PipelineError, match=rf"^{path} is not a regular file\. Do it\.$"):
        check_hash(path, digest, card, "Do it.")


def test_hashes_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a\n\xc3\xb1\n")

    assert sha256_file(tmp_path / "a") == sha256_lines(["a", "ñ"])
    assert sha256_lines(["a", "ñ"]) != sha256_lines(["ñ", "a"])
    assert sha256_lines([]) == hashlib.sha256().hexdigest()


def _dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_stays(
    tmp_path: Path,
) -> None:
    dead, living = _dead_process(), os.getppid()
    left = tmp_path / f".out.{dead}.partial"
    written = tmp_path / f".out.{living}.partial"
    for folder in (left, written):
        folder.mkdir()
        (folder / "half").write_text("x")
    with atomic_directory(tmp_path / "out") as partial:
        (partial / "new").write_text("new")
    assert not left.exists()
    assert (written / "half").exists()


def test_a_name_that_ends_in_no_process_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / f".a.json.{10**30}.partial").write_text("left over")
    write_json(tmp_path / "a.json", 1)
    assert tree(tmp_path) == {"a.json": b"1\n"}


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path: Path) -> None:
    only_copy = tmp_path / f".out.{_dead_process()}.replaced.partial"
    only_copy.mkdir()
    (only_copy / "old").write_text("old")
    with pytest.raises(KeyError), atomic_directory(tmp_path / "out"):
        raise KeyError
    assert (tmp_path / "out" / "old").read_text() == "old"
