"""Postings are those of bm25s, whatever pieces they are made in; their memory is predicted."""

import re
from pathlib import Path

import bm25s
import numpy as np
import pytest

from pipeline.bm25 import analysers, postings
from pipeline.bm25 import stage as bm25
from pipeline.bm25.counting import count_terms
from pipeline.bm25.search import TermIndex
from pipeline.core import layout, memory
from pipeline.core.errors import PipelineError
from pipeline.core.params import Bm25
from pipeline.plan.costs import default_cost
from tests.helpers.artefacts import LOCALE, params, write_clean
from tests.helpers.peaks import numbers_told
from tests.helpers.terms import index_of, postings_of


@pytest.mark.parametrize("piece", [1, 50, 10_000])
def test_postings_are_those_of_bm25s_to_the_last_bit_in_any_pieces(
    piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(postings, "WEIGHED_AT_ONCE", int(rng.integers(1, 2_000)))
        settings = Bm25(k1=float(rng.uniform(0, 2)), b=float(rng.random()))
        products = [
            [f"t{term}" for term in rng.geometric(0.03, rng.integers(0, 50))]
            for _ in range(int(rng.integers(3, 300)))
        ] + [["t1"] * 300]
        found = postings_of(products, piece)
        theirs = bm25s.BM25(
            k1=settings.k1, b=settings.b, method="lucene", dtype="float64",
            backend="numpy", csc_backend="numpy",
        )  # fmt: skip
        numbered = [[found.vocabulary[term] for term in terms] for terms in products]
        theirs.index((numbered, found.vocabulary), create_empty_token=False, show_progress=False)
        np.testing.assert_array_equal(found.products, theirs.scores["indices"])
        np.testing.assert_array_equal(found.starts, theirs.scores["indptr"])
        weights = TermIndex.of(found, settings, threads=2).weights
        np.testing.assert_array_equal(weights, theirs.scores["data"])
        lazy = TermIndex.of(found, settings)
        for query in [["t1", "t9", "t1"], [f"t{n}" for n in range(200)], ["none", "t3"]]:
            known = [found.vocabulary[term] for term in query if term in found.vocabulary]
            expected = theirs.get_scores_from_ids(known)
            np.testing.assert_array_equal(lazy.scores(query), expected)
            np.testing.assert_array_equal(index_of(products, settings).scores(query), expected)


def test_the_memory_told_after_a_piece_is_that_of_all_products_like_it() -> None:
    rng = np.random.default_rng(1)
    products = [[f"t{term}" for term in rng.integers(0, 10**6, 90)] for _ in range(5_000)]
    told: list[int] = []
    postings.collect(
        (count_terms(products[row : row + 100]) for row in range(0, 5_000, 100)),
        lambda found: told.append(found.memory_bytes("words", 10**6, 0)),
    )
    assert len(told) == 50
    assert told[10] == pytest.approx(told[-1], rel=0.25)


SEARCH = """
import sys
import numpy as np
import pyarrow as pa
from itertools import chain, islice
from pipeline.bm25 import analysers, postings, search as bm25
from pipeline.bm25.counting import count_terms
from pipeline.core.params import Bm25
from pipeline.runs import inputs as runs
kind, products, depth, queries = sys.argv[1], int(sys.argv[2]), 50, 100
rng = np.random.default_rng(1)
def texts():
    for row in range(products):
        match kind:
            case "long": yield [f"t{n}" for n in range(150)]
            case "new": yield [f"t{row}x{n}" for n in range(20)]
            case "repeated": yield ["t1", "t2"] * 100
            case "tied": yield ["t1"]
            case "japanese": yield analyser.terms("".join(map(chr, rng.integers(*KANA_AND_KANJI))))
KANA_AND_KANJI = (np.repeat([0x3041, 0x4E00], 60), np.repeat([0x30FF, 0x9FA0], 60))
nothing = np.empty(0, dtype=np.int64)
inputs = runs.Inputs(pa.chunked_array([[]]), pa.chunked_array([[]]), nothing, nothing)
def search(index):
    bm25.search(index, [["t1"]] * queries, range(queries), depth, inputs)
def pieces(texts):
    for first in texts:
        yield count_terms(chain([first], islice(texts, 8_191)))
def build(texts, taken=lambda _: None):
    return bm25.TermIndex.of(postings.collect(pieces(texts), taken), Bm25(k1=0, b=0), 1)
search(build(iter([["t1"], ["t2"]])))  # loads what there is to load
before, told = held("VmRSS"), []
analyser = analysers.analyser_for("ja" if kind == "japanese" else "any")
def taken(found):
    told.append(found.memory_bytes(analyser.name, products, queries * depth))
search(build(texts(), taken))
print(held("VmHWM") - before, told[-1])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "products"),
    # Pieces of long texts; a vocabulary; few different terms; scores; Sudachi's dictionary.
    [("long", 9_000), ("new", 20_000), ("repeated", 9_000), ("tied", 400_000), ("japanese", 4_000)],
)
def test_bm25_takes_no_more_memory_than_predicted(kind: str, products: int) -> None:
    taken, told = numbers_told(SEARCH, kind, str(products))
    assert taken <= told - memory.PROCESS_BYTES
    assert taken > (told - memory.PROCESS_BYTES) / 2


@pytest.mark.slow
def test_a_limit_once_recommended_does_for_all_that_is_predicted_later() -> None:
    rng = np.random.default_rng(2)
    told: list[int] = []
    # Texts become longer, as those of newer products do.
    texts = [[f"t{n}" for n in rng.integers(0, 10**4, 50 + row // 3_000)] for row in range(30_000)]
    postings.collect(
        (count_terms(texts[row : row + 8_192]) for row in range(0, len(texts), 8_192)),
        lambda found: told.append(found.memory_bytes("words", 3_000_000, 0)),
    )
    assert told[-1] > told[0] + 10**8
    with pytest.raises(PipelineError, match=r"[Ss]et runtime") as refused:
        memory.check(told[0], "it", params({"runtime.memory_limit": 0.1}).runtime, "")
    enough = float(re.findall(r"memory_limit to ([\d.]+)", str(refused.value))[0])
    for later in told:
        memory.check(later, "it", params({"runtime.memory_limit": enough}).runtime, "")


@pytest.mark.parametrize("analyser", ["sudachi-bigrams", "snowball-en", "words"])
def test_the_plan_reckons_with_the_same_memory(analyser: str) -> None:
    units = {"products": 50_000, "queries": 300, "depth": 100, "counted": 50_000}
    planned = default_cost("bm25", analyser, units).work_bytes
    least = postings.memory_bytes(
        analyser, 50_000, postings=0, terms=0, piece_terms=0, piece_postings=0, found=25_600
    )
    assert least > memory.PROCESS_BYTES + analysers.dictionary_bytes(analyser)
    assert least < planned < 4 * least
    counting = default_cost("bm25", analyser, {**units, "workers": 6}).work_bytes
    assert counting > least + 5 * postings.WORKER_BYTES
    with_six = postings.memory_bytes(
        analyser, 50_000, postings=0, terms=0, piece_terms=0, piece_postings=0, found=0, workers=6
    )
    assert with_six >= memory.PROCESS_BYTES + 6 * postings.WORKER_BYTES


def test_bm25_refuses_what_would_pass_the_limit_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(3), 60, 20)
    with pytest.raises(
        PipelineError,
        match=r"bm25 of the 60 es products would take 0\.3 GB .* the 0\.1 GB that runtime"
        r".memory_limit allows. Draw fewer \(sample\.distractors\)",
    ):
        bm25.bm25(params({"runtime.memory_limit": 0.1}), LOCALE)
    assert not layout.runs("bm25", LOCALE).folder.exists()
