"""make bench measures what it says: the same texts, the record's nDCG, figures that follow."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModel

from bench import encode, reports
from bench import evaluate as evaluate_bench
from bench.peak import operations
from bench.quality import ndcg, read_catalogue
from bench.ray import kill_a_worker, workers
from bench.side import BASELINE, Side
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import PARAMS_FILE
from pipeline.encoders.openvino_model import converted_model
from pipeline.evaluate import metrics, system_scores
from pipeline.index import stage as index
from pipeline.retrieve import stage as retrieve
from tests.conftest import RunStage
from tests.helpers.artefacts import (
    LOCALE,
    ROOT,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
)
from tests.helpers.tiny_models import build_model, entry, weights_of

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_rounds_take_all_rows_before_any_twice() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        total = int(rng.integers(1, 40))
        size, rounds = int(rng.integers(1, total + 1)), int(rng.integers(1, 8))
        shares = encode.shares(total, size, rounds)
        assert [len(rows) for rows in shares] == [size] * rounds
        for rows in shares:
            assert len(set(rows.tolist())) == size, "a text twice in a round"
        taken = np.bincount(np.concatenate(shares), minlength=total)
        assert taken.max() - taken.min() <= 1


def test_cosine_distance_is_the_largest_angle_between_rows_in_one_place() -> None:
    rng = np.random.default_rng(2)
    left = random_vectors(rng, 20)
    right = left * rng.uniform(0.1, 9, (20, 1)).astype(np.float32)
    assert encode.cosine_distance(left, right) < 1e-12
    right[7] += random_vectors(rng, 1)[0]
    cosine = float(left[7] @ right[7] / np.linalg.norm(left[7]) / np.linalg.norm(right[7]))
    assert encode.cosine_distance(left, right) == pytest.approx(1 - cosine, rel=1e-4)
    left[7] = np.nan
    assert encode.cosine_distance(left, right) < 1e-12


def test_a_ratio_compares_a_side_with_its_baseline_in_the_same_round() -> None:
    base = encode.Measured(np.ones((2, 3), np.float32), [10.0, 40.0, 20.0], 5, {"es": 0.5})
    one = replace(base, seconds=[5.0, 10.0, 20.0], ndcg={"es": 0.4}, peak_bytes=7_000_000)
    found = encode.figures(one, base, texts=20, tokens=[100, 200, 300])
    assert found["ratio"] == {"min": 1.0, "median": 2.0, "max": 4.0}
    assert found["texts_per_second"] == 2.0
    assert found["tokens_per_second"] == 20
    assert found["ndcg@10_difference"] == {"es": pytest.approx(-0.1)}
    assert found["peak_megabytes"] == 7
    assert encode.figures(base, base, 20, [1, 1, 1])["ratio"]["median"] == 1.0


def test_operations_are_those_that_torch_counts(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    spec = entry(folder)
    graph = converted_model(spec, weights_of(folder)).folder / "model.xml"
    model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    lengths, expected = (3, 50, 128), 0
    for length in lengths:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(torch.ones((1, length), dtype=torch.int64))
        by_kind = counter.get_flop_counts()["Global"]
        expected += sum(by_kind.values())
        if model.pooler is not None:
            expected -= 2 * model.config.hidden_size**2
    assert operations(graph, folder)(np.array(lengths)) == expected


@pytest.mark.parametrize("without_text", [0, 15])
def test_its_ndcg_is_the_one_of_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, without_text: int
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    write_clean(rng, 120, 30)
    path = layout.clean(LOCALE).products
    found = tables.read_table(path, tables.PRODUCTS, "").slice(without_text)
    tables.write_table(path, found, tables.PRODUCTS)
    products, queries = random_vectors(rng, len(found)), random_vectors(rng, 30)
    write_embeddings(params(), products, queries)
    for stage in (index.index, retrieve.retrieve):
        stage(params(), LOCALE)
    judged, depth = system_scores.read_judged(LOCALE), params().retrieve.depth
    scores, _ = system_scores.score("dense", LOCALE, judged, params().evaluate, depth)
    recorded = metrics.means(scores.measures)["ndcg@10"]
    assert ndcg(read_catalogue(LOCALE).judgements, products, queries, "cosine") == recorded > 0


@pytest.fixture
def tiny_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a tiny encoder for all locales, and a small demo that is yet to be made."""
    monkeypatch.delenv("ESCI_DIR", raising=False)
    monkeypatch.setenv("PIPELINE_CACHE", str(project / ".cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    # A default prompt of the model's own: no side may take it in.
    build_model(project / "tiny", prompts={"own": "never read this: "})
    yaml = YAML()
    data = yaml.load(project / PARAMS_FILE)
    tiny = data["encoders"]["e5-small-q4"] | {
        "weights": {"kind": "folder", "path": "tiny"}, "max_tokens": 40
    }  # fmt: skip
    data["encoders"]["tiny"] = tiny
    data["encoder"] = dict.fromkeys(data["encoder"], "tiny")
    data["demo"] |= {"products": 100, "queries": 20}
    yaml.dump(data, project / PARAMS_FILE)
    return project


def test_all_sides_encode_the_same_texts_to_near_vectors(
    tiny_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--texts", "7", "--rounds", "2", "--queries", "15")
    monkeypatch.setattr(sys, "argv", ["bench", *arguments])
    assert encode.main() == 0
    printed = capsys.readouterr().out
    report = json.loads((tiny_project / layout.ENCODE_BENCH).read_text())
    tiny = report["encoders"]["tiny"]
    assert tiny["locales"] == ["us", "es", "jp"]
    assert tiny["texts"] == 7
    # One token a byte, and titles are longer than that: all texts are cut.
    assert tiny["tokens"] == [7 * 40] * 2
    assert list(tiny["sides"]) == sorted(map(str, encode.SIDES["cpu"]))
    baseline = tiny["sides"].pop(str(Side(BASELINE, "cpu")))
    assert baseline["ratio"] == {"max": 1.0, "median": 1.0, "min": 1.0}
    assert baseline["cosine_distance"] == 0
    assert set(baseline["ndcg@10"]) == {"us", "es", "jp"}
    for name, found in tiny["sides"].items():
        rounded = "int8" in name or "bfloat16" in name
        assert found["cosine_distance"] < (0.1 if rounded else 1e-5), name
        assert found["cosine_distance"] > 1e-7 or not rounded
        assert 0 <= found["share_of_peak"] <= 1
        assert found["ratio"]["min"] <= found["ratio"]["median"] <= found["ratio"]["max"]
        for locale, value in found["ndcg@10"].items():
            lost = value - baseline["ndcg@10"][locale]
            assert found["ndcg@10_difference"][locale] == pytest.approx(lost, abs=1e-5)
    assert all(10 < each["peak_megabytes"] < 10_000 for each in tiny["sides"].values())
    assert printed == (tiny_project / layout.ENCODE_BENCH).with_suffix(".md").read_text()
    assert printed.count("| tiny |") == len(encode.SIDES["cpu"])
    for found in report["peak_gflops"].values():
        assert 0 < found["one_thread"] <= 2 * found["all_threads"]


def test_an_encoder_that_no_locale_uses_is_refused(tiny_project: Path, run_stage: RunStage) -> None:
    done = run_stage("bench.encode", "--encoder", "labse")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert (
        "--encoder labse: no locale uses it. Name one that encoder in params.yaml has: tiny."
        in done.stderr
    )


def test_a_side_that_dies_ends_the_bench(tiny_project: Path, tmp_path: Path) -> None:
    (tiny_project / "tiny" / "model.safetensors").unlink()
    with (
        encode.Process("tiny", Side(BASELINE, "cpu"), tmp_path) as process,
        pytest.raises(PipelineError, match=r"tiny on sentence-transformers cpu .* status 1"),
    ):
        process.encode(["a"], "query")


def test_the_evaluation_is_timed_on_numbers_that_equal_pytrec_evals(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(evaluate_bench, "QUERIES_A_PIECE", 13)
    monkeypatch.setattr(sys, "argv", ["bench", "--queries", "40", "--rounds", "2"])
    assert evaluate_bench.main() == 0
    printed = capsys.readouterr().out
    report = json.loads((project / reports.EVALUATE).read_text())
    assert (report["queries"], report["depth"]) == (40, 1_000)
    assert report["largest_difference"] < 1e-9
    # All measures of the catalogue track: nDCG, RR, recall, precision, AP, judged.
    assert len(report["measures"]) == 17
    assert {name: len(rounds) for name, rounds in report["seconds"].items()} == {
        "pipeline": 2, "pytrec_eval": 2,
    }  # fmt: skip
    assert 0 < report["ratio"]["min"] <= report["ratio"]["median"] <= report["ratio"]["max"]
    assert 0 < report["conversion_share"] < 1
    assert printed == (project / reports.EVALUATE).with_suffix(".md").read_text()


def test_the_evaluation_bench_fails_where_a_number_differs_or_a_measure_is_missing() -> None:
    mine = {"ndcg@10": np.array([0.5, np.nan]), "retrieved": np.array([3.0, 3.0])}
    other = {"ndcg@10": np.array([0.5 + 5e-10, 0.0])}
    assert evaluate_bench.largest_difference(mine, other) == pytest.approx(5e-10)
    with pytest.raises(PipelineError, match=r"ndcg@10 differs by 2e-09 from pytrec_eval"):
        evaluate_bench.largest_difference(mine, {"ndcg@10": np.array([0.5, 2e-9])})
    with pytest.raises(PipelineError, match="only one side has mrr@10, ndcg@10"):
        evaluate_bench.largest_difference(mine, {"mrr@10": np.zeros(2)})


def test_an_evaluation_bench_shallower_than_a_cutoff_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench", "--queries", "5", "--depth", "999"])
    assert evaluate_bench.main() == 1
    assert "--depth 999 is less than the deepest cutoff" in capsys.readouterr().err


def test_a_process_that_ends_while_workers_are_looked_for_is_none_of_them() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie, until it is waited for
    try:
        assert workers() == []
        assert not kill_a_worker()
    finally:
        ended.wait()
