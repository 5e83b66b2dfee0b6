"""A cluster and one process search the same by turns, and what they find is compared."""

from pathlib import Path

import numpy as np
import pytest

from bench import ray_ranges
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_words_are_searched_by_ranges_on_both_sides_with_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # for Ray's workers
    with pytest.MonkeyPatch.context() as inside:
        inside.chdir(tmp_path)
        write_clean(np.random.default_rng(1), 300, 40)
    monkeypatch.setattr("pipeline.bm25.texts.PIECE_PRODUCTS", 20)
    found = ray_ranges.measure_bm25(params(), LOCALE, tmp_path, 30, 1, 2, lambda: False)
    assert found["identical_bytes"]
    assert (found["products"], found["queries"]) == (300, 30)
    assert found["ranges"]["local"] == 1
    assert found["ranges"]["ray"] > 1
    assert {side: len(of) for side, of in found["seconds"].items()} == {"local": 1, "ray": 1}
    assert found["killed"]["workers_killed"] == 0


def test_other_bytes_on_one_side_are_told() -> None:
    answers = iter("aab")
    found = ray_ranges.by_turns(
        {"local": lambda: "a", "ray": lambda: next(answers)}, 1, lambda: False
    )
    assert not found["identical_bytes"]
