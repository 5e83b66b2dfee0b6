"""Encoding on a real Ray cluster of two nodes: the bytes of local execution, whoever is killed."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from bench.ray import kill_a_worker, workers
from pipeline.core import cpu, layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Runtime
from pipeline.encoders.engine import EngineChoice
from pipeline.encoders.loading import load_encoder, resolve_engine
from pipeline.encoders.remote import RemoteEncoder, load_worker
from pipeline.encoders.weights import LocalWeights
from tests.conftest import RunStage
from tests.helpers.artefacts import LOCALE, ROOT, write_clean
from tests.helpers.tiny_models import build_model, entry, random_texts, runtime, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]

PRODUCTS = 20_000
ENOUGH = 10_000
"""Products that are not all encoded by the time that a signal comes."""

Embed = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("model"), seed=1)


def on(cluster: str, local: Runtime) -> Runtime:
    """Return settings with the cluster as the executor."""
    return local.model_copy(update={"executor": "ray", "ray_address": cluster})


@pytest.mark.parametrize("engine", ["openvino", pytest.param("torch", marks=pytest.mark.thorough)])
def test_vectors_of_a_cluster_are_those_of_this_process_to_the_last_bit(
    cluster: str, model: Path, engine: str
) -> None:
    spec, weights = entry(model, passage_prefix="p: "), weights_of(model)
    local = runtime(engine)
    remote = on(cluster, local)
    texts = random_texts(np.random.default_rng(4), 600, longest=90)
    expected = load_encoder(spec, weights, local)
    with RemoteEncoder(resolve_engine(spec, weights, remote), spec, weights, remote) as encoder:
        np.testing.assert_array_equal(
            encoder.encode_passages(texts), expected.encode_passages(texts)
        )
        np.testing.assert_array_equal(
            encoder.encode_queries(texts[:9]), expected.encode_queries(texts[:9])
        )


def test_workers_that_would_compute_other_vectors_are_refused(
    cluster: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights = entry(model), weights_of(model)
    ray = on(cluster, runtime())
    choice = resolve_engine(spec, weights, ray)
    other = LocalWeights(weights.name, weights.folder, "0" * 64)
    with (
        pytest.raises(PipelineError, match=f"the hash {weights.sha256}, expected {'0' * 64}"),
        RemoteEncoder(choice, spec, other, ray),
    ):
        pass
    monkeypatch.setattr(cpu, "_VECTOR_FLAGS", ())  # this process then names the architecture
    with (
        pytest.raises(PipelineError, match=r"would compute other bits: CPU instructions \w+, exp"),
        RemoteEncoder(choice, spec, weights, ray),
    ):
        pass


def test_a_worker_on_other_hardware_than_the_store_counts_on_is_refused(model: Path) -> None:
    spec, weights, ray = entry(model), weights_of(model), runtime()
    job = RemoteEncoder(resolve_engine(spec, weights, ray), spec, weights, ray)._job()
    load_worker(job, 1)
    with pytest.raises(PipelineError, match=r"with torch-cpu \w+, expected torch-cpu another GPU"):
        load_worker(replace(job, computed_by="torch-cpu another GPU"), 1)


def test_workers_on_gpus_are_for_a_cluster_that_has_some(cluster: str, model: Path) -> None:
    spec, weights = entry(model), weights_of(model)
    ray = on(cluster, runtime(device="cuda"))
    choice = EngineChoice("torch", "cuda")
    if not torch.cuda.is_available():  # the store must know which GPU computes
        with pytest.raises(PipelineError, match="cuda, but torch finds no such device on this"):
            resolve_engine(spec, weights, ray)
    with (
        pytest.raises(PipelineError, match="no node of the cluster has a GPU"),
        RemoteEncoder(choice, spec, weights, ray),
    ):
        pass


def test_a_model_that_gives_nan_is_refused_as_locally(cluster: str, tmp_path: Path) -> None:
    folder = build_model(tmp_path / "broken", seed=1, nan=True)
    spec, weights, ray = entry(folder), weights_of(folder), on(cluster, runtime("torch"))
    refusals = []
    with RemoteEncoder(resolve_engine(spec, weights, ray), spec, weights, ray) as remote:
        for encoder in (remote, load_encoder(spec, weights, runtime("torch"))):
            with pytest.raises(PipelineError, match="NaN") as refused:
                encoder.encode_passages(["uno", "dos"])
            refusals.append(str(refused.value))
    assert refusals[0] == refusals[1]


@pytest.fixture
def params_of(project: Path, cluster: str, model: Path) -> Callable[..., None]:
    """Return what writes params.yaml with a tiny encoder, for the executor named."""

    def write(executor: str) -> None:
        yaml = YAML()
        data = yaml.load(ROOT / "params.yaml")
        encoder = data["encoders"]["e5-small-q4"]
        encoder["weights"] = {"kind": "folder", "path": str(model)}
        encoder["max_tokens"] = 64
        address = cluster if executor == "ray" else None
        data["runtime"] |= {"threads": 1, "executor": executor, "ray_address": address}
        yaml.dump(data, project / "params.yaml")

    return write


def _embed() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.embed", "--locale", LOCALE],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )


def _hashes() -> dict[str, str]:
    files = sorted(layout.embeddings(LOCALE).folder.iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _fresh_store(monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Let the next run find converted models, and no vectors; return its store."""
    engines = layout.cache() / "engines"
    engines.mkdir(exist_ok=True)
    monkeypatch.setenv("PIPELINE_CACHE", str(Path(name).absolute()))
    layout.cache().mkdir()
    (layout.cache() / "engines").symlink_to(engines)
    return layout.store()


def _some_stored(store: Path, process: "subprocess.Popen[str]") -> None:
    """Wait until some vectors, of 32 components, are in a store."""
    while process.poll() is None and not list(store.glob("*/*x32.npy")):
        time.sleep(0.002)


@pytest.mark.thorough  # tests/cluster/test_fleet.py kills workers of cheaper work
def test_a_worker_killed_midway_loses_nothing_and_changes_no_byte(
    params_of: Callable[..., None],
    run_stage: RunStage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_clean(np.random.default_rng(2), PRODUCTS, 20)
    params_of("local")
    _fresh_store(monkeypatch, "local")
    done = run_stage("embed", "--locale", LOCALE)
    assert done.returncode == 0, done.stderr
    expected = _hashes()

    params_of("ray")
    store = _fresh_store(monkeypatch, "ray")
    with _embed() as process:
        _some_stored(store, process)
        assert kill_a_worker()
        _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert "warning: a worker of the Ray cluster died" in errors
    assert f" encoded={PRODUCTS} " in errors
    assert _hashes() == expected
    deadline = time.monotonic() + 30  # Ray ends them after the command
    while workers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert workers() == []


def test_a_plan_takes_what_a_few_texts_took_for_the_rate_of_no_cluster(
    params_of: Callable[..., None], run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clean(np.random.default_rng(2), 300, 20)
    params_of("ray")
    _fresh_store(monkeypatch, "ray")
    planned = run_stage("embed", "--locale", LOCALE, "--plan")
    assert planned.returncode == 0, planned.stderr
    assert planned.stderr.count("these seconds are for one or two workers") == 1  # products'
    assert not list(layout.rates().glob("*.json"))
    done = run_stage("embed", "--locale", LOCALE)
    assert done.returncode == 0, done.stderr
    assert list(layout.rates().glob("*-ray.json"))


def test_an_interrupt_is_one_message_and_what_was_encoded_stays(
    params_of: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_clean(np.random.default_rng(2), ENOUGH, 20)
    params_of("ray")
    store = _fresh_store(monkeypatch, "ray")
    with _embed() as process:
        _some_stored(store, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "embed was interrupted" in errors
    assert "Traceback" not in errors
    assert not layout.embeddings(LOCALE).folder.exists()
    with _embed() as process:
        _, errors = process.communicate()
    (encoded, _) = re.findall(r" encoded=(\d+) ", errors)
    assert 0 < int(encoded) < ENOUGH
