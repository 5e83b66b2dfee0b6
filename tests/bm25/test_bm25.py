"""BM25 is the formula, ranked in the protocol's total order."""

import math
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from pipeline.bm25 import analysers
from pipeline.bm25 import search as bm25_search
from pipeline.bm25 import stage as bm25
from pipeline.bm25 import texts as bm25_texts
from pipeline.core import files, layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Bm25
from pipeline.runs import card as run_card
from pipeline.runs.inputs import Inputs, read_inputs
from tests.helpers.artefacts import LOCALE, ROOT, params, write_clean
from tests.helpers.terms import index_of

LUCENE = Bm25(k1=1.2, b=0.75)
Terms = list[list[str]]


def formula(products: Terms, query: list[str], settings: Bm25) -> NDArray[np.float64]:
    """The formula of the module's docstring, term by term."""
    counts = [Counter(terms) for terms in products]
    mean = sum(map(len, products)) / len(products)
    scores = np.zeros(len(products))
    for term in query:
        having = sum(term in count for count in counts)
        idf = math.log(1 + (len(products) - having + 0.5) / (having + 0.5))
        for code, count in enumerate(counts):
            if count[term]:
                norm = 1 - settings.b + settings.b * len(products[code]) / mean
                scores[code] += idf * count[term] / (count[term] + settings.k1 * norm)
    return scores


def random_terms(rng: np.random.Generator, texts: int, longest: int) -> Terms:
    """Return texts of up to `longest` terms, some empty, of a small skewed vocabulary."""
    return [
        [f"t{min(term, 40)}" for term in rng.geometric(0.15, rng.integers(0, longest))]
        for _ in range(texts)
    ]


def test_scores_are_those_of_the_formula() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        settings = Bm25(
            k1=float(rng.choice([0, 0.9, 1.2, 3])), b=float(rng.choice([0, 0.4, 0.75, 1]))
        )
        products = [*random_terms(rng, int(rng.integers(2, 80)), 30), ["t1"]]
        index = index_of(products, settings)
        for query in [*random_terms(rng, 20, 8), ["t1", "t1"], ["unheard of"], []]:
            np.testing.assert_allclose(
                index.scores(query), formula(products, query, settings), rtol=1e-12, atol=1e-15
            )


def test_products_without_any_term_are_searched_without_a_hit() -> None:
    assert index_of([[], [], []], LUCENE).scores(["t1"]).tolist() == [0, 0, 0]


def test_scores_do_not_depend_on_the_order_of_the_products() -> None:
    rng = np.random.default_rng(9)
    products = random_terms(rng, 60, 20)
    order = rng.permutation(60)
    one, other = (
        index_of(products, LUCENE),
        index_of([products[i] for i in order], LUCENE),
    )
    for query in random_terms(rng, 10, 6):
        np.testing.assert_array_equal(one.scores(query)[order], other.scores(query))


@pytest.mark.parametrize("depth", [1, 3, 10, 40, 1000])
def test_a_search_finds_the_first_in_total_order_and_nothing_without_a_shared_term(
    depth: int,
) -> None:
    rng = np.random.default_rng(depth)
    products = random_terms(rng, 300, 4)  # short: many are equal
    queries = random_terms(rng, 25, 5)
    index = index_of(products, LUCENE)
    pairs = np.argwhere(rng.random((25, 300)) < 0.05)
    inputs = Inputs(pa.chunked_array([range(25)]), pa.chunked_array([range(300)]), *pairs.T)
    batch = range(4, 25)
    found, pool = bm25_search.search(index, queries, batch, depth, inputs)
    judged = {row: pairs[pairs[:, 0] == row, 1] for row in batch}
    expected: list[tuple[int, int]] = []
    ranked_pool: list[tuple[int, int]] = []
    for row in batch:
        exact = np.round(formula(products, queries[row], LUCENE), 6)
        order = np.lexsort((-np.arange(300), -exact))
        expected += [(row, code) for code in order if exact[code] > 0][:depth]
        ranked_pool += [(row, code) for code in order if code in judged[row]]
    assert list(zip(found[0], found[1], strict=True)) == expected
    assert list(zip(pool[0], pool[1], strict=True)) == ranked_pool
    assert (pool[2] == 0).any()


def test_where_all_products_tie_no_more_than_one_querys_ties_are_held_at_once() -> None:
    products, depth = 20_000, 10
    index = index_of([["t1"]] * products + [["t2"]], Bm25(k1=0, b=0.75))
    nothing = np.empty(0, dtype=np.int64)
    inputs = Inputs(pa.chunked_array([[]]), pa.chunked_array([[]]), nothing, nothing)

    def peak(queries: int) -> int:
        tracemalloc.start()
        found, _ = bm25_search.search(index, [["t1"]] * queries, range(queries), depth, inputs)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert found[1].tolist() == [*range(products - 1, products - 1 - depth, -1)] * queries
        return peak

    assert peak(100) - peak(1) < 100 * (100 * depth + 1_000) < products * 8 * 100


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Clean tables in a folder of their own; returns the judgements."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIPELINE_CACHE", raising=False)
    judgements = write_clean(np.random.default_rng(4), 60, 20)
    _set_texts("products", [f"zapato número {i % 7} {'rojo' * (i % 2)}" for i in range(60)])
    _set_texts("queries", ["¡¿?!", "nada de eso", *(f"Zapatos rojos {i}" for i in range(18))])
    return judgements


def _set_texts(side: str, texts: list[str]) -> None:
    path = layout.clean(LOCALE).folder / f"{side}.parquet"
    schema = {"products": tables.PRODUCTS, "queries": tables.QUERIES}[side]
    table = tables.read_table(path, schema, "")
    place = table.schema.get_field_index("text")
    tables.write_table(path, table.set_column(place, "text", pa.array(texts)), schema)


def _run(track: str) -> pa.Table:
    return tables.read_table(layout.runs("bm25", LOCALE).track(track), tables.RUN, "")


def test_a_query_of_punctuation_or_of_other_words_retrieves_nothing(clean: pa.Table) -> None:
    bm25.bm25(params(), LOCALE)
    queries = tables.read_table(layout.clean(LOCALE).queries, tables.QUERIES, "")
    retrieved = set(_run("catalogue")["query_id"].to_pylist())
    assert retrieved == set(queries["query_id"].to_pylist()[2:])


def test_the_pool_run_ranks_exactly_the_judged_pairs_those_without_a_shared_term_at_0(
    clean: pa.Table,
) -> None:
    bm25.bm25(params(), LOCALE)
    pool = _run("pool").to_pandas()
    pairs = zip(pool["query_id"], pool["product_id"], strict=True)
    judged = zip(clean["query_id"].to_pylist(), clean["product_id"].to_pylist(), strict=True)
    assert sorted(pairs) == sorted(judged)
    first = pool[pool["query_id"] == clean["query_id"][0].as_py()]
    assert (first["score"] == 0).all()
    assert first["product_id"].is_monotonic_decreasing


def test_the_card_says_what_the_runs_are_of(clean: pa.Table) -> None:
    bm25.bm25(params({"bm25.k1": 2.5, "retrieve.depth": 1000}), LOCALE)
    inputs = read_inputs(LOCALE)
    card = run_card.read_card(
        layout.runs("bm25", LOCALE), "bm25", inputs.queries, inputs.products, "do"
    )
    texts = layout.clean(LOCALE)
    assert card.of == {
        "language": "es", "analyser": "snowball-es", "k1": "2.5", "b": "0.75",
        "product_texts_sha256": files.sha256_file(texts.products),
        "query_texts_sha256": files.sha256_file(texts.queries),
    }  # fmt: skip
    assert card.depth == 1000


@pytest.mark.parametrize("change", [{"bm25.k1": 0.1}, {"bm25.b": 0.0}, {"language.es": "vi"}])
def test_a_setting_is_obeyed(clean: pa.Table, change: dict[str, Any]) -> None:
    bm25.bm25(params(), LOCALE)
    before = _run("catalogue")
    bm25.bm25(params(change), LOCALE)
    assert not _run("catalogue").equals(before)


def _fingerprint() -> dict[str, str]:
    folder = layout.runs("bm25", LOCALE).folder
    return {path.name: files.sha256_file(path) for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_batches_threads_and_hash_seeds_change_no_score_and_order(
    clean: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    bm25.bm25(params(), LOCALE)
    before, catalogue, pool = _fingerprint(), _run("catalogue"), _run("pool")
    (Path.cwd() / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "pipeline.bm25", "--locale", LOCALE],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "4242",
             "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        check=True, capture_output=True,
    )  # fmt: skip
    assert done.stdout == b""
    assert len(done.stderr.splitlines()) == 2
    assert _fingerprint() == before
    monkeypatch.setattr(bm25, "BATCH_QUERIES", 3)
    monkeypatch.setattr(bm25, "QUERIES_AT_ONCE", 2)
    monkeypatch.setattr(bm25_texts, "BATCH_TEXTS", 7)
    monkeypatch.setattr(bm25_search, "RANGE_PRODUCTS", 9)
    bm25.bm25(params(), LOCALE)
    assert _run("catalogue").equals(catalogue)
    assert _run("pool").equals(pool)


def test_a_language_without_a_stemmer_is_searched_with_a_warning(
    clean: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    bm25.bm25(params({"language.es": "ja"}), LOCALE)
    assert "warning" not in caplog.text
    bm25.bm25(params({"language.es": "vi"}), LOCALE)
    assert "warning: language.es: no stemmer knows vi" in caplog.text
    assert len(_run("catalogue"))


def test_a_missing_clean_table_is_told_with_the_way_out(
    clean: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout.clean(LOCALE).products.unlink()
    with pytest.raises(PipelineError, match=r"products.parquet is missing. Run `dvc repro clean@"):
        bm25.bm25(params(), LOCALE)
    assert not layout.runs("bm25", LOCALE).folder.exists()


def test_the_stage_says_what_it_did_and_prints_nothing_else(
    clean: pa.Table, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    monkeypatch.setattr(sys, "argv", ["bm25", "--locale", LOCALE])
    assert stage.run_locales("bm25", bm25.bm25) == 0
    out, err = capfd.readouterr()
    assert out == ""
    first, second = err.splitlines()
    terms = {term for text in _texts() for term in analysers.analyser_for("es").terms(text)}
    assert first == (
        "bm25 locale=es analyser=snowball-es queries=20 retrieved_nothing=2 products=60 reused=0 "
        f"terms={len(terms)}"
    )
    assert second.startswith("stage=bm25 locale=es seconds=")


def _texts() -> list[str]:
    table = tables.read_table(layout.clean(LOCALE).products, tables.PRODUCTS, "")
    return list(table["text"].to_pylist())
