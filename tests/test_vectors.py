"""Shards and manifest: rows in order, every kind of damage found and told."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import layout, vectors
from pipeline.errors import PipelineError
from pipeline.files import sha256_file
from tests.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vectors.Manifest:
    """Two and a half shards of products, one of queries, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    return write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))


@pytest.mark.parametrize("seed", range(50))
def test_shard_bounds_cover_every_row_once_in_order_and_only_the_last_is_short(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, shard_rows = int(rng.integers(0, 5000)), int(rng.integers(1, 700))
    bounds = list(vectors.shard_bounds(rows, shard_rows))
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(rows))
    assert all(stop - start == shard_rows for start, stop in bounds[:-1])
    assert all(stop > start for start, stop in bounds)


def test_shards_read_back_as_they_were_written_whole_and_by_rows(
    manifest: vectors.Manifest,
) -> None:
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    expected = random_vectors(rng, 250)
    np.testing.assert_array_equal(vectors.read_vectors(manifest, "products", LOCALE), expected)
    shards = list(vectors.iter_vectors(manifest, "products", LOCALE))
    assert [len(shard) for shard in shards] == [100, 100, 50]
    np.testing.assert_array_equal(np.concatenate(shards), expected)
    for size in (0, 1, 17, 250):
        rows = np.sort(rng.choice(250, size, replace=False))
        part = vectors.read_vectors(manifest, "products", LOCALE, rows)
        np.testing.assert_array_equal(part, expected[rows])


def test_shard_names_sort_as_their_rows_do(manifest: vectors.Manifest) -> None:
    names = [shard.file for shard in manifest.products.shards]
    assert names == sorted(names) == [f"products-{i:05d}.npy" for i in range(3)]


def test_the_manifest_on_disk_reads_back_equal(manifest: vectors.Manifest) -> None:
    assert vectors.read_manifest(params(), LOCALE) == manifest


def test_ids_in_another_order_are_refused_with_both_hashes(manifest: vectors.Manifest) -> None:
    ids = pa.chunked_array([[f"B{i:07d}" for i in range(250)]])
    with pytest.raises(PipelineError, match=r"250 rows with ids \w+, but .*dvc repro") as told:
        vectors.check_ids(manifest, "products", ids, LOCALE)
    assert manifest.products.ids_sha256[:12] in str(told.value)


def _damage_missing(path: Path) -> None:
    path.unlink()


def _damage_truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def _damage_one_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _damage_dimension(path: Path) -> None:
    np.save(path, np.load(path)[:, :-1])


def _damage_dtype(path: Path) -> None:
    np.save(path, np.load(path).astype(np.float64))


def _damage_pickle(path: Path) -> None:
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_damage_missing, "is missing"),
        (_damage_truncated, "truncated"),
        (_damage_empty, "truncated"),
        (_damage_one_bit, "the manifest says .* edited"),
        (_damage_dimension, r"holds float32 \[100, 47\], but the manifest says .*\[100, 48\]"),
        (_damage_dtype, "holds float64"),
        (_damage_pickle, "not .npy"),
    ],
)
def test_a_damaged_shard_is_named_with_its_remedy(
    manifest: vectors.Manifest, damage: "object", told: str
) -> None:
    path = layout.embeddings(LOCALE) / "products-00001.npy"
    damage(path)  # type: ignore[operator]
    with pytest.raises(PipelineError, match=told) as error:
        vectors.read_vectors(manifest, "products", LOCALE)
    assert "products-00001.npy" in str(error.value)
    assert f"dvc repro embed@{LOCALE}" in str(error.value)


def test_a_shard_that_is_not_finite_is_refused_even_if_the_manifest_vouches_for_it(
    manifest: vectors.Manifest,
) -> None:
    path = layout.embeddings(LOCALE) / "products-00001.npy"
    array = np.load(path)
    array[7, 3] = np.nan
    np.save(path, array)
    data = json.loads((path.parent / "manifest.json").read_text())
    data["products"]["shards"][1]["sha256"] = sha256_file(path)
    (path.parent / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(PipelineError, match="row 7 is not finite"):
        vectors.read_vectors(vectors.read_manifest(params(), LOCALE), "products", LOCALE)


@pytest.mark.parametrize("key", ["dimension", "contract", "products"])
def test_a_manifest_without_a_key_is_refused(manifest: vectors.Manifest, key: str) -> None:
    path = layout.embeddings(LOCALE) / "manifest.json"
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(PipelineError, match=f"manifest.json: {key}: .*dvc repro"):
        vectors.read_manifest(params(), LOCALE)


def test_a_manifest_whose_shards_do_not_add_up_is_refused(manifest: vectors.Manifest) -> None:
    path = layout.embeddings(LOCALE) / "manifest.json"
    data = json.loads(path.read_text())
    data["products"]["shards"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(PipelineError, match="the shards hold 200 rows, not 250"):
        vectors.read_manifest(params(), LOCALE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoder.es": "minilm"}, "encoder is 'e5-small-q4', but 'minilm' is expected"),
        (
            {"encoders.e5-small-q4.query_prefix": ""},
            "query_prefix is 'query: ', but '' is expected",
        ),
        ({"encoders.e5-small-q4.max_tokens": 128}, "max_tokens is 256, but 128 is expected"),
    ],
)
def test_vectors_of_another_encoder_than_params_say_are_refused(
    manifest: vectors.Manifest, change: dict[str, object], told: str
) -> None:
    with pytest.raises(PipelineError, match=f"{told}: the vectors are of another encoder"):
        vectors.read_manifest(params(change), LOCALE)


def test_the_contract_of_a_local_model_does_not_tell_where_it_lay() -> None:
    weights = {"kind": "folder", "path": "/somewhere/on/this/machine"}
    there = params({"encoders.e5-small-q4.weights": weights}).encoder_of(LOCALE)
    assert "somewhere" not in json.dumps(vectors.contract_of(there))


def test_a_manifest_of_another_version_is_refused_with_both_versions(
    manifest: vectors.Manifest,
) -> None:
    path = layout.embeddings(LOCALE) / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest_schema": 0}))
    with pytest.raises(PipelineError, match="has schema 0, but 1 is expected"):
        vectors.read_manifest(params(), LOCALE)


def test_a_vector_too_large_for_float16_is_refused_not_stored_as_infinity(tmp_path: Path) -> None:
    matrix = np.full((3, 4), 1e6, dtype=np.float32)
    with pytest.raises(PipelineError, match=r"row 0 is not finite as float16 .*1e\+06"):
        vectors.write_shard(tmp_path, "products", 0, matrix, "float16")
    assert not list(tmp_path.iterdir())


def test_unit_vectors_have_length_one_and_zero_vectors_are_refused() -> None:
    matrix = random_vectors(np.random.default_rng(3), 30)
    norms = np.linalg.norm(vectors.unit(matrix, "x"), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)
    matrix[4] = 0
    with pytest.raises(PipelineError, match="es products: the vector of row 4 is zero"):
        vectors.unit(matrix, "es products")
