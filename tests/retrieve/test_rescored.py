"""Rescoring: what codes propose is ordered and scored as a flat index does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.params import FlatIndex, Index, Similarity
from pipeline.index.build import build_index
from pipeline.retrieve import neighbours, rescored
from pipeline.retrieve.rescored import Rescored
from pipeline.runs import ranking
from pipeline.search.nearest import nearest
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.shards import ShardReader
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

ROWS, DIMENSION, QUERIES = 700, 48, 40
SIMILARITIES: tuple[Similarity, ...] = ("cosine", "dot", "l2")
QUANTISED: tuple[dict[str, Any], ...] = (
    {"kind": "sq8"},
    {"kind": "ivf-pq", "lists": 4, "probes": 2, "subvectors": 12, "bits": 4},
    {"kind": "rabitq", "bits": 1},
    {"kind": "eden", "bits": 2},
    {"kind": "pq-fastscan", "subvectors": 12},
    {"kind": "ivf-pq-fastscan", "lists": 4, "probes": 2, "subvectors": 12},
)


def of(settings: dict[str, Any], factor: int | None = None) -> Index:
    """Return an entry of `indexes`."""
    given = settings if factor is None else {**settings, "rescore": factor}
    index: Index = TypeAdapter(Index).validate_python(given)
    return index


@pytest.fixture
def stored(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Vectors of any length in several shards, a third of them twice; a test may set their type."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rescored, "SCORED_PAIRS", 5_000)
    rng = np.random.default_rng(1)
    write_clean(rng, ROWS, QUERIES)
    products = random_vectors(rng, ROWS) * rng.uniform(0.5, 2, (ROWS, 1)).astype(np.float32)
    products[ROWS // 2 :] = np.where(
        rng.random((ROWS // 2, 1)) < 0.6, products[: ROWS // 2], products[ROWS // 2 :]
    )
    given = params({"embed.dtype": getattr(request, "param", "float32"), "embed.shard_rows": 150})
    manifest = write_embeddings(given, products, random_vectors(rng, QUERIES))
    return ShardReader(manifest, "products", LOCALE), random_vectors(rng, QUERIES)


def same_as_flat(scores: Any, codes: Any, truth: Matrix) -> None:
    """Check that scores are the truth, and the order that of `ranking` by it, but for rounding."""
    ids = np.where(codes == ranking.NO_PRODUCT, 0, codes)
    exact = np.where(codes == ranking.NO_PRODUCT, -np.inf, np.take_along_axis(truth, ids, axis=1))
    np.testing.assert_allclose(scores, exact, atol=2e-6 * max(1, np.abs(truth).max()))
    first, second = scores[:, :-1], scores[:, 1:]
    assert ((first > second) | ((first == second) & (codes[:, :-1] >= codes[:, 1:]))).all()


@pytest.mark.parametrize("stored", ["float32", "float16"], indirect=True)
@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_what_the_codes_propose_has_the_scores_and_the_order_of_a_flat_index(
    stored: tuple[ShardReader, Matrix], similarity: Similarity
) -> None:
    vectors, raw = stored
    queries = to_index_form(raw, similarity, "queries")
    flat = build_index(FlatIndex(kind="flat"), DIMENSION, similarity, vectors)
    every, order = neighbours.search(flat, queries, ROWS)
    truth = np.empty_like(every)
    np.put_along_axis(truth, order, every, axis=1)
    for settings in QUANTISED:
        codes_alone = build_index(of(settings), DIMENSION, similarity, vectors)
        index = rescored.rescored(codes_alone, of(settings, 4), similarity, vectors)
        scores, codes = neighbours.search(index, queries, 20)
        same_as_flat(scores, codes, np.asarray(truth))
        # Of the first 80 by the codes, they are the best 20.
        _, proposed = neighbours.search(codes_alone, queries, 80)
        for mine, theirs, own in zip(codes, proposed, truth, strict=True):
            assert set(mine) <= set(theirs)
            left = np.setdiff1d(theirs, [*mine, ranking.NO_PRODUCT])
            assert own[left].max() <= own[mine[mine >= 0]].min() + 2e-6 * np.abs(truth).max()
        # As many as there are: everything is found, as by a flat index.
        if "probes" not in settings:
            _, all_codes = neighbours.search(index, queries, ROWS // 2)
            assert neighbours.overlap(all_codes, order[:, : ROWS // 2]) == 1


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_threads_and_the_number_of_queries_change_nothing(
    stored: tuple[ShardReader, Matrix], similarity: Similarity
) -> None:
    vectors, raw = stored
    queries, threads = to_index_form(raw, similarity, "queries"), faiss.omp_get_max_threads()
    for settings in QUANTISED:
        built = build_index(of(settings), DIMENSION, similarity, vectors)
        index = rescored.rescored(built, of(settings, 3), similarity, vectors)
        found = []
        for count in (1, 2, 3):
            faiss.omp_set_num_threads(count)
            found.append(neighbours.search(index, queries, 30))
        faiss.omp_set_num_threads(threads)
        singly = [neighbours.search(index, queries[at : at + 1], 30) for at in range(5)]
        for part in (0, 1):
            assert len({each[part].tobytes() for each in found}) == 1
            alone = np.concatenate([each[part] for each in singly])
            np.testing.assert_array_equal(alone, found[0][part][:5])


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_among_some_products_all_of_those_are_compared(
    stored: tuple[ShardReader, Matrix], similarity: Similarity
) -> None:
    vectors, raw = stored
    flat = build_index(FlatIndex(kind="flat"), DIMENSION, similarity, vectors)
    allowed = np.random.default_rng(2).random(ROWS) < 0.1
    for settings in QUANTISED:
        built = build_index(of(settings), DIMENSION, similarity, vectors)
        index = rescored.rescored(built, of(settings, 9), similarity, vectors)
        for query in to_index_form(raw[:3], similarity, "queries")[:, None]:
            # A ninth of those allowed are wanted: all of them are ordered by their vectors.
            wanted = int(allowed.sum()) // 9 + 1
            scores, codes = nearest(index, query, wanted, allowed)
            expected, order = nearest(flat, query, wanted, allowed)
            assert (codes == order).mean() > 0.8  # nearly equal scores may change places
            np.testing.assert_allclose(scores, expected, atol=2e-5)


def test_an_entry_without_rescore_or_with_1_is_the_index_itself(
    stored: tuple[ShardReader, Matrix],
) -> None:
    vectors, _ = stored
    for settings in QUANTISED:
        built = object()
        for factor in (None, 1):
            assert rescored.rescored(built, of(settings, factor), "dot", vectors) is built
        assert isinstance(rescored.rescored(built, of(settings, 2), "dot", vectors), Rescored)
    assert "rescore" not in of({"kind": "sq8"}).model_dump()
    assert of({"kind": "sq8"}, 4).model_dump() == {"kind": "sq8", "rescore": 4}


def test_a_factor_that_cannot_be_and_one_for_an_index_of_whole_vectors_are_refused() -> None:
    for wrong in (0, -1, 1_001, 2.5, "4"):
        with pytest.raises(ValidationError, match="rescore"):
            of({"kind": "sq8", "rescore": wrong})
    for whole in ({"kind": "flat"}, {"kind": "ivf-flat", "lists": 4, "probes": 1}):
        with pytest.raises(ValidationError, match="rescore"):
            of({**whole, "rescore": 4})
