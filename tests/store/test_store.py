"""The store: what is read is what was added, whatever happens to its files."""

import hashlib
import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.store.command import _minute, main
from pipeline.store.store import Keys, Missing, Store, keys_of
from pipeline.store.upkeep import Freed, prune, usage
from tests.conftest import RunStage
from tests.core.test_files import tree
from tests.helpers.artefacts import ROOT
from tests.helpers.disks import small_disk
from tests.helpers.limits import file_limit

IDENTITY = {"engine": "torch-cpu", "precision": "float32", "prefix": "query: ", "weights": "0" * 64}
WIDTH = 3

Dtype = Literal["float32", "int32"]
Opened = Literal["before", "after"]
Command = Callable[..., str]


def open_store(root: Path, dtype: Dtype = "float32", **changes: str) -> Store:
    return Store(root, IDENTITY | changes, dtype)


def values_of(keys: Keys, width: int = WIDTH, dtype: str = "float32") -> NDArray[Any]:
    """Return what the tests store: a function of each key, as a vector is of its text."""
    rows = [np.random.default_rng(key).integers(-(2**20), 2**20, width) for key in keys]
    return np.array(rows).reshape(len(keys), width).astype(dtype)


def texts_keys(start: int, stop: int) -> Keys:
    return keys_of(f"text {number}" for number in range(start, stop))


def segments(root: Path) -> list[Path]:
    return sorted(root.glob("*/*.npy"))


def in_a_process(script: str, folder: Path) -> "subprocess.Popen[str]":
    """Start Python in a folder, with the names of this module."""
    return subprocess.Popen(
        [sys.executable, "-c", "from tests.store.test_store import *\n" + textwrap.dedent(script)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_read(store: Store, keys: Keys, values: NDArray[Any]) -> NDArray[np.int64]:
    """Read what is held of `keys`, compare it with `values`, return the positions missing."""
    missing = np.empty(0, dtype=np.int64)
    try:
        found = store.read(keys)
    except Missing as err:
        missing = err.rows
        held = np.setdiff1d(np.arange(len(keys)), missing)
        np.testing.assert_array_equal(store.holds(keys), np.isin(np.arange(len(keys)), held))
        found, values = store.read(keys[held]), values[held]
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values if len(values) else found)
    return missing


# Reading and adding


def test_what_is_read_is_what_was_added_in_any_order_with_any_duplicates(tmp_path: Path) -> None:
    for seed in range(20):
        check_against_a_dictionary(tmp_path / str(seed), seed)


def check_against_a_dictionary(folder: Path, seed: int) -> None:
    """Add and read at random, and compare what is held with a dictionary."""
    rng = np.random.default_rng(seed)
    dtype: Dtype = "float32" if seed % 2 else "int32"
    width = int(rng.integers(1, 9))
    # Few first halves, so that many keys share theirs.
    every = rng.permutation(np.array([(a, b) for a in range(9) for b in range(20)], np.uint64))
    oracle: dict[bytes, NDArray[Any]] = {}
    store = Store(folder, IDENTITY, dtype)
    for _ in range(12):
        added = rng.choice(every, int(rng.integers(0, 30)))
        values = values_of(added, width, dtype)
        store.add(added, values)
        oracle |= {key.tobytes(): value for key, value in zip(added, values, strict=True)}
        if rng.random() < 0.3:
            store = Store(folder, IDENTITY, dtype)
        asked = rng.choice(every, int(rng.integers(0, 60)))
        held = np.array([key.tobytes() in oracle for key in asked], dtype=bool)
        np.testing.assert_array_equal(store.holds(asked), held)
        if held.all():
            assert store.read(asked).shape == (len(asked), store.width)
        else:
            with pytest.raises(Missing) as caught:
                store.read(asked)
            np.testing.assert_array_equal(caught.value.rows, np.flatnonzero(~held))
        if held.any():
            expected = np.array([oracle[key.tobytes()] for key in asked[held]])
            found = store.read(asked[held])
            np.testing.assert_array_equal(found, expected)
            assert found.dtype == np.dtype(dtype)
    assert store.dropped == 0


def test_nothing_is_written_before_the_first_entry(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    store.add(texts_keys(0, 0), values_of(texts_keys(0, 0)))
    assert check_read(store, texts_keys(0, 5), values_of(texts_keys(0, 5))).tolist() == [*range(5)]
    assert not (tmp_path / "store").exists()


def test_the_files_are_plain_and_say_what_they_are_of(tmp_path: Path) -> None:
    keys = texts_keys(0, 7)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))

    about = (store.folder / "about.json").read_bytes()
    assert json.loads(about) == IDENTITY
    assert store.folder.name == hashlib.sha256(about).hexdigest()[:16]
    (segment,) = segments(tmp_path)
    record = np.load(segment, mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(record["key"][0], keys)
    np.testing.assert_array_equal(record["value"][0], values_of(keys))
    assert record["check"].shape == (1, 7)


def test_two_that_add_the_same_write_the_same_file(tmp_path: Path) -> None:
    keys = texts_keys(0, 7)
    one, other = open_store(tmp_path), open_store(tmp_path)
    one.add(keys, values_of(keys))
    written = tree(tmp_path)
    other.add(keys, values_of(keys))
    assert tree(tmp_path) == written


def test_an_identity_has_a_folder_of_its_own_whatever_the_order_of_its_keys(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert Store(tmp_path, dict(reversed(IDENTITY.items())), "float32").folder == store.folder
    keys = texts_keys(0, 3)
    store.add(keys, values_of(keys))
    for change in IDENTITY:
        assert not Store(tmp_path, IDENTITY | {change: "another"}, "float32").holds(keys).any()


def test_a_damaged_about_is_written_anew_with_the_next_entry(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for start, damaged in ((0, b""), (4, b"{}"), (8, None)):
        store.add(texts_keys(start, start + 4), values_of(texts_keys(start, start + 4)))
        assert [one.identity for one in usage(tmp_path)] == [IDENTITY]
        if damaged is not None:
            (store.folder / "about.json").write_bytes(damaged)
            assert usage(tmp_path) == []


def test_what_does_not_make_entries_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    store, keys = open_store(tmp_path), texts_keys(0, 4)
    values = values_of(keys)
    for bad in (np.nan, np.inf, -np.inf):
        broken = values.copy()
        broken[2, 1] = bad
        with pytest.raises(ValueError, match="NaN or infinity"):
            store.add(keys, broken)
    for misfit in (values[:3], values.astype(np.float64), values[:, 0], values.astype(np.int32)):
        with pytest.raises(ValueError, match="do not make entries of float32"):
            store.add(keys, misfit)
    assert not tree(tmp_path)


@pytest.mark.parametrize("reopened", [True, False])
def test_an_entry_of_another_width_is_refused(tmp_path: Path, reopened: bool) -> None:
    keys = texts_keys(0, 4)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))
    before = tree(tmp_path)
    if reopened:
        store = open_store(tmp_path)
    message = rf"{store.folder}: .* must have 3 components.* .found 5.*delete that folder"
    with pytest.raises(PipelineError, match=message):
        store.add(keys, values_of(keys, 5))
    assert tree(tmp_path) == before


# Keys

TRICKY = [
    "", " ", "  ", "\0", "a\0", "a", "A", "é", "e\u0301", "ſ", "s", "İ", "ı", "水",
    "\u200b", "\ufeff", "a\n", "a\r\n", "😀", "\ud83d\ude00", "\ud83d", "\ude00", "\ude00\ud83d",
    "a\udc80", "ＡＢＣ",    "ABC", "ﬁ", "fi", "x" * 1_000_000, "x" * 999_999 + "y",
]  # fmt: skip


def test_keys_are_equal_if_and_only_if_the_texts_are() -> None:
    texts = TRICKY + TRICKY[::-1]
    keys = [key.tobytes() for key in keys_of(texts)]
    assert len(set(keys)) == len(set(texts)) == len(TRICKY)
    for one, text in zip(keys, texts, strict=True):
        assert [key == one for key in keys] == [other == text for other in texts]
    decomposed = unicodedata.normalize("NFD", "é")
    assert (keys_of(["é"]) != keys_of([decomposed])).any()


def test_a_key_is_blake2b_and_of_its_own_text_alone() -> None:
    keys = keys_of(["a", "b", "a"])
    assert keys.shape == (3, 2)
    assert keys.dtype == np.uint64
    assert keys[0].tobytes() == hashlib.blake2b(b"a", digest_size=16).digest()
    np.testing.assert_array_equal(keys[0], keys[2])
    assert keys_of([]).shape == (0, 2)


# Damage


@contextmanager
def reports(caplog: pytest.LogCaptureFixture, times: int | None, *words: str) -> Iterator[None]:
    """Expect so many warnings in the block, or one at most; each with these words."""
    caplog.clear()
    yield
    found = [record.getMessage() for record in caplog.records]
    assert len(found) == times if times is not None else len(found) <= 1, found
    assert all(word in message for message in found for word in words), found


def damage(root: Path, opened: Opened, harm: Callable[[Path], object]) -> tuple[Store, Keys]:
    """Store three segments and harm the second; the store is opened before or after that."""
    first = open_store(root)
    parts = [texts_keys(start, start + 4) for start in (0, 4, 8)]
    for part in parts:
        before = set(segments(root))
        first.add(part, values_of(part))
        (written,) = set(segments(root)) - before
        if part is parts[1]:
            target = written
    store = open_store(root) if opened == "before" else None
    harm(target)
    return store or open_store(root), np.concatenate(parts)


def check_found_and_mended(root: Path, store: Store, keys: Keys) -> list[int]:
    """Compare what is read with the truth, add what is missing, and find the store whole.

    A store that is open already does not look at a file's keys again; the next one finds those.
    """
    found: list[int] = []
    for _ in range(2):
        missing = check_read(store, keys, values_of(keys))
        assert store.dropped == len(missing)
        store.add(keys[missing], values_of(keys[missing]))
        np.testing.assert_array_equal(store.read(keys), values_of(keys))
        found += missing.tolist()
        store = open_store(root)
    np.testing.assert_array_equal(store.read(keys), values_of(keys))
    assert store.dropped == 0
    assert set(found) <= set(range(4, 8))
    return found


@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_changed_byte_anywhere_is_harmless_or_found_reported_once_and_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, opened: Opened
) -> None:
    rng = np.random.default_rng(0)
    for number in range(50):
        root = tmp_path / str(number)

        def flip(path: Path) -> None:
            content = bytearray(path.read_bytes())
            content[rng.integers(len(content))] ^= int(rng.integers(1, 256))
            path.write_bytes(content)

        with reports(caplog, None, "of its 4 entries were dropped", str(root)):
            store, keys = damage(root, opened, flip)
            missing = check_found_and_mended(root, store, keys)
        assert len(missing) <= 1  # the intact rest stays


@pytest.mark.slow
@pytest.mark.parametrize("opened", ["before", "after"])
def test_a_segment_cut_off_anywhere_is_found_reported_once_and_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, opened: Opened
) -> None:
    keys = texts_keys(4, 8)
    open_store(tmp_path / "size").add(keys, values_of(keys))
    size = segments(tmp_path / "size")[0].stat().st_size
    for length in (*range(0, size, 7), size - 1):
        root = tmp_path / str(length)
        with reports(caplog, 1, "of its 4 entries were dropped", str(root)):
            store, keys = damage(root, opened, partial(os.truncate, length=length))
            missing = check_found_and_mended(root, store, keys)
        assert len(missing) >= 1


@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("content", [b"", b"\0" * 5_000, b"\x93NUMPY", b"PK\x03\x04" * 500])
def test_a_segment_with_other_content_is_dropped_whole(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    content: bytes,
    opened: Opened,
) -> None:
    with reports(caplog, 1, "is damaged; 4 of its 4 entries"):
        store, keys = damage(tmp_path, opened, partial(Path.write_bytes, data=content))
        assert check_found_and_mended(tmp_path, store, keys) == [4, 5, 6, 7]


@pytest.mark.parametrize(
    ("dtype", "changes"),
    [("float32", {"precision": "int8"}), ("int32", {}), ("int32", {"engine": "another"})],
)
def test_a_segment_of_another_identity_or_type_is_not_taken_for_ones_own(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    dtype: Dtype,
    changes: dict[str, str],
) -> None:
    keys = texts_keys(0, 4)
    foreign = open_store(tmp_path / "foreign", dtype, **changes)
    foreign.add(keys, values_of(keys, dtype=dtype))
    (path,) = segments(tmp_path / "foreign")
    own = open_store(tmp_path / "own")
    own.add(texts_keys(4, 5), values_of(texts_keys(4, 5)))
    copy = own.folder / path.name
    copy.write_bytes(path.read_bytes())

    with reports(caplog, 1, str(copy), "4 of its 4 entries"):
        store = open_store(tmp_path / "own")
    assert not store.holds(keys).any()
    assert not copy.exists()


def test_a_file_that_is_no_segment_is_reported_and_deleted_and_others_are_let_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = texts_keys(0, 4)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))
    np.save(store.folder / "mine.npy", np.zeros(3))
    (store.folder / "notes.txt").write_text("mine")
    (store.folder / "folder.npy").mkdir()

    with reports(caplog, 1, str(store.folder / "mine.npy"), "is not a segment of the store"):
        np.testing.assert_array_equal(open_store(tmp_path).read(keys), values_of(keys))
    assert not (store.folder / "mine.npy").exists()
    assert (store.folder / "notes.txt").exists()
    assert (store.folder / "folder.npy").exists()


def test_a_segment_under_another_name_keeps_its_entries(tmp_path: Path) -> None:
    keys = texts_keys(0, 4)
    open_store(tmp_path).add(keys, values_of(keys))
    (path,) = segments(tmp_path)
    renamed = path.with_name("f" * 32 + path.name[32:])
    path.rename(renamed)

    np.testing.assert_array_equal(open_store(tmp_path).read(keys), values_of(keys))
    assert segments(tmp_path) == [path]


def test_of_segments_of_several_widths_the_most_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stores = [open_store(tmp_path) for _ in range(5)]  # none sees what the others add
    for number, store in enumerate(stores):
        keys = texts_keys(4 * number, 4 * number + 4)
        store.add(keys, values_of(keys, 5 if number in (1, 3) else WIDTH))

    with reports(caplog, 2, "has 5 components; 4 of its 4 entries"):
        store = open_store(tmp_path)
    assert store.width == WIDTH
    keys = texts_keys(0, 20)
    missing = check_read(store, keys, values_of(keys))
    assert missing.tolist() == [4, 5, 6, 7, 12, 13, 14, 15]
    with reports(caplog, 0):
        open_store(tmp_path)


def test_a_lone_damaged_segment_of_another_width_does_not_bind_the_namespace(
    tmp_path: Path,
) -> None:
    keys = texts_keys(0, 4)
    open_store(tmp_path).add(keys, values_of(keys, 5))
    os.truncate(segments(tmp_path)[0], 100)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))
    np.testing.assert_array_equal(store.read(keys), values_of(keys))


def test_a_damaged_copy_does_not_hide_a_sound_one(tmp_path: Path) -> None:
    keys = texts_keys(0, 8)
    store = open_store(tmp_path)
    for part in (keys[:6], keys[2:]):
        store.add(part, values_of(part))
    for path in segments(tmp_path):
        content = path.read_bytes()
        store = open_store(tmp_path)
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        missing = check_read(store, keys, values_of(keys))
        assert set(missing.tolist()) <= {7}
        assert store.dropped == 1
        store.add(keys[missing], values_of(keys[missing]))


# Several processes


ADD_GROUPS = """
    rng = np.random.default_rng(int(sys.argv[1]) if len(sys.argv) > 1 else {seed})
    store = open_store(Path("store"))
    for start in rng.permutation(np.arange(0, 1_000, 20)):
        keys = texts_keys(start, start + 20 + int(rng.integers(10)))
        store.add(keys, values_of(keys))
        print(start, flush=True)
"""


@pytest.mark.slow
def test_two_processes_add_at_once_and_all_is_held_and_right(tmp_path: Path) -> None:
    store, keys = open_store(tmp_path / "store"), texts_keys(0, 1_000)
    values = values_of(keys)
    with (
        in_a_process(ADD_GROUPS.format(seed=1), tmp_path) as one,
        in_a_process(ADD_GROUPS.format(seed=2), tmp_path) as other,
    ):
        while one.poll() is None or other.poll() is None:
            store.refresh()
            check_read(store, keys, values)
    assert (one.returncode, other.returncode) == (0, 0), one.stderr
    store.refresh()
    np.testing.assert_array_equal(store.read(keys), values)
    assert store.dropped == 0
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.slow
def test_processes_add_read_and_prune_at_once_and_none_fails(tmp_path: Path) -> None:
    pruner = """
        for _ in range(500):
            prune(Path("store"), 0, float("inf"))
    """
    store, keys = open_store(tmp_path / "store"), texts_keys(0, 1_000)
    values = values_of(keys)
    with (
        in_a_process(ADD_GROUPS.format(seed=1), tmp_path) as adds,
        in_a_process(pruner, tmp_path) as one,
        in_a_process(pruner, tmp_path) as other,
    ):
        while any(process.poll() is None for process in (adds, one, other)):
            store.refresh()
            check_read_while_pruned(store, keys, values)
        errors = [process.stderr.read() for process in (adds, one, other) if process.stderr]
    assert errors == ["", "", ""]
    store.add(keys, values)
    np.testing.assert_array_equal(open_store(tmp_path / "store").read(keys), values)
    assert store.dropped == 0
    assert [one.folder for one in usage(tmp_path / "store")] == [store.folder]


def check_read_while_pruned(store: Store, keys: Keys, values: NDArray[Any]) -> None:
    held = store.holds(keys)
    with suppress(Missing):
        np.testing.assert_array_equal(store.read(keys[held]), values[held][:, : store.width])


@pytest.mark.slow
def test_kill_9_loses_nothing_that_was_added(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(2):
        with in_a_process(ADD_GROUPS.format(seed=number), tmp_path) as process:
            assert process.stdout is not None
            started = [process.stdout.readline()]
            time.sleep(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            started += process.stdout.readlines()
        store = open_store(tmp_path / "store")
        assert store.dropped == 0
        for start in filter(None, started):
            keys = texts_keys(int(start), int(start) + 20)
            np.testing.assert_array_equal(store.read(keys), values_of(keys))


def test_segments_deleted_under_a_reader_are_missing_and_can_be_added_again(tmp_path: Path) -> None:
    keys = texts_keys(0, 12)
    writer = open_store(tmp_path)
    for start in (0, 4, 8):
        writer.add(keys[start : start + 4], values_of(keys[start : start + 4]))
    store = open_store(tmp_path)
    record = {path: np.load(path)["key"][0] for path in segments(tmp_path)}
    path = next(path for path, held in record.items() if (held == keys[4:8]).all())
    path.unlink()

    assert check_read(store, keys, values_of(keys)).tolist() == [4, 5, 6, 7]
    store.add(keys[4:8], values_of(keys[4:8]))
    np.testing.assert_array_equal(store.read(keys), values_of(keys))
    prune(tmp_path, 0, np.inf)
    assert not store.folder.exists()
    assert check_read(store, keys, values_of(keys)).tolist() == [*range(12)]
    assert store.dropped == 0
    store.add(keys, values_of(keys))
    np.testing.assert_array_equal(open_store(tmp_path).read(keys), values_of(keys))
    assert len(usage(tmp_path)) == 1  # recognised again


def test_what_another_process_mended_is_found_under_its_new_name(tmp_path: Path) -> None:
    keys = texts_keys(0, 4)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))
    (path,) = segments(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert check_read(open_store(tmp_path), keys, values_of(keys)).tolist() == [3]

    assert check_read(store, keys, values_of(keys)).tolist() == [3]
    assert store.dropped == 0  # the other one reported it


# Places that cannot be used


def check_message(store: Store, keys: Keys, system: str) -> None:
    message = rf"the store of vectors in {store.folder.parent} cannot be used .*{system}.*"
    with pytest.raises(PipelineError, match=message + r"\$PIPELINE_CACHE"):
        store.add(keys, values_of(keys))


@pytest.mark.parametrize("place", ["store", "folder above"])
def test_a_file_in_the_place_of_the_store_is_one_message(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("mine")
    root = tmp_path / "file" if place == "store" else tmp_path / "file" / "store"
    with pytest.raises(PipelineError, match=r"cannot be used .*Not a directory.*PIPELINE_CACHE"):
        open_store(root)
    with pytest.raises(PipelineError, match=r"cannot be used .*Not a directory.*PIPELINE_CACHE"):
        usage(root)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_in_the_place_of_a_namespace_is_one_message(tmp_path: Path) -> None:
    folder = open_store(tmp_path).folder
    store = open_store(tmp_path)
    folder.write_text("mine")
    check_message(store, texts_keys(0, 4), "File exists|Not a directory")
    with pytest.raises(PipelineError, match="cannot be used"):
        open_store(tmp_path)
    assert usage(tmp_path) == []


def test_a_store_that_may_not_be_written_is_named_and_can_be_read(tmp_path: Path) -> None:
    keys = texts_keys(0, 4)
    with small_disk(tmp_path / "disk", megabytes=1):
        open_store(tmp_path / "disk").add(keys, values_of(keys))
        remount = ["mount", "-o", "remount,ro", str(tmp_path / "disk")]
        subprocess.run(remount, check=True, capture_output=True)
        store = open_store(tmp_path / "disk")
        np.testing.assert_array_equal(store.read(keys), values_of(keys))
        check_message(store, texts_keys(4, 8), "Read-only file system")
        with pytest.raises(PipelineError, match=r"Read-only file system.*PIPELINE_CACHE"):
            prune(tmp_path / "disk", 0, np.inf)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_store_of_another_user_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = texts_keys(0, 8)
    open_store(tmp_path / "store").add(keys[:4], values_of(keys[:4]))
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    check_read(open_store(Path("store")), keys, values_of(keys))  # imports all that is needed
    os.seteuid(65_534)
    try:
        store = open_store(Path("store"))
        assert check_read(store, keys, values_of(keys)).tolist() == [4, 5, 6, 7]
        check_message(store, keys, "Permission denied")
    finally:
        os.seteuid(0)


def test_a_full_disk_is_one_message_and_leaves_the_store_as_it_was(tmp_path: Path) -> None:
    keys = texts_keys(0, 800)
    with small_disk(tmp_path / "disk", megabytes=1):
        store = open_store(tmp_path / "disk")
        store.add(keys[:4], values_of(keys[:4], 500))
        before = tree(tmp_path)
        message = r"the store of vectors in .*No space left on device.*Free some.*PIPELINE_CACHE"
        with pytest.raises(PipelineError, match=message):
            store.add(keys, np.repeat(values_of(keys), 500, axis=1)[:, :500])
        assert tree(tmp_path) == before | {"disk/.lock": b""}
        assert store.holds(keys).sum() == 4


@pytest.mark.parametrize("missing", ["all but 1 kB", "the last byte"])
def test_a_file_over_the_size_limit_leaves_the_store_as_it_was(
    tmp_path: Path, missing: str
) -> None:
    keys = texts_keys(0, 300)
    open_store(tmp_path / "size").add(keys, values_of(keys))
    store = open_store(tmp_path / "store")
    store.add(keys[:4], values_of(keys[:4]))
    before = tree(tmp_path)
    limit = 1_024
    if missing == "the last byte":
        limit = segments(tmp_path / "size")[0].stat().st_size - 1
    with file_limit(limit), pytest.raises(OSError, match="File too large"):
        open_store(tmp_path / "store").add(keys, values_of(keys))
    assert tree(tmp_path) == before


# Upkeep


def fill(root: Path, rng: np.random.Generator) -> dict[Path, tuple[int, float]]:
    """Store segments in three namespaces; return size and time of use of each file."""
    for name in ("a", "b", "c"):
        store = open_store(root, weights=name)
        for _ in range(int(rng.integers(1, 6))):
            start = int(rng.integers(1_000_000))
            keys = texts_keys(start, start + int(rng.integers(1, 40)))
            store.add(keys, values_of(keys))
    files = {}
    for path in segments(root):
        used = float(rng.integers(1_000_000, 1_000_030))
        os.utime(path, (used, used))
        files[path] = (path.stat().st_size, used)
    return files


def test_prune_deletes_what_was_unused_for_longest_and_nothing_used_since(tmp_path: Path) -> None:
    for seed in range(30):
        check_prune(tmp_path / str(seed), np.random.default_rng(seed))


def check_prune(root: Path, rng: np.random.Generator) -> None:
    files = fill(root, rng)
    total = sum(size for size, _ in files.values())
    limit = float(rng.choice([0, total, rng.uniform(0, total)]))
    since = float(rng.choice([0.0, np.inf, float(rng.integers(1_000_000, 1_000_030))]))
    before = tree(root)

    would = prune(root, limit, since, delete=False)
    assert tree(root) == before
    freed = prune(root, limit, since)

    assert freed == would
    left = {path: files[path] for path in segments(root)}
    gone = {path: files[path] for path in files.keys() - left.keys()}
    kept_size = sum(size for size, _ in left.values())
    assert (freed.segments, freed.size) == (len(gone), total - kept_size)
    assert all(used < since - 2 for _, used in gone.values())  # the coarsest clock of a disk
    oldest_first = sorted(files, key=lambda path: (files[path][1], path))
    assert set(oldest_first[: len(gone)]) == gone.keys()
    if left:
        _, used = files[oldest_first[len(gone)]]
        assert kept_size <= limit or used >= since - 2
    if gone:
        last_size, _ = files[oldest_first[len(gone) - 1]]
        assert kept_size + last_size > limit  # no more than was needed
    folders = {path.parent for path in left}
    assert {path.parent for path in root.glob("*/about.json")} == folders
    assert {path for path in root.iterdir() if path.is_dir()} == folders


def test_reading_counts_as_use_and_being_held_does_not(tmp_path: Path) -> None:
    keys = texts_keys(0, 12)
    store = open_store(tmp_path)
    for start in (0, 4, 8):
        store.add(keys[start : start + 4], values_of(keys[start : start + 4]))
    for path in segments(tmp_path):
        os.utime(path, (1_000, 1_000))
    store = open_store(tmp_path)
    started = time.time()
    store.holds(keys)
    store.read(keys[5:7])

    prune(tmp_path, 0, started)
    assert open_store(tmp_path).holds(keys).tolist() == [*[False] * 4, *[True] * 4, *[False] * 4]


def test_usage_returns_identity_entries_size_and_last_use(tmp_path: Path) -> None:
    files = fill(tmp_path, np.random.default_rng(0))
    found = usage(tmp_path)
    assert sorted(one.identity["weights"] for one in found) == ["a", "b", "c"]
    assert sorted(found, key=lambda one: -one.used) == found
    for one in found:
        own = {path: files[path] for path in files if path.parent == one.folder}
        assert one.size == sum(size for size, _ in own.values())
        assert one.used == max(used for _, used in own.values())
        assert one.entries == sum(np.load(path)["key"].shape[1] for path in own)
    assert usage(tmp_path / "nowhere") == []


def test_upkeep_touches_nothing_but_namespaces(tmp_path: Path) -> None:
    fill(tmp_path, np.random.default_rng(0))
    (path, *_) = segments(tmp_path)
    for folder in ("0123456789abcdef", "notes", path.parent.name + "0"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / path.name).write_bytes(path.read_bytes())
        (tmp_path / folder / "about.json").write_text('{"engine": "mine"}')
    (tmp_path / "file").write_text("mine")
    (path.parent / "mine.npy").write_text("mine")
    (path.parent / "mine.partial").write_text("mine")
    namespaces = {open_store(tmp_path, weights=name).folder for name in ("a", "b", "c")}
    assert {one.folder for one in usage(tmp_path)} == namespaces
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ours = {one for folder in namespaces for one in folder.glob("*x3.npy")}
    abouts = {folder / "about.json" for folder in namespaces - {path.parent}}

    prune(tmp_path, 0, np.inf)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == {
        path: content for path, content in before.items() if path not in ours | abouts
    } | {tmp_path / ".lock": b""}


def test_what_a_killed_process_left_is_removed_and_what_is_being_written_is_not(
    tmp_path: Path,
) -> None:
    keys = texts_keys(0, 4)
    store = open_store(tmp_path)
    store.add(keys, values_of(keys))
    (path,) = segments(tmp_path)
    old, new = (path.with_name(f".{path.name}.{pid}.partial") for pid in (1, 2))
    for path in (old, new):
        path.write_text("half")
    os.utime(old, (1_000, 1_000))

    prune(tmp_path, np.inf, 0)
    assert not old.exists()
    assert new.exists()
    prune(tmp_path, 0, np.inf)
    assert new.exists()
    assert store.folder.exists()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of a cache of its own, for this process and those it starts."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    return layout.store()


def test_upkeep_with_nothing_to_do_writes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path, {"a": 1}, "float32")
    store.add(keys_of(["x"]), np.ones((1, 2), np.float32))
    (tmp_path / ".lock").unlink()
    before = sorted(tmp_path.rglob("*"))
    assert prune(tmp_path, 10**9, time.time()) == Freed(0, 0, 0)
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_planned_to_be_read_counts_as_used(tmp_path: Path) -> None:
    for text in "ab":
        Store(tmp_path, {"a": 1}, "float32").add(keys_of([text]), np.ones((1, 2), np.float32))
    for path in tmp_path.rglob("*.npy"):
        os.utime(path, (1, 1))
    store = Store(tmp_path, {"a": 1}, "float32")
    store.use(keys_of(["b", "not held"]))
    prune(tmp_path, 0, time.time() - 1_000)
    assert Store(tmp_path, {"a": 1}, "float32").holds(keys_of("ab")).tolist() == [False, True]


def test_only_the_first_of_those_that_fill_at_once_knows_it(tmp_path: Path) -> None:
    first, second, other = (Store(tmp_path, {"a": of}, "float32") for of in (1, 1, 2))
    with first.filling() as alone, second.filling() as also, other.filling() as elsewhere:
        assert (alone, also, elsewhere) == (True, False, True)
    with second.filling() as alone:
        assert alone


@pytest.mark.slow
def test_the_command_shows_what_it_would_free_and_frees_it_with_yes(
    cache: Path, run_stage: RunStage
) -> None:
    fill(cache, np.random.default_rng(0))
    before = tree(cache)
    size, entries = (
        sum(getattr(one, what) for one in usage(cache)) for what in ("size", "entries")
    )

    shown = run_stage("store")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert shown.stdout.startswith(f"{cache}\nnamespace ")
    for one in usage(cache):
        (line,) = [line for line in shown.stdout.splitlines() if line.startswith(one.folder.name)]
        for word in ("torch-cpu", "float32", '"query: "', one.identity["weights"], "1970-01-12"):
            assert word in line
        assert f" {one.entries:,} " in line
    assert re.search(rf"^total +{entries} +{size / 1000:.1f} kB$", shown.stdout, re.MULTILINE)

    would = run_stage("store", "--keep", "0")
    assert would.returncode == 0
    free = f"free {size / 1000:.1f} kB: {entries} entries in {len(segments(cache))} files"
    assert f"would {free}; --yes frees it\n" in would.stdout
    assert tree(cache) == before

    freed = run_stage("store", "--keep", "0", "--yes")
    assert freed.returncode == 0
    assert free.replace("free", "freed", 1) in freed.stdout
    assert tree(cache) == {".lock": b""}
    assert "would free 0 B: 0 entries" in run_stage("store", "--keep", "0").stdout


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return what runs the command in this process, and returns what it prints."""

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["store", *arguments])
        assert main() == 0
        return capsys.readouterr().out

    return run


def test_the_command_frees_what_was_unused_for_so_many_days(cache: Path, command: Command) -> None:
    keys = texts_keys(0, 12)
    store = open_store(cache)
    for days, start in ((1, 0), (3, 4), (5, 8)):
        before = set(segments(cache))
        store.add(keys[start : start + 4], values_of(keys[start : start + 4]))
        (path,) = set(segments(cache)) - before
        used = time.time() - days * 86_400
        os.utime(path, (used, used))

    assert "would free" in command("--unused-for", "2")
    command("--unused-for", "2", "--keep", "1", "--yes")
    assert open_store(cache).holds(keys).all()  # within the limit, nothing goes
    command("--unused-for", "4", "--yes")
    assert open_store(cache).holds(keys).tolist() == [True] * 8 + [False] * 4
    command("--unused-for", "2", "--keep", "0", "--yes")
    assert open_store(cache).holds(keys).tolist() == [True] * 4 + [False] * 8


def test_the_command_makes_nothing_where_nothing_is(cache: Path, command: Command) -> None:
    assert "freed 0 B" in command("--keep", "0", "--yes")
    assert not cache.parent.exists()


def test_the_command_refuses_wrong_arguments_and_deletes_nothing(
    cache: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(cache, np.random.default_rng(0))
    before = tree(cache)
    for arguments, message in (
        (("--yes",), "--yes needs --keep or --unused-for (with make: KEEP=GB)"),
        (("--keep", "-1"), "-1 is not a number from 0 up"),
        (("--keep", "nan"), "nan is not a number from 0 up"),
        (("--unused-for", "some"), "some is not a number from 0 up"),
    ):
        with pytest.raises(SystemExit, match="2"):
            command(*arguments)
        printed = capsys.readouterr()
        assert (printed.out, message in printed.err) == ("", True)
    assert tree(cache) == before


@pytest.mark.slow
def test_a_place_that_cannot_be_used_is_one_message_of_the_command(
    cache: Path, run_stage: RunStage
) -> None:
    cache.parent.mkdir()
    cache.write_text("mine")
    result = run_stage("store")
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error in store: the store of vectors in {cache} cannot be used")
    assert "$PIPELINE_CACHE" in line


@pytest.mark.parametrize("seconds", [1e15, -1e15, 1e300, math.inf, math.nan])
def test_a_date_that_no_calendar_has_is_shown_as_unknown(seconds: float) -> None:
    assert _minute(seconds) == "unknown"
