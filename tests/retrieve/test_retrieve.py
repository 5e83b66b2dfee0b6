"""Runs hold exactly what the protocol's total order says, ties at the last place included."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import FlatIndex, IvfFlatIndex, Similarity
from pipeline.index import stage as stage_index
from pipeline.index.build import build_index
from pipeline.retrieve import neighbours
from pipeline.retrieve import stage as retrieve
from pipeline.retrieve.neighbours import search
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.inputs import read_inputs
from pipeline.vectors import pairs as vector_pairs
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.pairs import score_pairs
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    tie_heavy,
    write_clean,
    write_embeddings,
)

FLAT = FlatIndex(kind="flat")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("depth", [1, 3, 10, 120, 1000])
def test_ties_at_the_last_place_are_decided_by_id_and_not_by_faiss(
    similarity: Similarity, depth: int
) -> None:
    rng = np.random.default_rng(depth)
    products, queries = tie_heavy(rng, 600), tie_heavy(rng, 40)
    index = build_index(FLAT, 6, similarity, [products])
    searched = to_index_form(queries, similarity, "queries")
    scores, codes = search(index, searched, depth)
    compared = to_index_form(products, similarity, "products")
    for row, query in enumerate(searched):
        exact = np.round(
            score_pairs(np.broadcast_to(query, compared.shape), compared, similarity), 6
        )
        expected = np.lexsort((-np.arange(600), -exact))[:depth]
        np.testing.assert_array_equal(codes[row], expected)
        np.testing.assert_allclose(scores[row], exact[expected], atol=2e-6)


def test_an_approximate_index_that_finds_too_few_fills_up_with_no_product() -> None:
    rng = np.random.default_rng(0)
    products = random_vectors(rng, 200)
    one_list = IvfFlatIndex(kind="ivf-flat", lists=20, probes=1)
    index = build_index(one_list, 48, "cosine", [products])
    scores, codes = search(index, to_index_form(random_vectors(rng, 5), "cosine", "q"), 100)
    assert codes.shape == scores.shape == (5, 100)
    assert ((codes >= 0) == np.isfinite(scores)).all()
    assert (codes[:, -1] == -1).all()
    assert (codes[:, 0] >= 0).all()


@pytest.fixture
def judgements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pa.Table:
    """Clean tables, embeddings and a flat index in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    written = write_clean(rng, 250, 30)
    write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 30))
    stage_index.index(params(), LOCALE)
    return written


def _run(track: str) -> pa.Table:
    return tables.read_table(layout.runs("dense", LOCALE).track(track), tables.RUN, "")


def test_the_catalogue_run_ranks_every_product_for_every_query_down_to_the_depth(
    judgements: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "SEARCHED_QUERIES", 7)
    retrieve.retrieve(params(), LOCALE)
    frame = _run("catalogue").to_pandas()
    assert frame.groupby("query_id").size().tolist() == [250] * 30
    assert frame.groupby("query_id")["product_id"].nunique().tolist() == [250] * 30
    assert frame["rank"].tolist() == list(range(1, 251)) * 30
    assert frame["query_id"].is_monotonic_increasing
    steps = frame.groupby("query_id")["score"].diff().dropna()
    assert (steps <= 0).all()


@pytest.mark.parametrize(("length", "warned"), [(1.0, False), (1e-4, True)])
def test_vectors_so_short_that_rounding_makes_most_scores_equal_are_warned_of(
    length: float, warned: bool, judgements: pa.Table, caplog: pytest.LogCaptureFixture
) -> None:
    encoder = f"encoders.{params().encoder[LOCALE]}"
    given = params({f"{encoder}.similarity": "dot", f"{encoder}.normalize": False})
    rng = np.random.default_rng(5)
    write_embeddings(given, length * random_vectors(rng, 250), length * random_vectors(rng, 30))
    stage_index.index(given, LOCALE)
    retrieve.retrieve(given, LOCALE)
    assert ("have the score of the one before them" in caplog.text) == warned


def test_the_pool_run_ranks_exactly_the_judged_pairs(
    judgements: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrieve.retrieve(params(), LOCALE)
    whole = _run("pool")
    pairs = zip(whole["query_id"].to_pylist(), whole["product_id"].to_pylist(), strict=True)
    judged = zip(
        judgements["query_id"].to_pylist(), judgements["product_id"].to_pylist(), strict=True
    )
    assert sorted(pairs) == sorted(judged)
    monkeypatch.setattr(vector_pairs, "BATCH_BYTES", 1)
    retrieve.retrieve(params(), LOCALE)
    assert _run("pool").equals(whole)


def test_pool_scores_are_those_of_the_catalogue_run_where_the_index_is_exact(
    judgements: pa.Table,
) -> None:
    retrieve.retrieve(params(), LOCALE)
    joined = (
        _run("pool")
        .to_pandas()
        .merge(
            _run("catalogue").to_pandas(),
            on=["query_id", "product_id"],
            suffixes=("", "_catalogue"),
        )
    )
    assert len(joined) == len(judgements)
    np.testing.assert_allclose(joined["score"], joined["score_catalogue"], atol=2e-6)


def test_the_pool_run_does_not_depend_on_the_index(judgements: pa.Table) -> None:
    retrieve.retrieve(params(), LOCALE)
    exact = _run("pool")
    lossy = params({"index.es": "ivf-pq", "indexes.ivf-pq.bits": 4, "indexes.ivf-pq.lists": 4,
                    "indexes.ivf-pq.probes": 1})  # fmt: skip
    stage_index.index(lossy, LOCALE)
    retrieve.retrieve(lossy, LOCALE)
    assert _run("pool").equals(exact)
    assert not _run("catalogue")["rank"].equals(exact["rank"])


def test_the_thread_count_changes_no_byte(judgements: pa.Table) -> None:
    written = set()
    for threads in (1, 2, 3):
        retrieve.retrieve(params({"runtime.threads": threads}), LOCALE)
        folder = layout.runs("dense", LOCALE).folder
        written.add(tuple(sorted((each.name, each.read_bytes()) for each in folder.iterdir())))
    assert len(written) == 1
    assert [name for name, _ in written.pop()] == ["catalogue.parquet", "pool.parquet", "run.json"]


def test_thread_count_and_batch_size_change_no_row(
    judgements: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = set()
    for threads, batch, ranked, group in ((1, 1024, 512, 1024), (2, 1024, 7, 9), (2, 11, 4, 3)):
        monkeypatch.setattr(neighbours, "SEARCHED_QUERIES", batch)
        monkeypatch.setattr(run_files, "QUERIES_A_PIECE", group)
        monkeypatch.setattr(neighbours, "RANKED_QUERIES", ranked)
        retrieve.retrieve(params({"runtime.threads": threads}), LOCALE)
        written.add(str(_run("catalogue").to_pydict()))
    assert len(written) == 1


def test_vectors_of_other_products_are_refused_and_the_old_run_stays(judgements: pa.Table) -> None:
    retrieve.retrieve(params(), LOCALE)
    before = layout.runs("dense", LOCALE).catalogue.read_bytes()
    write_clean(np.random.default_rng(99), 250, 30)
    with pytest.raises(PipelineError, match=r"the queries vectors are of 30 rows .*dvc repro"):
        retrieve.retrieve(params(), LOCALE)
    assert layout.runs("dense", LOCALE).catalogue.read_bytes() == before


def test_a_run_is_readable_by_plain_parquet_tools(judgements: pa.Table) -> None:
    retrieve.retrieve(params(), LOCALE)
    file = pq.ParquetFile(layout.runs("dense", LOCALE).catalogue)
    assert file.schema_arrow.names == ["query_id", "product_id", "score", "rank", "product_row"]
    assert file.schema_arrow.metadata is None


@pytest.mark.parametrize(
    ("index", "changes"),
    [
        ("flat", {}),
        ("ivf-flat", {"indexes.ivf-flat.probes": 3}),
    ],
)
def test_the_card_tells_what_the_index_finds_of_the_exact_top_100(
    judgements: pa.Table, index: str, changes: dict[str, int]
) -> None:
    given = params({"index.es": index, **changes})
    stage_index.index(params(), LOCALE)
    retrieve.retrieve(params(), LOCALE)
    exact = _first_100()
    stage_index.index(given, LOCALE)
    retrieve.retrieve(given, LOCALE)
    found = _first_100()
    shares = [len(exact[query] & found[query]) / 100 for query in exact]
    card = json.loads(layout.runs("dense", LOCALE).card.read_text())
    assert card["index_overlap"] == pytest.approx(sum(shares) / len(shares), abs=5.1e-6)
    assert (card["index_overlap"] == 1) == (index == "flat")


def _first_100() -> dict[int, set[str]]:
    run = _run("catalogue").to_pandas().query("rank <= 100")
    return {int(query): set(rows) for query, rows in run.groupby("query_id")["product_id"]}


def test_the_overlap_is_of_the_top_100_whatever_the_depth_of_the_run(judgements: pa.Table) -> None:
    shallow = {
        "retrieve.depth": 10, "evaluate.ndcg": [10], "evaluate.recall": [10],
        "evaluate.judged": [10], "evaluate.map": 10,
        "compare.metrics": ["dense.ndcg@10"],
    }  # fmt: skip
    told = set()
    for changes in ({}, shallow):
        given = params({"index.es": "ivf-flat", **changes})
        stage_index.index(given, LOCALE)
        retrieve.retrieve(given, LOCALE)
        card = json.loads(layout.runs("dense", LOCALE).card.read_text())
        told.add(card["index_overlap"])
    assert len(told) == 1


@pytest.mark.parametrize("overlap", [1.5, -0.1, "1.0", True])
def test_a_card_whose_overlap_is_no_share_is_refused(judgements: pa.Table, overlap: object) -> None:
    retrieve.retrieve(params(), LOCALE)
    runs = layout.runs("dense", LOCALE)
    path = runs.card
    path.write_text(json.dumps(json.loads(path.read_text()) | {"index_overlap": overlap}))
    inputs = read_inputs(LOCALE)
    with pytest.raises(PipelineError, match=r"run\.json: index_overlap.*. run it again"):
        run_card.read_card(runs, "dense", inputs.queries, inputs.products, "run it again")
