"""Damaged vectors on disk: readers return the same numbers or give one message."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench import damage
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings
from tests.helpers.damage import message_of

TRIES = 60

Harm = Callable[[np.random.Generator, Path], None]


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


FILES: list[Harm] = [damage.flip_bits, damage.cut, damage.splice, damage.misplace]
JSON: list[Harm] = [
    damage.break_json_value, damage.change_json_type, damage.change_json_keys,
]  # fmt: skip


@pytest.mark.parametrize(("harms", "pattern"), [(FILES, "*"), (JSON, "manifest.json")])
def test_damaged_files_give_the_same_vectors_or_one_message(
    vectors: tuple[Matrix, Matrix], tmp_path: Path, harms: list[Harm], pattern: str
) -> None:
    folder = layout.embeddings(LOCALE).folder
    shutil.copytree(folder, tmp_path / "whole")
    for seed in range(TRIES):
        rng = np.random.default_rng(seed)
        shutil.rmtree(folder)
        shutil.copytree(tmp_path / "whole", folder)
        paths = sorted(folder.glob(pattern))
        harm, path = harms[rng.integers(len(harms))], paths[rng.integers(len(paths))]
        harm(rng, path)
        check_same_or_one_message(vectors, f"seed {seed}: {harm.__name__} {path.name}")


def test_shards_in_each_others_place_are_one_message(vectors: tuple[Matrix, Matrix]) -> None:
    paths = sorted(layout.embeddings(LOCALE).folder.glob("*.npy"))
    contents = [path.read_bytes() for path in paths]
    for shift in range(1, len(paths)):
        for at, path in enumerate(paths):
            path.write_bytes(contents[(at + shift) % len(paths)])
        with pytest.raises(PipelineError, match=r"products-00000.npy must have"):
            read()
