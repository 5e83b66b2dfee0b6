"""Damaged vectors on disk: readers return the same numbers or give one message."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

TRIES = 300

Harm = Callable[[Path, np.random.Generator], None]


@pytest.fixture
def vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Matrix, Matrix]:
    """Vectors of products and queries, written to a folder of their own in shards of 40."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 100, 20)
    products, queries = random_vectors(rng, 100, 6), random_vectors(rng, 20, 6)
    write_embeddings(params(), products, queries, shard_rows=40)
    return products, queries


def read() -> tuple[Matrix, Matrix]:
    """Read all vectors as `retrieve` does."""
    manifest = read_manifest(params(), LOCALE)
    clean = layout.clean(LOCALE)
    queries = tables.read_column(clean.queries, tables.QUERIES, "query_id", "")
    products = tables.read_column(clean.products, tables.PRODUCTS, "product_id", "")
    check_ids(manifest, "queries", queries, LOCALE)
    check_ids(manifest, "products", products, LOCALE)
    return read_vectors(manifest, "products", LOCALE), read_vectors(manifest, "queries", LOCALE)


def flip(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    for at in rng.integers(len(content), size=rng.integers(1, 4)):
        content[at] ^= 1 << int(rng.integers(8))
    path.write_bytes(content)


def cut(path: Path, rng: np.random.Generator) -> None:
    os.truncate(path, int(rng.integers(path.stat().st_size)))


def lengthen(path: Path, rng: np.random.Generator) -> None:
    path.write_bytes(path.read_bytes() + rng.bytes(int(rng.integers(1, 50))))


def insert(path: Path, rng: np.random.Generator) -> None:
    content = path.read_bytes()
    at = rng.integers(len(content))
    path.write_bytes(content[:at] + rng.bytes(int(rng.integers(1, 5))) + content[at:])


def zero(path: Path, rng: np.random.Generator) -> None:
    content = bytearray(path.read_bytes())
    start, stop = sorted(rng.integers(len(content) + 1, size=2))
    content[start:stop] = bytes(stop - start)
    path.write_bytes(content)


def swap(path: Path, rng: np.random.Generator) -> None:
    others = sorted(one for one in path.parent.iterdir() if one != path)
    other = others[rng.integers(len(others))]
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


def remove(path: Path, _: np.random.Generator) -> None:
    path.unlink()


def to_folder(path: Path, _: np.random.Generator) -> None:
    path.unlink()
    path.mkdir()


def to_circle(path: Path, _: np.random.Generator) -> None:
    path.unlink()
    path.symlink_to(path.name)


HARMS: list[Harm] = [flip, cut, lengthen, insert, zero, swap, remove, to_folder, to_circle]


def check_same_or_one_message(vectors: tuple[Matrix, Matrix], what: str) -> None:
    """Read all vectors; `what` names the damage where the check fails."""
    message, found = "", vectors
    try:
        found = read()
    except PipelineError as err:
        message = str(err)
    except Exception as err:
        raise AssertionError(what) from err
    for one, other in zip(found, vectors, strict=True):
        np.testing.assert_array_equal(one, other, what)
    if message:
        assert len(message.splitlines()) == 1, (what, message)
        assert str(layout.EMBEDDINGS / LOCALE) in message, (what, message)
        assert f"Run `dvc repro embed@{LOCALE}`." in message, (what, message)


def test_damaged_files_give_the_same_vectors_or_one_message(
    vectors: tuple[Matrix, Matrix], tmp_path: Path
) -> None:
    folder = layout.embeddings(LOCALE).folder
    shutil.copytree(folder, tmp_path / "whole")
    for seed in range(TRIES):
        rng = np.random.default_rng(seed)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "whole", folder)
        path = folder / rng.choice(sorted(one.name for one in folder.iterdir()))
        harm = HARMS[rng.integers(len(HARMS))]
        harm(path, rng)
        check_same_or_one_message(vectors, f"seed {seed}: {harm.__name__} {path.name}")


STRANGE = [
    "NaN", "Infinity", "-Infinity", "1e400", "-1", "0", "1.5", "1e3", "9" * 30, "9" * 5_000, "null",
    "true", '""', '"\\ud800"', '"a\\u0000"', f'"{"a" * 300}"', "[]", "{}", "[[]]",
    "[" * 100_000 + "]" * 100_000, '{"a":' * 10_000 + "1" + "}" * 10_000, "2020-01-01", "{", "",
]  # fmt: skip
"""What may replace a value of the manifest: JSON, and text that is not JSON."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value in a JSON document."""
    yield path
    if isinstance(value, dict):
        inside = list(value.items())
    else:
        inside = list(enumerate(value if isinstance(value, list) else ()))
    for key, one in inside:
        yield from places(one, (*path, key))


def test_any_other_value_in_the_manifest_gives_the_same_vectors_or_one_message(
    vectors: tuple[Matrix, Matrix],
) -> None:
    path = layout.embeddings(LOCALE).manifest
    whole = path.read_text()
    for number, place in enumerate(places(json.loads(whole))):
        for strange in STRANGE[number % 4 :: 4]:
            data = {"": json.loads(whole)}
            *parents, key = ("", *place)
            section: Any = data
            for parent in parents:
                section = section[parent]
            section[key] = "HERE"
            path.write_text(json.dumps(data[""]).replace('"HERE"', strange))
            check_same_or_one_message(vectors, f"{place}: {strange[:20]}")
