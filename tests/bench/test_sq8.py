"""sq8 is searched by blocks and by FAISS on the same index, and both must find the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

from bench import reports, sq8
from pipeline.core.files import read_json
from tests.helpers.artefacts import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())


def test_both_searches_have_seconds_of_each_round_and_the_same_results(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("--products", "6000", "--queries", "40", "--rounds", "2")
    monkeypatch.setattr(sys, "argv", ["sq8", *arguments])
    assert sq8.main() == 0
    found = read_json(reports.SQ8, "")
    assert (found["products"], found["queries"], found["same"]) == (6_000, 40, True)
    assert {side: len(rounds) for side, rounds in found["seconds"].items()} == {
        "blocks": 2, "faiss": 2,
    }  # fmt: skip
    ratio = found["times_as_fast"]
    assert 0 < ratio["least"] <= ratio["median"] <= ratio["most"]
    assert found["commit"] == reports.commit()
    assert found["machine"] == reports.machine()


def test_so_few_queries_that_faiss_searches_them_by_itself_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "argv", ["sq8", "--products", "6000", "--queries", "31"])
    assert sq8.main() == 1


def test_a_wrong_product_or_score_among_the_first_is_told() -> None:
    scores = np.array([[0.9, 0.8, 0.7]], np.float32)
    rows = np.array([[4, 2, 7]])
    assert sq8.agree((scores, rows), (scores[:, ::-1], rows[:, ::-1]), 2)
    assert sq8.agree((scores, rows), (scores, np.array([[4, 2, 6]])), 2)
    assert not sq8.agree((scores, rows), (scores, np.array([[4, 6, 7]])), 2)
    assert not sq8.agree((scores, rows), (scores + np.float32(1e-4), rows), 2)
