"""Shards and manifest: rows in order, every kind of damage found and told."""

import errno
import json
import math
import resource
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Embed, Encoder
from pipeline.vectors.lengths import apply_contract, at_unit_length
from pipeline.vectors.manifest import (
    Manifest,
    Shard,
    SideCut,
    check_ids,
    contract_of,
    read_manifest,
)
from pipeline.vectors.shards import ShardReader, ShardWriter, read_vectors, shard_bounds
from tests.helpers.artefacts import (
    LOCALE,
    nothing_cut,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
)


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Two and a half shards of products, one of queries, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    return write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))


@pytest.mark.parametrize("seed", range(50))
def test_shard_bounds_cover_every_row_once_in_order_and_only_the_last_is_short(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, shard_rows = int(rng.integers(0, 5000)), int(rng.integers(1, 700))
    bounds = list(shard_bounds(rows, shard_rows))
    assert [row for start, stop in bounds for row in range(start, stop)] == list(range(rows))
    assert all(stop - start == shard_rows for start, stop in bounds[:-1])
    assert all(stop > start for start, stop in bounds)


def test_shards_read_back_as_they_were_written_whole_and_by_rows(
    manifest: Manifest,
) -> None:
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    expected = random_vectors(rng, 250)
    np.testing.assert_array_equal(read_vectors(manifest, "products", LOCALE), expected)
    stored = ShardReader(manifest, "products", LOCALE)
    shards = list(stored)
    assert [len(shard) for shard in shards] == [100, 100, 50]
    np.testing.assert_array_equal(np.concatenate(shards), expected)
    for size in (0, 1, 17, 250):
        rows = np.sort(rng.choice(250, size, replace=False))
        part = stored.take(rows)
        np.testing.assert_array_equal(part, expected[rows])


def test_shard_names_sort_as_their_rows_do(manifest: Manifest) -> None:
    names = [shard.file for shard in manifest.products.shards]
    assert names == sorted(names) == [f"products-{i:05d}.npy" for i in range(3)]


def test_the_manifest_on_disk_reads_back_equal(manifest: Manifest) -> None:
    assert read_manifest(params(), LOCALE) == manifest


def test_ids_in_another_order_are_refused_with_both_hashes(manifest: Manifest) -> None:
    ids = pa.chunked_array([[f"B{i:07d}" for i in range(250)]])
    with pytest.raises(PipelineError, match=r"250 rows with ids \w+, but .*dvc repro") as told:
        check_ids(manifest, "products", ids, LOCALE)
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
    manifest: Manifest, damage: "object", told: str
) -> None:
    path = layout.embeddings(LOCALE).folder / "products-00001.npy"
    damage(path)  # type: ignore[operator]
    with pytest.raises(PipelineError, match=told) as error:
        read_vectors(manifest, "products", LOCALE)
    assert "products-00001.npy" in str(error.value)
    assert f"dvc repro embed@{LOCALE}" in str(error.value)


def test_a_shard_that_is_not_finite_is_refused_even_if_the_manifest_vouches_for_it(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).folder / "products-00001.npy"
    array = np.load(path)
    array[7, 3] = np.nan
    np.save(path, array)
    data = json.loads((path.parent / "manifest.json").read_text())
    data["products"]["shards"][1]["sha256"] = sha256_file(path)
    (path.parent / "manifest.json").write_text(json.dumps(data))
    with pytest.raises(PipelineError, match="row 7 is not finite"):
        read_vectors(read_manifest(params(), LOCALE), "products", LOCALE)


@pytest.mark.parametrize("key", ["dimension", "contract", "products"])
def test_a_manifest_without_a_key_is_refused(manifest: Manifest, key: str) -> None:
    path = layout.embeddings(LOCALE).manifest
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(PipelineError, match=f"manifest.json: {key}: .*dvc repro"):
        read_manifest(params(), LOCALE)


def test_a_manifest_whose_shards_do_not_add_up_is_refused(manifest: Manifest) -> None:
    path = layout.embeddings(LOCALE).manifest
    data = json.loads(path.read_text())
    data["products"]["shards"].pop()
    path.write_text(json.dumps(data))
    with pytest.raises(PipelineError, match="the shards hold 200 rows, not 250"):
        read_manifest(params(), LOCALE)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"encoder.es": "minilm"}, "encoder must be 'minilm' .found 'e5-small-q4'."),
        (
            {"encoders.e5-small-q4.query_prefix": ""},
            "query_prefix must be '' .found 'query: '.",
        ),
        ({"encoders.e5-small-q4.max_tokens": 128}, "max_tokens must be 128 .found 256."),
    ],
)
def test_vectors_of_another_encoder_than_params_say_are_refused(
    manifest: Manifest, change: dict[str, object], told: str
) -> None:
    with pytest.raises(PipelineError, match=f"{told}: the vectors are of another encoder"):
        read_manifest(params(change), LOCALE)


def test_the_contract_of_a_local_model_does_not_tell_where_it_lay() -> None:
    weights = {"kind": "folder", "path": "/somewhere/on/this/machine"}
    there = params({"encoders.e5-small-q4.weights": weights}).encoder_of(LOCALE)
    assert "somewhere" not in json.dumps(contract_of(there))


def test_a_manifest_of_another_version_is_refused_with_both_versions(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).manifest
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest_schema": 0}))
    with pytest.raises(PipelineError, match=r"manifest_schema must be 2 .found 0."):
        read_manifest(params(), LOCALE)


@pytest.mark.parametrize("engine", ["openvino", "openvino-", "OpenVINO-cpu", "torch-cuda:0", ""])
def test_a_manifest_whose_engine_names_no_device_is_refused(
    manifest: Manifest, engine: str
) -> None:
    path = layout.embeddings(LOCALE).manifest
    path.write_text(json.dumps(json.loads(path.read_text()) | {"engine": engine}))
    with pytest.raises(PipelineError, match=r"manifest.json: engine: .*dvc repro"):
        read_manifest(params(), LOCALE)


# What was cut off


def random_cut(rng: np.random.Generator) -> dict[str, Any]:
    """Return what may be told of random texts whose fields lost random tokens."""
    texts, fields = int(rng.integers(1, 50)), int(rng.integers(1, 6))
    lost = rng.integers(0, 9, size=(texts, fields)) * (rng.random((texts, fields)) < 0.2)
    return {
        "texts": texts,
        "texts_cut": int(lost.any(axis=1).sum()),
        "tokens": int(lost.sum() + rng.integers(1, 300)),
        "tokens_cut": int(lost.sum()),
        "fields": {
            f"field_{number}": {"texts_cut": int((of > 0).sum()), "tokens_cut": int(of.sum())}
            for number, of in enumerate(lost.T)
        },
    }


@pytest.mark.parametrize("seed", range(50))
def test_counts_of_random_cut_texts_fit_and_read_back(seed: int) -> None:
    told = random_cut(np.random.default_rng(seed))
    found = SideCut.model_validate_json(json.dumps(told))
    assert found.model_dump(mode="json") == told


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"texts_cut": 11}, "12 tokens were cut off 11 texts|11 of 10 texts"),
        ({"texts": 2}, "3 of 2 texts"),
        ({"tokens": 11}, "12 of 11 tokens"),
        ({"texts_cut": 0}, "12 tokens were cut off 0 texts"),
        ({"tokens_cut": 2}, "2 tokens were cut off 3 texts"),
        ({"tokens_cut": 13}, "the fields lost 12 tokens, the texts 13"),
        ({"fields": {"a": {"texts_cut": 3, "tokens_cut": 11}}}, "lost 11 tokens, the texts 12"),
        ({"fields": {"a": {"texts_cut": 0, "tokens_cut": 12}}}, "12 tokens were cut off 0 texts"),
        ({"fields": {"a": {"texts_cut": 13, "tokens_cut": 12}}}, "cut off 13 texts"),
        ({"fields": {}}, "at least 1"),
        ({"texts": -1}, "greater than or equal to 0"),
        ({"tokens": 40.5}, "valid integer"),
        ({"rest": 1}, "not permitted"),
    ],
)
def test_counts_of_cut_texts_that_cannot_be_are_refused(
    change: dict[str, object], told: str
) -> None:
    fields = {"a": {"texts_cut": 3, "tokens_cut": 8}, "b": {"texts_cut": 1, "tokens_cut": 4}}
    good = {"texts": 10, "texts_cut": 3, "tokens": 40, "tokens_cut": 12, "fields": fields}
    SideCut.model_validate_json(json.dumps(good))
    with pytest.raises(ValidationError, match=told):
        SideCut.model_validate_json(json.dumps(good | change))


def test_a_manifest_that_tells_of_more_or_fewer_texts_than_rows_is_refused(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).manifest
    data = json.loads(path.read_text())
    data["truncation"]["queries"] = nothing_cut(21, ["query"]).model_dump(mode="json")
    path.write_text(json.dumps(data))
    told = r"manifest.json: \(top level\): .*truncation tells of 21 queries, but there are 20"
    with pytest.raises(PipelineError, match=told):
        read_manifest(params(), LOCALE)


# Writing shards


def embed_settings(shard_rows: int, dtype: str = "float32") -> Embed:
    return Embed.model_validate({"dtype": dtype, "shard_rows": shard_rows})


def random_pieces(rng: np.random.Generator, matrix: Matrix) -> Iterator[Matrix]:
    """Yield the rows of a matrix in order, in pieces of random sizes, some of them empty."""
    start = 0
    while start < len(matrix):
        stop = start + int(rng.integers(0, rng.integers(1, len(matrix) + 1) + 1))
        yield matrix[start:stop]
        start = stop


def write(writer: ShardWriter, *pieces: Matrix) -> tuple[Shard, ...]:
    for piece in pieces:
        writer.add(piece)
    return writer.finish()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("seed", range(20))
def test_shards_are_the_files_that_numpy_writes_however_the_rows_come(
    tmp_path: Path, seed: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    rows, dimension, shard_rows = (int(rng.integers(*at)) for at in [(0, 400), (1, 70), (1, 150)])
    matrix = random_vectors(rng, rows, dimension)
    if seed % 2:  # the order in memory must not matter either
        matrix = np.asfortranarray(matrix)

    writer = ShardWriter(tmp_path, "queries", rows, dimension, embed_settings(shard_rows, dtype))
    shards = write(writer, *random_pieces(rng, matrix))

    bounds = list(shard_bounds(rows, shard_rows))
    assert [shard.file for shard in shards] == [
        f"queries-{at:05d}.npy" for at in range(len(bounds))
    ]
    assert {path.name for path in tmp_path.iterdir()} == {shard.file for shard in shards}
    for shard, (start, stop) in zip(shards, bounds, strict=True):
        np.save(tmp_path / "expected.npy", np.ascontiguousarray(matrix[start:stop], dtype=dtype))
        path = tmp_path / shard.file
        assert path.read_bytes() == (tmp_path / "expected.npy").read_bytes()
        assert (shard.rows, shard.sha256) == (stop - start, sha256_file(path))


@pytest.mark.parametrize("rows", [0, 9, 11, 25])
def test_rows_that_do_not_add_up_are_a_bug_and_no_shards(tmp_path: Path, rows: int) -> None:
    writer = ShardWriter(tmp_path, "products", 10, 3, embed_settings(4))
    matrix = random_vectors(np.random.default_rng(0), rows, 3)
    with pytest.raises(ValueError, match=r"of 10 rows"):
        write(writer, matrix)


@pytest.mark.parametrize("shape", [(2, 4), (2, 2), (2,), (1, 2, 3)])
def test_rows_of_another_shape_are_a_bug_and_not_written(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    writer = ShardWriter(tmp_path, "products", 10, 3, embed_settings(4))
    with pytest.raises(ValueError, match="do not fit"):
        writer.add(np.ones(shape, dtype=np.float32))
    assert not list(tmp_path.iterdir())


def test_a_vector_too_large_for_float16_is_refused_not_stored_as_infinity(tmp_path: Path) -> None:
    writer = ShardWriter(tmp_path, "products", 3, 4, embed_settings(100, "float16"))
    with pytest.raises(PipelineError, match=r"row 0 is not finite as float16 .*1e\+06"):
        writer.add(np.full((3, 4), 1e6, dtype=np.float32))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("seed", range(5))
def test_a_vector_that_is_not_finite_is_named_by_its_file_and_row(
    tmp_path: Path, seed: int, value: float
) -> None:
    rng = np.random.default_rng(seed)
    matrix = random_vectors(rng, 100, 5)
    bad = int(rng.integers(100))
    matrix[bad, rng.integers(5)] = value
    shard_rows = int(rng.integers(1, 60))
    writer = ShardWriter(tmp_path, "products", 100, 5, embed_settings(shard_rows))
    shard, row = divmod(bad, shard_rows)
    told = rf"products-{shard:05d}.npy: row {row} is not finite as float32 "
    with pytest.raises(PipelineError, match=told):
        write(writer, *random_pieces(rng, matrix))


def test_a_writer_holds_about_one_piece_whatever_it_writes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    piece = random_vectors(rng, 500, 64)
    writer = ShardWriter(tmp_path, "products", 50_000, 64, embed_settings(20_000, "float16"))
    tracemalloc.start()
    try:
        write(writer, *[piece] * 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2 * piece.nbytes


@pytest.mark.parametrize("limit", [0, 100, 128, 5_000, -1])
def test_a_shard_that_does_not_fit_on_the_disk_is_the_systems_error(
    tmp_path: Path, limit: int
) -> None:
    matrix = random_vectors(np.random.default_rng(0), 1_000, 8)
    size = 128 + 300 * 8 * 4
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit if limit >= 0 else size + limit, hard))
    try:
        writer = ShardWriter(tmp_path, "products", 1_000, 8, embed_settings(300))
        with pytest.raises(OSError, match="File too large") as caught:
            write(writer, *np.array_split(matrix, 13))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(ValueError, match="of 1000 rows"):
        writer.finish()


# From a model's vectors to those of the encoder


def encoder(normalize: bool, dimension: int | None) -> Encoder:
    key = "encoders.e5-small-q4"
    changes = {f"{key}.normalize": normalize, f"{key}.dimension": dimension or "model"}
    return params(changes).encoder_of(LOCALE)


def name_of(row: int) -> str:
    return f"text {row}"


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("seed", range(30))
def test_a_finished_vector_does_not_depend_on_its_company_to_the_last_bit(
    seed: int, normalize: bool
) -> None:
    rng = np.random.default_rng(seed)
    dimension = int(rng.integers(1, 800))
    raw = random_vectors(rng, int(rng.integers(1, 400)), dimension)
    raw *= np.float32(10) ** rng.integers(-15, 16, size=(len(raw), 1)).astype(np.float32)
    entry = encoder(normalize, int(rng.integers(1, dimension + 1)) if seed % 3 else None)
    whole = apply_contract(raw, entry, name_of)

    parts = [apply_contract(part, entry, name_of) for part in random_pieces(rng, raw)]
    single = [apply_contract(raw[row : row + 1].copy(), entry, name_of) for row in range(len(raw))]
    order = rng.permutation(len(raw))
    others = np.asfortranarray(raw[order])

    assert whole.dtype == np.float32
    assert whole.flags.c_contiguous
    assert np.concatenate(parts).tobytes() == whole.tobytes()
    assert np.concatenate(single).tobytes() == whole.tobytes()
    assert apply_contract(others, entry, name_of).tobytes() == whole[order].tobytes()


@pytest.mark.parametrize("dimension", [None, 1, 7, 48])
@pytest.mark.parametrize("seed", range(5))
def test_a_finished_vector_is_the_leading_components_at_length_one(
    seed: int, dimension: int | None
) -> None:
    rng = np.random.default_rng(seed)
    raw = random_vectors(rng, 40)
    # Their squares are beyond what float32 holds, at either end.
    raw[::3] *= np.float32(1e30)
    raw[1::3] *= np.float32(1e-30)

    normalised = apply_contract(raw, encoder(True, dimension), name_of)
    cut = apply_contract(raw, encoder(False, dimension), name_of)

    expected = raw[:, :dimension]
    np.testing.assert_array_equal(cut, expected)
    for row, of in zip(normalised, expected.tolist(), strict=True):
        length = math.hypot(*of)
        np.testing.assert_allclose(row, [one / length for one in of], rtol=1.2e-7)


def test_a_vector_without_length_is_named_where_it_must_be_normalised() -> None:
    raw = random_vectors(np.random.default_rng(0), 20)
    raw[13, :8] = 0
    told = r"^text 13: its vector is zero and cannot be normalised; use .*normalize: false"
    with pytest.raises(PipelineError, match=told):
        apply_contract(raw, encoder(True, 8), name_of)
    assert apply_contract(raw, encoder(True, 9), name_of).shape == (20, 9)
    assert not apply_contract(raw, encoder(False, 8), name_of)[13].any()


@pytest.mark.parametrize("rows", [0, 5])
def test_a_dimension_beyond_the_models_is_refused_with_both(rows: int) -> None:
    raw = random_vectors(np.random.default_rng(0), rows, 48)
    assert apply_contract(raw, encoder(True, 48), name_of).shape == (rows, 48)
    with pytest.raises(PipelineError, match=r"is set to 49, but .* 48 components"):
        apply_contract(raw, encoder(True, 49), name_of)


def test_unit_vectors_have_length_one_and_zero_vectors_are_refused() -> None:
    matrix = random_vectors(np.random.default_rng(3), 30)
    norms = np.linalg.norm(at_unit_length(matrix, "x"), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)
    matrix[4] = 0
    with pytest.raises(PipelineError, match="es products: the vector of row 4 is zero"):
        at_unit_length(matrix, "es products")
