"""Damaged vectors on disk: readers return the same numbers or give one message."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings
from tests.helpers.damage import HARMS, message_of

TRIES = 300


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


def check_same_or_one_message(vectors: tuple[Matrix, Matrix], what: str) -> None:
    """Read all vectors; `what` names the damage where the check fails."""

    def check() -> None:
        for found, expected in zip(read(), vectors, strict=True):
            np.testing.assert_array_equal(found, expected)

    if message := message_of(check, what):
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
