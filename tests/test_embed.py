"""embed as a real process with a tiny model: rows, prefixes, warnings, kills, full disks."""

import hashlib
import json
import os
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
import pytest
from ruamel.yaml import YAML

from pipeline import embed, layout, vectors
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


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path) -> Run:
    """Return what runs a stage in a folder with clean tables of 250 products."""
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(0), 250, 20)

    def run(
        name: str = "embed",
        model: str = "sound",
        changes: "dict[str, Any] | None" = None,
        preexec_fn: Callable[[], None] | None = None,
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
            [sys.executable, "-m", f"pipeline.{name}", "--locale", LOCALE],
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
            shutil.copytree(tmp_path, all_artefacts)
        shutil.copytree(all_artefacts, tmp_path, dirs_exist_ok=True)
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
    assert os.uname().nodename not in text
    assert str(models) not in text


@pytest.mark.parametrize("shard_rows", [1, 7, 100, 249, 250, 251])
def test_chunks_fill_shards_exactly(shard_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "CHUNK_TEXTS", 30)
    chunks = list(embed._chunks(250, shard_rows))
    assert [row for start, stop in chunks for row in range(start, stop)] == list(range(250))
    assert {stop for _, stop in vectors.shard_bounds(250, shard_rows)} <= {s for _, s in chunks}
    assert max(stop - start for start, stop in chunks) <= 30


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
