"""A damaged store: what is read is right, and what cannot be used is one message."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bench import damage
from pipeline.store.namespace import ABOUT, namespace_name
from pipeline.store.store import Missing, Store, keys_of
from pipeline.store.upkeep import prune, usage
from tests.helpers.damage import message_of, to_circle, to_folder, to_pipe

TRIES = 100

Harm = Callable[[np.random.Generator, Path], None]
KEYS = keys_of(f"text {number}" for number in range(12))
VALUES = np.random.default_rng(0).standard_normal((12, 3), dtype=np.float32)


def open_store(root: Path) -> Store:
    return Store(root, {"engine": "torch-cpu", "prefix": "query: "}, "float32")


def read_again(root: Path) -> None:
    """Open, look through, read, add what is missing and read that, as runs of embed do."""
    usage(root)
    prune(root, np.inf, 0)
    store = open_store(root)
    store.use(KEYS)
    held = store.holds(KEYS)
    lacking = set(np.flatnonzero(~held).tolist())
    try:
        found = store.read(KEYS[held])
    except Missing as err:
        lacking |= set(np.flatnonzero(held)[err.rows].tolist())
    else:
        np.testing.assert_array_equal(found, VALUES[held] if held.any() else found)
    with store.filling():
        rows = sorted(lacking)
        store.add(KEYS[rows], VALUES[rows])
    np.testing.assert_array_equal(store.read(KEYS), VALUES)


def test_a_damaged_store_gives_the_same_vectors_or_one_message(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    for start in (0, 4, 8):
        open_store(whole).add(KEYS[start : start + 4], VALUES[start : start + 4])
    (folder,) = (path for path in whole.iterdir() if path.is_dir())
    names = sorted(path.name for path in folder.iterdir())
    harms: list[Harm] = [
        damage.flip_bits, damage.cut, damage.splice, damage.misplace,
        lambda _, path: to_pipe(path),
    ]  # fmt: skip
    for seed in range(TRIES):
        rng = np.random.default_rng(seed)
        root = tmp_path / str(seed)
        shutil.copytree(whole, root)
        harm, name = harms[rng.integers(len(harms))], names[rng.integers(len(names))]
        path = root / folder.name / name
        harm(rng, path)
        what, is_folder = f"seed {seed}: {harm.__name__} {name}", path.is_dir()
        if message := message_of(partial(read_again, root), what):
            assert is_folder or harm is damage.misplace, what  # all else mends itself
            assert str(root) in message, what


@pytest.mark.parametrize("harm", [to_folder, to_circle])
@pytest.mark.parametrize("name", [".lock", ".{}.filling", "{}", "."])
def test_a_folder_or_a_circle_in_the_place_of_a_lock_or_folder_is_one_message(
    tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    root = tmp_path / "store"
    if name != ".":
        root.mkdir()
    path = root / name.format(open_store(root).folder.name)
    path.touch()
    harm(path)
    message = message_of(partial(read_again, root), f"{harm.__name__} {name}")
    if harm is to_folder and name in ("{}", "."):  # where a folder belongs
        assert message == ""
    else:
        assert f"the store of vectors in {root} cannot be used" in message


def test_a_name_that_is_too_long_is_one_message(tmp_path: Path) -> None:
    root = tmp_path / ("a" * 300)
    assert "File name too long" in message_of(partial(read_again, root), "long name")


def test_folders_that_look_like_namespaces_are_ignored(tmp_path: Path) -> None:
    for content in (b"", b"[1]", b"NaN", b"{", b"[" * 100_000, b"\xff"):
        folder = tmp_path / namespace_name(content)
        folder.mkdir()
        (folder / ABOUT).write_bytes(content)
    (tmp_path / namespace_name(b"{}")).mkdir()
    assert usage(tmp_path) == []
