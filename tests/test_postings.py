"""Postings are those of bm25s, whatever pieces they are made in."""

from pathlib import Path

import bm25s
import numpy as np
import pytest

from pipeline import bm25, layout
from pipeline.errors import PipelineError
from pipeline.params import Bm25
from pipeline.search import postings
from tests.artefacts import LOCALE, params, write_clean


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("piece", [1, 50, 10_000])
def test_postings_are_those_of_bm25s_to_the_last_bit_in_any_pieces(
    seed: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postings, "PIECE_PRODUCTS", piece)
    rng = np.random.default_rng(seed)
    settings = Bm25(k1=float(rng.uniform(0, 2)), b=float(rng.random()))
    products = [
        [f"t{term}" for term in rng.geometric(0.03, rng.integers(0, 50))]
        for _ in range(int(rng.integers(3, 300)))
    ] + [["t1"] * 300]
    found = postings.collect(products)
    theirs = bm25s.BM25(
        k1=settings.k1, b=settings.b, method="lucene", dtype="float64",
        backend="numpy", csc_backend="numpy",
    )  # fmt: skip
    numbered = [[found.vocabulary[term] for term in terms] for terms in products]
    theirs.index((numbered, found.vocabulary), create_empty_token=False, show_progress=False)
    ours = found.score(settings)
    assert ours["num_docs"] == theirs.scores["num_docs"]
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(ours[name], theirs.scores[name])


def test_the_memory_told_after_a_piece_is_that_of_all_products_like_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postings, "PIECE_PRODUCTS", 100)
    rng = np.random.default_rng(1)
    products = [[f"t{term}" for term in rng.integers(0, 10**6, 90)] for _ in range(5_000)]
    told: list[int] = []
    postings.collect(products, lambda found: told.append(found.memory_bytes(10**6)))
    assert len(told) == 50
    assert told[10] == pytest.approx(told[-1], rel=0.25)


def test_bm25_refuses_what_would_pass_the_limit_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(3), 60, 20)
    with pytest.raises(
        PipelineError,
        match=r"bm25 of the 60 es products would take 0\.3 GB .* the 0\.1 GB that runtime"
        r".memory_limit allows; draw fewer \(sample\.distractors\)",
    ):
        bm25.bm25(params({"runtime.memory_limit": 0.1}), LOCALE)
    assert not layout.runs("bm25", LOCALE).exists()
