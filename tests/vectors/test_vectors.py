"""Shards and manifest: rows in order, every kind of damage found and named."""

import errno
import json
import math
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.core import layout
from pipeline.core.arrays import Matrix, blocks
from pipeline.core.contract import contract_of
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Embed, Encoder, Similarity
from pipeline.vectors.lengths import apply_contract, at_unit_length
from pipeline.vectors.manifest import (
    Manifest,
    Shard,
    SideCut,
    check_ids,
    read_manifest,
)
from pipeline.vectors.shards import ShardReader, ShardWriter, read_vectors
from tests.helpers.artefacts import (
    LOCALE,
    nothing_cut,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
)
from tests.helpers.damage import to_circle, to_folder, to_pipe
from tests.helpers.limits import file_limit


@pytest.fixture
def manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Two and a half shards of products, one of queries, in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    return write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))


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
    with pytest.raises(PipelineError, match=r"250 rows with ids \w+, but .*dvc repro") as error:
        check_ids(manifest, "products", ids, LOCALE)
    assert manifest.products.ids_sha256[:12] in str(error.value)


def flipped(path: Path, at: int = -1) -> None:
    """Flip a bit of the byte at a position."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


def nested_header(path: Path) -> None:
    """Write a header of many brackets, at the shard's own length."""
    length = path.stat().st_size
    path.write_bytes((b"\x93NUMPY\1\0\x28\x23" + b"(" * 9_000).ljust(length, b"\0"))


def long_header(path: Path) -> None:
    """Write a header that says that it has 100 MB, at the shard's own length."""
    length = path.stat().st_size
    path.write_bytes((b"\x93NUMPY\2\0" + (10**8).to_bytes(4, "little")).ljust(length, b" "))


def as_npz(path: Path) -> None:
    """Write the vectors as an archive, under the name of the shard."""
    with path.open("r+b") as handle:
        array = np.load(handle)
        handle.seek(0)
        np.savez(handle, array)


LENGTH = r"must have \d+ bytes, float32 \[100, 48\] as .npy .found \d+ bytes."
HASH = r"must have sha256 \w{12}, as the manifest says .found \w{12}.: it was edited or damaged"


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (Path.unlink, "is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), LENGTH),
        (lambda path: path.write_bytes(path.read_bytes() + b"0"), LENGTH),
        (lambda path: path.write_bytes(b""), LENGTH),
        (lambda path: np.save(path, np.load(path)[:, :-1]), LENGTH),
        (lambda path: np.save(path, np.load(path).astype(np.float64)), LENGTH),
        (lambda path: np.save(path, np.array([{"a": 1}]), allow_pickle=True), LENGTH),
        (as_npz, LENGTH),
        (flipped, HASH),
        (lambda path: flipped(path, 20), HASH),
        (lambda path: np.save(path, np.asfortranarray(np.load(path))), HASH),
        (nested_header, HASH),
        (long_header, HASH),
        (to_folder, "is not a file"),
        (to_pipe, "is not a file"),
        (to_circle, "cannot be read .Too many levels of symbolic links."),
    ],
)
def test_a_damaged_shard_is_named_with_what_was_found_and_its_remedy(
    manifest: Manifest, harm: Callable[[Path], object], message: str
) -> None:
    path = layout.embeddings(LOCALE).shard("products", 1)
    harm(path)
    with pytest.raises(PipelineError, match=message) as error:
        read_vectors(manifest, "products", LOCALE)
    assert str(error.value).startswith(str(path))
    assert str(error.value).endswith(f"Run `dvc repro embed@{LOCALE}`.")


def test_a_shard_that_may_not_be_read_is_one_message(manifest: Manifest, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    path = layout.embeddings(LOCALE).shard("products", 1)
    path.chmod(0)
    for folder in (tmp_path, *tmp_path.parents[:-1]):
        folder.chmod(folder.stat().st_mode | 0o755)
    os.seteuid(65_534)
    try:
        with pytest.raises(PipelineError, match=r"cannot be read .Permission denied.\. Run `dvc"):
            read_vectors(manifest, "products", LOCALE)
    finally:
        os.seteuid(0)


def vouch(path: Path, number: int) -> Manifest:
    """Give a shard of the products the hash of its file in the manifest; return that."""
    data = json.loads(layout.embeddings(LOCALE).manifest.read_text())
    data["products"]["shards"][number]["sha256"] = sha256_file(path)
    layout.embeddings(LOCALE).manifest.write_text(json.dumps(data))
    return read_manifest(params(), LOCALE)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: np.save(path, np.asfortranarray(np.load(path))),
        lambda path: np.save(path, np.load(path).reshape(48, 100)),
        lambda path: np.save(path, np.load(path).view(np.int32)),
        nested_header,
        long_header,
    ],
)
def test_a_shard_of_another_header_is_refused_even_if_the_manifest_vouches_for_it(
    manifest: Manifest, harm: Callable[[Path], object]
) -> None:
    path = layout.embeddings(LOCALE).shard("products", 1)
    harm(path)
    with pytest.raises(
        PipelineError, match=r"must be float32 \[100, 48\] as .npy .found the header"
    ):
        read_vectors(vouch(path, 1), "products", LOCALE)


def test_a_shard_that_is_not_finite_is_refused_even_if_the_manifest_vouches_for_it(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).shard("products", 1)
    array = np.load(path)
    array[7, 3] = np.nan
    np.save(path, array)
    with pytest.raises(PipelineError, match="row 7 is not finite"):
        read_vectors(vouch(path, 1), "products", LOCALE)


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
    ("change", "message"),
    [
        (lambda one: one.reverse(), "shard 0 of products must be products-00000.npy, not"),
        (lambda one: one[1].update(file="products-00000.npy"), "products-00001.npy, not"),
        (lambda one: one[1].update(file="queries-00001.npy"), "products-00001.npy, not"),
        (lambda one: one[1].update(file="../" * 99 + "etc/passwd"), "products-00001.npy, not"),
        (lambda one: one[1].update(rows=2**41), r"shards.1.rows: .*1099511627776"),
        (lambda one: one[1].update(sha256="1"), "shards.1.sha256: "),
    ],
)
def test_shards_in_another_order_or_place_are_refused(
    manifest: Manifest, change: Callable[[Any], None], message: str
) -> None:
    path = layout.embeddings(LOCALE).manifest
    data = json.loads(path.read_text())
    change(data["products"]["shards"])
    path.write_text(json.dumps(data))
    with pytest.raises(PipelineError, match=message):
        read_manifest(params(), LOCALE)


@pytest.mark.parametrize(
    ("change", "message"),
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
    manifest: Manifest, change: dict[str, object], message: str
) -> None:
    with pytest.raises(PipelineError, match=f"{message}: the vectors are of another encoder"):
        read_manifest(params(change), LOCALE)


def test_the_contract_of_a_local_model_does_not_say_where_it_was() -> None:
    weights = {"kind": "folder", "path": "/somewhere/on/this/machine"}
    there = params({"encoders.e5-small-q4.weights": weights}).encoder_of(LOCALE)
    assert "somewhere" not in json.dumps(contract_of(there))


def test_a_manifest_of_another_version_is_refused_with_both_versions(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).manifest
    path.write_text(json.dumps(json.loads(path.read_text()) | {"manifest_schema": 0}))
    with pytest.raises(PipelineError, match=r"manifest_schema must be 3 .found 0."):
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
    """Return the counts of random texts whose fields lost random tokens."""
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


def test_counts_of_random_cut_texts_fit_and_read_back() -> None:
    for seed in range(50):
        counts = random_cut(np.random.default_rng(seed))
        found = SideCut.model_validate_json(json.dumps(counts))
        assert found.model_dump(mode="json") == counts


@pytest.mark.parametrize(
    ("change", "message"),
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
    change: dict[str, object], message: str
) -> None:
    fields = {"a": {"texts_cut": 3, "tokens_cut": 8}, "b": {"texts_cut": 1, "tokens_cut": 4}}
    good = {"texts": 10, "texts_cut": 3, "tokens": 40, "tokens_cut": 12, "fields": fields}
    SideCut.model_validate_json(json.dumps(good))
    with pytest.raises(ValidationError, match=message):
        SideCut.model_validate_json(json.dumps(good | change))


def test_a_manifest_that_counts_more_or_fewer_texts_than_rows_is_refused(
    manifest: Manifest,
) -> None:
    path = layout.embeddings(LOCALE).manifest
    data = json.loads(path.read_text())
    data["truncation"]["queries"] = nothing_cut(21, ["query"]).model_dump(mode="json")
    path.write_text(json.dumps(data))
    message = r"manifest.json: \(top level\): .*truncation counts 21 queries, but there are 20"
    with pytest.raises(PipelineError, match=message):
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
def test_shards_are_the_files_that_numpy_writes_however_the_rows_come(
    tmp_path: Path, dtype: str
) -> None:
    for seed in range(8):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows, dimension, shard_rows = (
            int(rng.integers(*at)) for at in [(0, 400), (1, 70), (1, 150)]
        )
        matrix = random_vectors(rng, rows, dimension)
        if seed % 2:  # the order in memory must not matter either
            matrix = np.asfortranarray(matrix)

        settings = embed_settings(shard_rows, dtype)
        writer = ShardWriter(folder, "queries", rows, dimension, settings)
        shards = write(writer, *random_pieces(rng, matrix))

        held = blocks(matrix, shard_rows)
        names = [f"queries-{at:05d}.npy" for at in range(len(held))]
        assert [shard.file for shard in shards] == names
        assert sorted(path.name for path in folder.iterdir()) == names
        for shard, vectors in zip(shards, held, strict=True):
            path, expected = folder / shard.file, tmp_path / "expected.npy"
            np.save(expected, np.ascontiguousarray(vectors, dtype=dtype))
            assert path.read_bytes() == expected.read_bytes()
            assert (shard.rows, shard.sha256) == (len(vectors), sha256_file(path))


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
def test_a_vector_that_is_not_finite_is_named_by_its_file_and_row(
    tmp_path: Path, value: float
) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        matrix = random_vectors(rng, 100, 5)
        bad = int(rng.integers(100))
        matrix[bad, rng.integers(5)] = value
        shard_rows = int(rng.integers(1, 60))
        writer = ShardWriter(tmp_path, "products", 100, 5, embed_settings(shard_rows))
        shard, row = divmod(bad, shard_rows)
        message = rf"products-{shard:05d}.npy: row {row} is not finite as float32 "
        with pytest.raises(PipelineError, match=message):
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
    writer = ShardWriter(tmp_path, "products", 1_000, 8, embed_settings(300))
    with (
        file_limit(limit if limit >= 0 else size + limit),
        pytest.raises(OSError, match="File too large") as caught,
    ):
        write(writer, *np.array_split(matrix, 13))
    assert caught.value.errno == errno.EFBIG
    with pytest.raises(ValueError, match="of 1000 rows"):
        writer.finish()


# From a model's vectors to those of the encoder


def encoder(normalize: bool, dimension: int | None, similarity: Similarity = "cosine") -> Encoder:
    key = "encoders.e5-small-q4"
    changes = {
        f"{key}.normalize": normalize,
        f"{key}.dimension": dimension or "model",
        f"{key}.similarity": similarity,
    }
    return params(changes).encoder_of(LOCALE)


def name_of(row: int) -> str:
    return f"text {row}"


@pytest.mark.parametrize("normalize", [True, False])
def test_a_finished_vector_does_not_depend_on_its_company_to_the_last_bit(normalize: bool) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        dimension = int(rng.integers(1, 800))
        raw = random_vectors(rng, int(rng.integers(1, 400)), dimension)
        raw *= np.float32(10) ** rng.integers(-15, 16, size=(len(raw), 1)).astype(np.float32)
        entry = encoder(normalize, int(rng.integers(1, dimension + 1)) if seed % 3 else None)
        whole = apply_contract(raw, entry, name_of)

        parts = [apply_contract(part, entry, name_of) for part in random_pieces(rng, raw)]
        rows = [raw[row : row + 1].copy() for row in range(len(raw))]
        single = [apply_contract(row, entry, name_of) for row in rows]
        order = rng.permutation(len(raw))
        others = np.asfortranarray(raw[order])

        assert whole.dtype == np.float32
        assert whole.flags.c_contiguous
        assert np.concatenate(parts).tobytes() == whole.tobytes()
        assert np.concatenate(single).tobytes() == whole.tobytes()
        assert apply_contract(others, entry, name_of).tobytes() == whole[order].tobytes()


@pytest.mark.parametrize("dimension", [None, 1, 7, 48])
def test_a_finished_vector_is_the_leading_components_at_length_one(dimension: int | None) -> None:
    for seed in range(5):
        raw = random_vectors(np.random.default_rng(seed), 40)
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
    message = r"^text 13: its vector is zero and cannot be normalised. Use .*normalize: false"
    with pytest.raises(PipelineError, match=message):
        apply_contract(raw, encoder(True, 8), name_of)
    assert apply_contract(raw, encoder(True, 9), name_of).shape == (20, 9)
    assert not apply_contract(raw, encoder(False, 8), name_of)[13].any()


@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_a_vector_whose_scores_would_overflow_is_named_where_it_is_compared_as_it_is(
    similarity: Similarity,
) -> None:
    raw = random_vectors(np.random.default_rng(0), 20)
    raw[13, 8] = -1e12
    message = r"^text 13: a component must be at most 1e.09, else .* .found 1e.12.\. Use an encoder"
    with pytest.raises(PipelineError, match=message):
        apply_contract(raw, encoder(False, 9, similarity), name_of)
    for kept in (
        encoder(False, 8, similarity), encoder(True, 9, similarity), encoder(False, 9, "cosine")
    ):  # fmt: skip
        assert len(apply_contract(raw, kept, name_of)) == 20


@pytest.mark.parametrize("rows", [0, 5])
def test_a_dimension_beyond_the_models_is_refused_with_both(rows: int) -> None:
    raw = random_vectors(np.random.default_rng(0), rows, 48)
    assert apply_contract(raw, encoder(True, 48), name_of).shape == (rows, 48)
    with pytest.raises(PipelineError, match=r"at most its model's 48 components .found 49."):
        apply_contract(raw, encoder(True, 49), name_of)


def test_unit_vectors_have_length_one_and_zero_vectors_are_refused() -> None:
    matrix = random_vectors(np.random.default_rng(3), 30)
    norms = np.linalg.norm(at_unit_length(matrix, "x"), axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-6)
    matrix[4] = 0
    with pytest.raises(PipelineError, match="es products: the vector of row 4 is zero"):
        at_unit_length(matrix, "es products")
