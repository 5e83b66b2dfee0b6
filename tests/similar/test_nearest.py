"""Each product's neighbours are the nearest by the vectors, however many tie and whoever asks."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.arrays import Floats, Ints, Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import Params
from pipeline.index import stage as stage_index
from pipeline.runs import ranking
from pipeline.similar import nearest
from pipeline.similar import stage as similar
from pipeline.similar.table import check_neighbours, iter_neighbours
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.pairs import score_pairs
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    tie_heavy,
    write_clean,
    write_embeddings,
)

pytestmark = pytest.mark.usefixtures("empty_folder")

SMALL: dict[str, object] = {
    "indexes.ivf-flat": {"kind": "ivf-flat", "lists": 8, "probes": 2},
    "indexes.ivf-pq": {"kind": "ivf-pq", "lists": 8, "probes": 2, "subvectors": 4, "bits": 4},
}


def given(
    kept: int,
    similarity: str = "cosine",
    index: str = "flat",
    changes: Mapping[str, object] | None = None,
) -> Params:
    encoder = params().encoder[LOCALE]
    return params(
        {
            **SMALL,
            "similar.neighbours": kept,
            f"encoders.{encoder}.similarity": similarity,
            f"encoders.{encoder}.normalize": similarity == "cosine",
            f"index.{LOCALE}": index,
            **(changes or {}),
        }
    )


def found(chosen: Params, vectors: Matrix, shard_rows: int = 100) -> list[list[tuple[int, float]]]:
    """Run the stages index and similar; return each product's neighbours and their scores."""
    rng = np.random.default_rng(1)
    write_clean(rng, len(vectors), 20)
    write_embeddings(chosen, vectors, random_vectors(rng, 20, vectors.shape[1]), shard_rows)
    stage_index.index(chosen, LOCALE)
    similar.similar(chosen, LOCALE)
    rows: list[list[tuple[int, float]]] = [[] for _ in vectors]
    for products, others, scores in iter_neighbours(LOCALE):
        for product, other, score in zip(products, others, scores, strict=True):
            rows[product].append((int(other), float(score)))
    return rows


def similarities(vectors: Matrix, similarity: str, rows: Ints | None = None) -> Floats:
    exact = vectors.astype(np.float64)
    own = exact if rows is None else exact[rows]
    if similarity == "l2":
        return np.asarray(-np.square(own[:, np.newaxis] - exact).sum(axis=2))
    if similarity == "cosine":
        own, exact = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (own, exact))
    return np.asarray(own @ exact.T)


def nearest_by_hand(
    vectors: Matrix, similarity: str, kept: int, rows: Ints | None = None
) -> list[list[int]]:
    scores = np.round(similarities(vectors, similarity, rows), ranking.SCORE_DECIMALS)
    rows = np.arange(len(vectors)) if rows is None else rows
    expected = []
    for row, mine in zip(rows, scores, strict=True):
        order: Ints = np.lexsort((-np.arange(len(mine)), -mine))
        expected.append(order[order != row][:kept].tolist())
    return expected


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_they_are_those_of_comparing_all_pairs_ties_by_id(similarity: str) -> None:
    vectors = tie_heavy(np.random.default_rng(3), 300)
    for kept in (10, 1000):
        rows = found(given(kept, similarity), vectors)
        assert [[other for other, _ in row] for row in rows] == nearest_by_hand(
            vectors, similarity, kept
        )


def test_where_all_vectors_are_equal_the_ids_decide() -> None:
    vectors = np.full((260, 6), 1 / 3, dtype=np.float32)
    rows = found(given(10), vectors)
    last = range(259, 248, -1)
    assert [[other for other, _ in row] for row in rows] == [
        [other for other in last if other != row][:10] for row in range(260)
    ]


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_groups_of_equal_vectors_are_compared_once_and_found_whole(
    similarity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(2)
    others = np.round(random_vectors(rng, 300, 3), 1) + 0.01  # some are equal too
    vectors = np.concatenate([others, np.broadcast_to(others[0], (5_000, 3))])
    vectors = vectors[rng.permutation(len(vectors))]
    assert len(vectors) > nearest.SEARCHED
    compared = []

    def counted(first: Matrix, *rest: Any) -> Floats:
        compared.append(len(first))
        return score_pairs(first, *rest)

    monkeypatch.setattr(nearest, "score_pairs", counted)
    rows = found(given(20, similarity), vectors, 2_000)
    distinct = len(np.unique(vectors, axis=0))
    assert 20 * distinct < sum(compared) < 100 * len(vectors)
    equal = np.flatnonzero((vectors == others[0]).all(axis=1))
    asked = np.concatenate(
        [np.setdiff1d(np.arange(len(vectors)), equal), equal[::199], equal[-30:]]
    )
    expected = nearest_by_hand(vectors, similarity, 20, asked)
    assert [[other for other, _ in rows[row]] for row in asked] == expected
    assert all(len(row) == 20 for row in rows)


def test_one_product_has_no_neighbours() -> None:
    rng = np.random.default_rng(0)
    assert found(given(10), random_vectors(rng, 1, 8)) == [[]]
    report = json.loads(layout.similar_report(LOCALE).read_text())
    assert (report["products"], report["neighbours"], report["queries"]) == (1, 0, 0)
    assert report["index_overlap@10"] is None


@pytest.mark.parametrize("index", ["sq8", "hnsw", "ivf-flat", "ivf-pq"])
def test_an_approximate_index_proposes_and_the_vectors_decide(index: str) -> None:
    vectors = random_vectors(np.random.default_rng(5), 400, 16)
    rows = found(given(10, index=index), vectors)
    exact = np.round(similarities(vectors, "cosine"), ranking.SCORE_DECIMALS)
    for row, mine in enumerate(rows):
        assert row not in [other for other, _ in mine]
        assert len({other for other, _ in mine}) == len(mine) <= 10
        np.testing.assert_allclose(
            [score for _, score in mine], [exact[row, other] for other, _ in mine], atol=1.1e-6
        )
        assert mine == sorted(mine, key=lambda each: (-each[1], -each[0]))
    report = json.loads(layout.similar_report(LOCALE).read_text())
    by_hand = nearest_by_hand(vectors, "cosine", 10)
    share = np.mean(
        [
            len({o for o, _ in mine} & set(near)) / 10
            for mine, near in zip(rows, by_hand, strict=True)
        ]
    )
    assert report["index_overlap@10"] == pytest.approx(share, abs=1e-5)
    assert report["products_with_fewer"] == sum(len(mine) < 10 for mine in rows)


@pytest.mark.parametrize("index", ["flat", "ivf-pq"])
def test_threads_shards_and_the_size_of_pieces_change_no_byte(
    index: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = random_vectors(np.random.default_rng(6), 500, 16)
    vectors[100:180] = vectors[100]
    files = []
    for threads, shard_rows, scored in ((1, 100, 10**6), (3, 500, 10**6), (2, 7, 10**4)):
        monkeypatch.setattr(nearest, "SCORED_BYTES", scored)
        found(given(30, index=index, changes={"runtime.threads": threads}), vectors, shard_rows)
        files.append(layout.similar(LOCALE).neighbours.read_bytes())
    assert files[0] == files[1] == files[2]
    faiss.omp_set_num_threads(1)


def test_vectors_of_half_precision_are_compared_as_they_are_stored() -> None:
    vectors = random_vectors(np.random.default_rng(7), 200, 16)
    rows = found(given(11, changes={"embed.dtype": "float16"}), vectors)
    stored = vectors.astype(np.float16).astype(np.float32)
    assert [[other for other, _ in row] for row in rows] == nearest_by_hand(stored, "cosine", 11)


def test_neighbours_of_other_vectors_or_settings_are_refused_and_edited_ones() -> None:
    chosen = given(10)
    found(chosen, random_vectors(np.random.default_rng(8), 60, 8))
    manifest = read_manifest(chosen, LOCALE)
    assert check_neighbours(chosen, LOCALE, manifest).neighbours == 10
    with pytest.raises(
        PipelineError, match=r"neighbours must be 11 \(found 10\).*`dvc repro similar@"
    ):
        check_neighbours(given(11), LOCALE, manifest)
    path = layout.similar(LOCALE).neighbours
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PipelineError, match=r"neighbours\.parquet: sha256 must be"):
        check_neighbours(chosen, LOCALE, manifest)
    path.unlink()
    with pytest.raises(PipelineError, match=r"neighbours\.parquet is missing"):
        check_neighbours(chosen, LOCALE, manifest)
