"""What index, retrieve and evaluate are measured on is what the stages would write."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.measure import cpu_seconds
from bench.scale_search import (
    INDEXES,
    MEASURES,
    SEARCH,
    Mixture,
    params_with,
    random_runs,
)
from bench.scale_search import LOCALE as US
from pipeline.core import layout
from pipeline.core.params_file import PARAMS_FILE
from pipeline.runs import files as run_files
from pipeline.runs.inputs import read_inputs
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture
def made_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder is a project in which an earlier measurement made the vectors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / ".cache"))
    manifest = SEARCH / layout.embeddings(US).manifest
    manifest.parent.mkdir(parents=True)
    manifest.touch()
    for folder in (Path(), SEARCH):
        shutil.copy(ROOT / PARAMS_FILE, folder)


@pytest.mark.usefixtures("made_before")
def test_bm25_is_measured_without_the_terms_that_an_earlier_run_counted() -> None:
    kept = layout.postings("us-0123456789abcdef").starts
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"")
    MEASURES["bm25"].prepare(100)
    assert not kept.exists()


@pytest.mark.usefixtures("made_before")
@pytest.mark.parametrize("name", ["bm25", "index (flat)"])
def test_what_was_made_before_is_measured_with_the_settings_of_now(name: str) -> None:
    with Path(PARAMS_FILE).open("a") as file:
        file.write("# changed\n")
    MEASURES[name].prepare(100)
    assert (SEARCH / PARAMS_FILE).read_bytes() == Path(PARAMS_FILE).read_bytes()


def test_cpu_seconds_are_those_of_the_processes_that_counted_too() -> None:
    code = "import time\nwhile time.process_time() < 0.5: pass"
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cpu_seconds() - before > 0.4


def test_made_up_vectors_are_seeded_at_length_one_and_those_of_a_centre_are_near() -> None:
    first, again, other = (np.concatenate(list(Mixture(4).pieces(300, seed))) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.isin(other, first).all()
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    cosines = np.sort(first @ first.T, axis=1)
    assert cosines[:, -40].mean() > 0.3 > cosines[:, :200].mean()


@pytest.mark.parametrize("depth", [20, 1000])
def test_made_up_runs_are_read_back_whole_and_find_what_is_judged(
    depth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("bench.scale_search.QUERIES_A_PIECE", 7)
    write_clean(np.random.default_rng(1), 400, 30)
    inputs = read_inputs(LOCALE)
    with run_files.write_runs(LOCALE, "dense", {}, depth, inputs) as (catalogue, pool):
        for found, judged in random_runs(inputs, depth, 0):
            catalogue.add(*found)
            pool.add(*judged)
    read = {}
    for track in ("catalogue", "pool"):
        path = layout.runs("dense", LOCALE).folder / f"{track}.parquet"
        pieces = [run for _, run in run_files.iter_run(path, inputs, 9, "")]
        read[track] = [np.concatenate(columns) for columns in zip(*pieces, strict=True)]
    rows, codes, _ = read["catalogue"]
    assert np.bincount(rows).tolist() == [min(depth, 400)] * 30
    judged_pairs = inputs.pair_queries * 400 + inputs.pair_products
    assert np.isin(judged_pairs, rows * 400 + codes).mean() > 0.6
    assert sorted(read["pool"][0] * 400 + read["pool"][1]) == sorted(judged_pairs)


@pytest.mark.parametrize("name", INDEXES)
def test_the_measured_indexes_are_settings_that_params_yaml_may_have(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert params_with(name).index_of(LOCALE).model_dump() == INDEXES[name]
    assert params_with(name).encoders == params().encoders
