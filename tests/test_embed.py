"""embed as a real process with a tiny model: rows, prefixes, warnings, kills, full disks."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from ruamel.yaml import YAML
from transformers import AutoTokenizer

from pipeline import embed, layout, tables, vectors
from pipeline.encoders.encoder import load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.params import load_params
from tests.artefacts import LOCALE, ROOT, write_clean
from tests.tiny_models import build_model

Run = Callable[..., "subprocess.CompletedProcess[str]"]
Results = Callable[[], Run]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound model and one whose weights are NaN."""
    folder = tmp_path_factory.mktemp("models")
    build_model(folder / "sound", seed=1)
    build_model(folder / "broken", seed=1, nan=True)
    return folder


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where converted models are kept, each once they were converted."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path, engines: Path) -> Run:
    """Return what runs a stage in a folder with clean tables of 250 products."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/engines").symlink_to(engines)
    write_clean(np.random.default_rng(0), 250, 20)

    def run(
        name: str = "embed",
        model: str = "sound",
        changes: "dict[str, Any] | None" = None,
        preexec_fn: Callable[[], None] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> "subprocess.CompletedProcess[str]":
        yaml = YAML()
        data = yaml.load(ROOT / "params.yaml")
        encoder = data["encoders"]["e5-small-q4"]
        encoder["weights"] = {"kind": "folder", "path": str(models / model)}
        encoder["max_tokens"] = 64
        data["embed"]["shard_rows"] = 100
        data["runtime"]["threads"] = 1
        for key, value in (changes or {}).items():
            encoder[key] = value
        yaml.dump(data, tmp_path / "params.yaml")
        return subprocess.run(
            [sys.executable, "-m", f"pipeline.{name}", "--locale", LOCALE, *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=preexec_fn,
        )

    return run


@pytest.fixture(scope="module")
def all_artefacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the artefacts of all stages are kept, once they are made."""
    return tmp_path_factory.mktemp("artefacts") / "made"


@pytest.fixture
def results(run: Run, all_artefacts: Path, tmp_path: Path) -> Results:
    """Return what fills the folder with the artefacts of all stages, made once."""

    def fill() -> Run:
        if not all_artefacts.exists():
            for stage in ("embed", "index", "retrieve", "evaluate"):
                done = run(stage)
                assert done.returncode == 0, done.stderr
            shutil.copytree(tmp_path, all_artefacts, symlinks=True)
        (tmp_path / "cache/engines").unlink(missing_ok=True)
        shutil.copytree(all_artefacts, tmp_path, symlinks=True, dirs_exist_ok=True)
        return run

    return fill


def _fingerprint(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_row_i_of_the_shards_is_the_vector_of_row_i_of_the_clean_table(
    run: Run, models: Path
) -> None:
    done = run()
    assert done.returncode == 0, done.stderr
    params = load_params()
    contract = params.encoder_of(LOCALE)
    encoder = load_encoder(contract, resolve_weights(contract, "e5-small-q4"), params.runtime)
    manifest = vectors.read_manifest(params, LOCALE)
    products = vectors.read_vectors(manifest, "products", LOCALE)
    assert [shard.rows for shard in manifest.products.shards] == [100, 100, 50]
    texts = [f"texto {row}" for row in range(250)]
    np.testing.assert_allclose(products, encoder.encode_passages(texts), atol=1e-5)
    queries = vectors.read_vectors(manifest, "queries", LOCALE)
    asked = [f"consulta {row}" for row in range(20)]
    np.testing.assert_allclose(queries, encoder.encode_queries(asked), atol=1e-5)
    swapped = np.abs(queries - encoder.encode_passages(asked)).max()
    assert swapped > 1e-3  # queries have a prefix of their own


def test_the_manifest_tells_the_whole_contract_and_nothing_of_the_machine(
    run: Run, models: Path
) -> None:
    run()
    text = (layout.embeddings(LOCALE) / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["contract"]["query_prefix"] == "query: "
    assert manifest["encoder"] == "e5-small-q4"
    assert manifest["dimension"] == 32
    assert manifest["engine"] == "openvino-cpu"
    assert os.uname().nodename not in text
    assert str(models) not in text


def _encoded(done: "subprocess.CompletedProcess[str]") -> list[int]:
    """Return how many products and queries a run encoded."""
    assert done.returncode == 0, done.stderr
    return [int(number) for number in re.findall(r" encoded=(\d+) ", done.stderr)]


def test_nothing_is_encoded_twice_and_then_no_engine_is_loaded(run: Run, tmp_path: Path) -> None:
    assert _encoded(run()) == [250, 20]
    before = _fingerprint(Path("data"))
    shutil.rmtree(layout.embeddings(LOCALE))
    for name in ("torch", "openvino", "tokenizers"):  # whoever imports them now fails
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('imported')\n")
    assert _encoded(run()) == [0, 0]
    assert _fingerprint(Path("data")) == before


def test_one_edited_product_is_one_text_to_encode(run: Run) -> None:
    run()
    path = layout.clean(LOCALE) / "products.parquet"
    table = tables.read_table(path, tables.PRODUCTS, "")
    texts = table["text"].to_pylist()
    texts[17] = "otra cosa"
    fields = len(table["field_ends"][0].as_py())
    ends = [[len(text)] * fields for text in texts]
    edited = table.set_column(1, "text", pa.array(texts)).set_column(
        2, table.schema.field("field_ends"), pa.array(ends, table["field_ends"].type)
    )
    tables.write_table(path, edited, tables.PRODUCTS)
    assert _encoded(run()) == [1, 0]


def test_equal_texts_are_encoded_once(run: Run) -> None:
    path = layout.clean(LOCALE) / "products.parquet"
    table = tables.read_table(path, tables.PRODUCTS, "")
    rows = np.arange(250) % 9
    same = table.set_column(1, "text", table["text"].take(rows))
    same = same.set_column(2, table.schema.field("field_ends"), table["field_ends"].take(rows))
    tables.write_table(path, same, tables.PRODUCTS)
    assert _encoded(run()) == [9, 20]
    vectors_of = vectors.read_vectors(
        vectors.read_manifest(load_params(), LOCALE), "products", LOCALE
    )
    np.testing.assert_array_equal(vectors_of, vectors_of[:9][rows])


@pytest.mark.parametrize("change", [{"dimension": 8}, {"normalize": False}, {"similarity": "l2"}])
def test_what_is_done_to_a_vector_afterwards_encodes_nothing_again(
    run: Run, tmp_path: Path, change: dict[str, Any]
) -> None:
    run()
    assert _encoded(run(changes=change)) == [0, 0]
    reused = _fingerprint(layout.embeddings(LOCALE))
    shutil.rmtree(tmp_path / "cache/vectors")
    assert _encoded(run(changes=change)) == [250, 20]
    assert _fingerprint(layout.embeddings(LOCALE)) == reused


def test_a_damaged_entry_of_the_store_is_told_and_computed_again(run: Run, tmp_path: Path) -> None:
    run()
    before = _fingerprint(Path("data"))
    segments = sorted(
        (tmp_path / "cache/vectors").glob("*/*x32.npy"), key=lambda p: p.stat().st_size
    )
    damaged = bytearray(segments[-1].read_bytes())
    damaged[-50] ^= 4
    segments[-1].write_bytes(damaged)
    done = run()
    assert done.returncode == 0, done.stderr
    assert segments[-1].name in done.stderr
    assert _fingerprint(Path("data")) == before
    assert segments[-1].name not in run().stderr


def test_a_plan_tells_what_a_run_then_does_and_writes_no_vectors(run: Run) -> None:
    done = run(arguments=("--plan",))
    assert done.returncode == 0, done.stderr
    assert not layout.embeddings(LOCALE).exists()
    planned = [int(number) for number in re.findall(r" to_encode=(\d+) ", done.stderr)]
    assert planned == [250 - embed.PROBE_TEXTS, 0]  # what it measured its rate with is kept
    assert _encoded(run()) == planned


def test_what_max_tokens_cuts_off_is_counted_as_the_tokenizer_counts_it(
    run: Run, models: Path
) -> None:
    run(changes={"max_tokens": 16})
    tokenizer = AutoTokenizer.from_pretrained(models / "sound")
    texts = [f"passage: texto {row}" for row in range(250)]
    lengths = np.array([len(ids) for ids in tokenizer(texts)["input_ids"]])
    manifest = json.loads((layout.embeddings(LOCALE) / "manifest.json").read_text())
    told = manifest["truncation"]["products"]
    assert told["texts"] == 250
    assert told["tokens"] == lengths.sum()
    assert told["texts_cut"] == (lengths > 16).sum()
    assert told["tokens_cut"] == np.maximum(lengths - 16, 0).sum() > 0


def test_runs_killed_at_random_end_with_the_bytes_of_one_that_was_not(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _encoded(run()) == [250, 20]
    before = _fingerprint(layout.embeddings(LOCALE))
    shutil.rmtree(tmp_path / "cache/vectors")
    shutil.rmtree(layout.embeddings(LOCALE))
    rng = np.random.default_rng(3)
    command = [sys.executable, "-m", "pipeline.embed", "--locale", LOCALE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for _ in range(4):
        process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(float(rng.uniform(0.5, 2.5)))
        process.kill()
        process.wait()
    assert run().returncode == 0
    assert _fingerprint(layout.embeddings(LOCALE)) == before


def test_a_store_that_cannot_be_written_is_one_message(run: Run, tmp_path: Path) -> None:
    (tmp_path / "cache/vectors").write_text("no folder")
    done = run()
    assert done.returncode == 1
    assert "the store of vectors in " in done.stderr
    assert "$PIPELINE_CACHE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not layout.embeddings(LOCALE).exists()


def test_an_encoder_that_does_not_speak_the_language_gives_a_warning_and_goes_on(run: Run) -> None:
    done = run(changes={"languages": ["en", "fr"]})
    assert done.returncode == 0
    assert "warning: encoder.es: e5-small-q4 does not speak es (it speaks: en, fr)" in done.stderr
    assert "warning" not in run().stderr


def test_a_model_that_gives_nan_is_refused_and_the_old_vectors_stay(run: Run) -> None:
    run()
    before = _fingerprint(Path("data"))
    done = run(model="broken")
    assert done.returncode == 1
    assert "NaN" in done.stderr
    assert "Traceback" not in done.stderr
    assert _fingerprint(Path("data")) == before


def test_a_kill_at_any_moment_leaves_the_old_vectors_or_the_new_ones(run: Run) -> None:
    run()
    before = _fingerprint(layout.embeddings(LOCALE))
    command = [sys.executable, "-m", "pipeline.embed", "--locale", LOCALE]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    partial = layout.embeddings(LOCALE).parent
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(partial.glob(".*.partial/products-*.npy")):
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    assert process.returncode in (-signal.SIGKILL, 0)
    assert _fingerprint(layout.embeddings(LOCALE)) == before
    assert run().returncode == 0
    assert _fingerprint(layout.embeddings(LOCALE)) == before


def _largest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("missing", ["all but 4 kB", "the last byte"])
@pytest.mark.parametrize(
    ("name", "output"),
    [
        ("embed", layout.embeddings(LOCALE)),
        ("index", layout.index(LOCALE)),
        ("retrieve", layout.dense_runs(LOCALE)),
        ("evaluate", layout.per_query(LOCALE).parent),
    ],
)
def test_a_full_disk_is_one_message_and_the_old_artefacts_stay(
    results: Results, name: str, output: Path, missing: str
) -> None:
    run = results()
    before = {**_fingerprint(Path("data")), **_fingerprint(Path("models"))}
    metrics = _fingerprint(Path("reports"))
    limit = 4_096 if missing == "all but 4 kB" else _largest(output) - 1
    done = run(name, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert {**_fingerprint(Path("data")), **_fingerprint(Path("models"))} == before
    assert _fingerprint(Path("reports")) == metrics
