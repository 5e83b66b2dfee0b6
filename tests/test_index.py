"""Every index kind against brute force, under every similarity; what cannot be built is refused."""

from pathlib import Path

import faiss
import numpy as np
import pytest

from pipeline import index as stage_index
from pipeline import layout, vectors
from pipeline.errors import PipelineError
from pipeline.index import as_searched, build_index, check_fit, read_index
from pipeline.params import (
    FlatIndex,
    HnswIndex,
    Index,
    IvfFlatIndex,
    IvfPqIndex,
    Similarity,
    Sq8Index,
)
from tests.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

ROWS, DIMENSION, TOP = 2000, 48, 20

FLAT = FlatIndex(kind="flat")
SQ8 = Sq8Index(kind="sq8")
HNSW = HnswIndex(kind="hnsw", m=16, ef_construction=100, ef_search=200)
IVF_FLAT = IvfFlatIndex(kind="ivf-flat", lists=16, probes=16)
IVF_PQ = IvfPqIndex(kind="ivf-pq", lists=16, probes=16, subvectors=24, bits=8)
ALL = [FLAT, SQ8, HNSW, IVF_FLAT, IVF_PQ]
SIMILARITIES: list[Similarity] = ["cosine", "dot", "l2"]


def brute_force(
    products: vectors.Matrix, queries: vectors.Matrix, similarity: Similarity
) -> vectors.Matrix:
    """Return the similarity of every query and product, straight from its definition."""
    if similarity == "l2":
        return np.asarray(-((queries[:, None] - products[None]) ** 2).sum(axis=2))
    scores = queries @ products.T
    if similarity == "cosine":
        scores /= np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(products, axis=1)
    return scores


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize(
    ("settings", "least_overlap", "score_error"),
    [
        (FLAT, 1.0, 1e-5),
        (SQ8, 0.95, 0.02),
        (HNSW, 0.98, 1e-5),
        (IVF_FLAT, 1.0, 1e-5),  # all lists probed: nothing can be missed
        (IVF_PQ, 0.8, 0.35),
    ],
    ids=lambda value: getattr(value, "kind", ""),
)
def test_every_kind_finds_the_brute_force_neighbours_by_the_encoders_similarity(
    settings: Index, least_overlap: float, score_error: float, similarity: Similarity
) -> None:
    rng = np.random.default_rng(5)
    # Lengths vary, so that a kind that ignores the similarity is found out.
    products = random_vectors(rng, ROWS) * rng.uniform(0.3, 3, (ROWS, 1)).astype(np.float32)
    queries = random_vectors(rng, 50)
    index = build_index(settings, DIMENSION, similarity, [products[:900], products[900:]])
    scores, codes = index.search(as_searched(queries, similarity, "queries"), TOP)
    if similarity == "l2":
        scores = -scores
    exact = brute_force(products, queries, similarity)
    best = np.argsort(-exact, axis=1, kind="stable")[:, :TOP]
    overlap = np.mean(
        [np.isin(found, true).mean() for found, true in zip(codes, best, strict=True)]
    )
    assert overlap >= least_overlap
    scale = np.abs(exact).max()
    assert np.abs(scores - np.take_along_axis(exact, codes, axis=1)).max() <= score_error * scale


@pytest.mark.parametrize("settings", ALL, ids=lambda settings: settings.kind)
def test_the_same_shards_give_the_same_bytes_whatever_the_thread_count(settings: Index) -> None:
    products = random_vectors(np.random.default_rng(1), ROWS)
    before, built = faiss.omp_get_max_threads(), set()
    for threads in (1, 2, 3):
        faiss.omp_set_num_threads(threads)
        index = build_index(settings, DIMENSION, "cosine", [products[:700], products[700:]])
        built.add(faiss.serialize_index(index).tobytes())
        assert faiss.omp_get_max_threads() == threads
    faiss.omp_set_num_threads(before)
    assert len(built) == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (IvfFlatIndex(kind="ivf-flat", lists=301, probes=1), "301 lists are more than the 300"),
        (
            IvfPqIndex(kind="ivf-pq", lists=4, probes=1, subvectors=7, bits=8),
            "7 does not divide the dimension 48; use 4, 6, 8",
        ),
        (
            IvfPqIndex(kind="ivf-pq", lists=4, probes=1, subvectors=8, bits=9),
            "9 bits need 512 products .* there are 300; use 8 bits",
        ),
    ],
)
def test_settings_that_do_not_fit_the_vectors_are_refused_with_a_value_that_does(
    settings: Index, told: str
) -> None:
    with pytest.raises(PipelineError, match=rf"indexes.mine\.\w+: .*{told}"):
        check_fit("mine", settings, 300, DIMENSION)


def test_the_shipped_entries_that_need_training_are_quiet_on_a_small_catalogue(
    capfd: pytest.CaptureFixture[str],
) -> None:
    products = random_vectors(np.random.default_rng(2), 300)
    for settings in (IVF_FLAT, IVF_PQ):
        build_index(settings, DIMENSION, "cosine", [products])
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vectors.Manifest:
    """A flat index of 250 products on disk."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    manifest = write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))
    stage_index.index(params(), LOCALE)
    return manifest


def test_an_index_reads_back_and_answers_as_before(built: vectors.Manifest) -> None:
    products = vectors.read_vectors(built, "products", LOCALE)
    index = read_index(params(), LOCALE, built)
    _, codes = index.search(as_searched(products, "cosine", "products"), 1)
    np.testing.assert_array_equal(codes[:, 0], np.arange(250))


def test_an_index_of_other_vectors_is_refused_with_both_hashes(built: vectors.Manifest) -> None:
    rng = np.random.default_rng(9)
    other = write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))
    with pytest.raises(
        PipelineError, match=r"vectors_sha256 is .* built from something else"
    ) as told:
        read_index(params(), LOCALE, other)
    assert built.products.sha256() in str(told.value)
    assert other.products.sha256() in str(told.value)


def test_an_index_of_other_settings_is_refused(built: vectors.Manifest) -> None:
    with pytest.raises(PipelineError, match=r"index is 'flat', but .* 'hnsw'.*dvc repro"):
        read_index(params({"index.es": "hnsw"}), LOCALE, built)


@pytest.mark.parametrize("damage", ["truncated", "missing", "edited"])
def test_a_damaged_index_is_refused_before_faiss_reads_it(
    built: vectors.Manifest, damage: str
) -> None:
    path = layout.index(LOCALE) / "index.faiss"
    data = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(data[:-10])
        case "missing":
            path.unlink()
        case "edited":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PipelineError, match=r"index.faiss .*dvc repro index@es"):
        read_index(params(), LOCALE, built)


def test_a_failed_build_leaves_the_index_that_was_there(built: vectors.Manifest) -> None:
    before = (layout.index(LOCALE) / "index.faiss").read_bytes()
    wrong = params({"index.es": "ivf-flat", "indexes.ivf-flat.lists": 1000})
    with pytest.raises(PipelineError, match="1000 lists"):
        stage_index.index(wrong, LOCALE)
    assert (layout.index(LOCALE) / "index.faiss").read_bytes() == before
    assert sorted(p.name for p in layout.index(LOCALE).parent.iterdir()) == [LOCALE]
