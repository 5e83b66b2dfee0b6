"""Every index kind against brute force, under every similarity; what cannot be built is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from pipeline.core import files, layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss, faiss_threads
from pipeline.core.params import (
    EdenIndex,
    FlatIndex,
    HnswIndex,
    Index,
    Ivf,
    IvfFlatIndex,
    IvfPqFastscanIndex,
    IvfPqIndex,
    PqFastscanIndex,
    RabitqIndex,
    Similarity,
    Sq8Index,
    split_settings,
)
from pipeline.index import stage as stage_index
from pipeline.index.build import build_index
from pipeline.index.card import is_mapped, read_index
from pipeline.index.kinds import TRAINING_SEED, check_fit, empty_index, set_search, unset_search
from pipeline.index.size import FastScan
from pipeline.index.stage import check_memory
from pipeline.retrieve import neighbours
from pipeline.runs import ranking
from pipeline.vectors.lengths import LARGEST_COMPONENT, to_index_form
from pipeline.vectors.manifest import Manifest
from pipeline.vectors.shards import PIECE_ROWS
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

ROWS, DIMENSION, TOP = 2000, 48, 20

FLAT = FlatIndex(kind="flat")
SQ8 = Sq8Index(kind="sq8")
HNSW = HnswIndex(kind="hnsw", m=16, ef_construction=100, ef_search=200)
IVF_FLAT = IvfFlatIndex(kind="ivf-flat", lists=16, probes=16)
IVF_PQ = IvfPqIndex(kind="ivf-pq", lists=16, probes=16, subvectors=24, bits=8)
RABITQ = RabitqIndex(kind="rabitq", bits=4)
EDEN = EdenIndex(kind="eden", bits=4)
FAST_SCAN = PqFastscanIndex(kind="pq-fastscan", subvectors=24)
LISTS_SCAN = IvfPqFastscanIndex(kind="ivf-pq-fastscan", lists=4, probes=4, subvectors=24)
IVF_PQ_4 = IVF_PQ.model_copy(update={"bits": 4})  # learns in a tenth of the time
ALL = [FLAT, SQ8, HNSW, IVF_FLAT, IVF_PQ_4, RABITQ, EDEN, FAST_SCAN, LISTS_SCAN]
SIMILARITIES: list[Similarity] = ["cosine", "dot", "l2"]


def brute_force(products: Matrix, queries: Matrix, similarity: Similarity) -> Matrix:
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
        (RABITQ, 0.85, 0.1),
        (EDEN, 0.85, 0.1),
        (FAST_SCAN, 0.4, 0.5),
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
    scores, codes = index.search(to_index_form(queries, similarity, "queries"), TOP)
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


@pytest.mark.parametrize("settings", [RABITQ, EDEN], ids=lambda settings: settings.kind)
def test_the_rotation_of_many_components_has_the_same_bytes_whatever_the_threads_of_the_blas(
    settings: Index,
) -> None:
    products, built = random_vectors(np.random.default_rng(1), 300, 384), set()
    before = faiss.omp_get_max_threads()
    for threads in (1, 2, 8):
        faiss.omp_set_num_threads(threads)
        for blas in (1, 8):
            with threadpool_limits(blas, "blas"):
                index = build_index(settings, 384, "cosine", [products])
                built.add(faiss.serialize_index(index).tobytes())
    faiss.omp_set_num_threads(before)
    assert len(built) == 1


@pytest.mark.parametrize("settings", ALL, ids=lambda settings: settings.kind)
def test_an_index_over_shards_is_that_over_all_vectors_at_once_byte_for_byte(
    settings: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.build.PIECE_ROWS", 256)
    rng = np.random.default_rng(7)
    products = random_vectors(rng, 1500)
    whole = faiss.serialize_index(build_index(settings, DIMENSION, "cosine", [products]))
    for rows in (None, 1500):
        shards = np.split(products, np.unique(rng.integers(1, 1500, 5)))
        built = build_index(settings, DIMENSION, "cosine", shards, rows)
        assert faiss.serialize_index(built).tobytes() == whole.tobytes()


@pytest.mark.parametrize("settings", [FLAT, SQ8, IVF_FLAT], ids=lambda settings: settings.kind)
def test_adding_piece_by_piece_gives_the_bytes_of_faiss_given_all_at_once(
    settings: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.build.PIECE_ROWS", 100)
    products = random_vectors(np.random.default_rng(8), ROWS)
    for similarity in SIMILARITIES:
        reference = empty_index(settings, DIMENSION, similarity)
        given = to_index_form(products, similarity, "products")
        faiss.omp_set_num_threads(1)
        reference.train(given)
        reference.add(given)
        built = build_index(settings, DIMENSION, similarity, [products[:150], products[150:]])
        assert faiss.serialize_index(built).tobytes() == faiss.serialize_index(reference).tobytes()


@pytest.mark.parametrize("settings", ALL, ids=lambda settings: settings.kind)
def test_a_vector_without_direction_is_refused_by_its_row(
    settings: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.build.PIECE_ROWS", 64)
    products = random_vectors(np.random.default_rng(3), 500)
    products[333] = 0
    with pytest.raises(PipelineError, match="products: the vector of row 333 is zero"):
        build_index(settings, DIMENSION, "cosine", np.split(products, [100, 300]))


def test_training_takes_a_seeded_sample_of_256_vectors_a_list() -> None:
    products = random_vectors(np.random.default_rng(9), ROWS)
    settings = IvfFlatIndex(kind="ivf-flat", lists=3, probes=3)
    built = build_index(settings, DIMENSION, "l2", [products])
    reference = empty_index(settings, DIMENSION, "l2")
    rng = np.random.default_rng(TRAINING_SEED)
    reference.train(products[np.sort(rng.choice(ROWS, 768, replace=False))])
    ours, theirs = (faiss.serialize_index(_coarse(one)).tobytes() for one in (built, reference))
    assert ours == theirs


def _coarse(index: faiss.Index) -> faiss.Index:
    lists: Any = faiss.downcast_index(index)
    return faiss.downcast_index(lists.quantizer)


@pytest.mark.parametrize(
    "kind",
    [
        "flat",
        "sq8",
        "ivf-flat",
        "ivf-pq",
        "hnsw",
        "rabitq",
        "eden",
        "pq-fastscan",
        "ivf-pq-fastscan",
    ],
)
def test_half_precision_shards_give_the_index_of_their_numbers_and_it_searches_mapped(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.index.build.PIECE_ROWS", 64)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    products, queries = random_vectors(rng, 250), random_vectors(rng, 20)
    given = params(
        {"embed.dtype": "float16", "index.es": kind, "indexes.ivf-pq.bits": 4,
         "indexes.ivf-flat.lists": 4, "indexes.ivf-flat.probes": 2,
         "indexes.pq-fastscan.subvectors": 24, "indexes.ivf-pq-fastscan.subvectors": 24}
    )  # fmt: skip
    manifest = write_embeddings(given, products, queries)
    stage_index.index(given, LOCALE)
    halved = products.astype(np.float16).astype(np.float32)
    built = build_index(given.index_of(LOCALE), DIMENSION, "cosine", [halved])
    path = layout.index(LOCALE).index
    unset_search(built)
    assert path.read_bytes() == faiss.serialize_index(built).tobytes()
    set_search(built, given.index_of(LOCALE))
    mapped = read_index(given, LOCALE, manifest)
    searched = to_index_form(queries, "cosine", "queries")
    for found, expected in zip(
        mapped.search(searched, 30), built.search(searched, 30), strict=True
    ):
        np.testing.assert_array_equal(found, expected)
    copied = "eden", "pq-fastscan", "ivf-pq-fastscan"  # FAISS 1.15 reads these
    if kind not in copied and (maps := Path("/proc/self/maps")).exists():
        assert str(path) in maps.read_text()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (IvfFlatIndex(kind="ivf-flat", lists=301, probes=1), "at most 300, .*found 301"),
        (
            IvfPqIndex(kind="ivf-pq", lists=4, probes=1, subvectors=7, bits=8),
            "divide the dimension 48 .*found 7.*Use 4, 6, 8",
        ),
        (
            IvfPqIndex(kind="ivf-pq", lists=4, probes=1, subvectors=8, bits=9),
            "9 bits need 512 products .*found 300.*Use at most 8 bits",
        ),
        (
            PqFastscanIndex(kind="pq-fastscan", subvectors=7),
            "divide the dimension 48 .*found 7.*Use 4, 6, 8",
        ),
        (LISTS_SCAN.model_copy(update={"lists": 301}), "at most 300, .*found 301"),
        (LISTS_SCAN.model_copy(update={"subvectors": 7}), "divide the dimension 48 .*found 7"),
    ],
)
def test_settings_that_do_not_fit_the_vectors_are_refused_with_a_value_that_does(
    settings: Index, told: str
) -> None:
    with pytest.raises(PipelineError, match=rf"indexes.mine\.\w+:? .*{told}"):
        check_fit("mine", settings, 300, DIMENSION)


def test_a_kind_that_the_installed_faiss_lacks_is_refused_with_what_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for settings, needed in (
        (RABITQ, "RaBitQ"), (EDEN, "EDEN"), (FAST_SCAN, "PQFastScan"),
        (LISTS_SCAN, "IVFPQFastScan"),
    ):  # fmt: skip
        check_fit("mine", settings, 300, DIMENSION)
        monkeypatch.delattr(faiss, f"Index{needed}")
        told = f"indexes.mine.kind: {settings.kind} needs Index{needed}, .* lacks"
        with pytest.raises(PipelineError, match=told):
            check_fit("mine", settings, 300, DIMENSION)


def test_a_rabitq_of_one_bit_alone_is_refused_as_an_older_faiss_that_lacks_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class OneBit(faiss.IndexRaBitQ):
        """As an older FAISS has it."""

        def __init__(self, dimension: int, metric: int) -> None:
            super().__init__(dimension, metric)

    monkeypatch.setattr(faiss, "IndexRaBitQ", OneBit)
    told = "indexes.mine.kind: rabitq needs IndexRaBitQ with `bits`, .* lacks"
    with pytest.raises(PipelineError, match=told):
        check_fit("mine", RABITQ, 300, DIMENSION)


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize(
    "settings",
    [*(RabitqIndex(kind="rabitq", bits=bits) for bits in (1, 2, 9)),
     *(EdenIndex(kind="eden", bits=bits) for bits in (1, 2, 8)), FAST_SCAN, LISTS_SCAN,
     FLAT, SQ8, IVF_FLAT, IVF_PQ_4],
    ids=str,
)  # fmt: skip
def test_vectors_that_are_few_or_equal_or_zero_are_found_with_finite_scores(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(6)
    one = random_vectors(rng, 1)
    few = 16 if isinstance(settings, FastScan | Ivf) else 1
    shapes = {
        "few": random_vectors(rng, few), "equal": np.repeat(one, 40, axis=0),
        "zero": np.zeros((40, DIMENSION), np.float32),
    }  # fmt: skip
    queries = np.concatenate([one, random_vectors(rng, 3), np.zeros_like(one)])
    for shape, products in shapes.items():
        built = build_index(settings, DIMENSION, similarity, [products])
        scores, codes = neighbours.search(built, queries, len(products))
        assert np.isfinite(scores).all(), shape
        assert (np.sort(codes) == np.arange(len(products))).all(), shape
        if shape != "few":  # the same score, so by id
            assert (codes[:, 0] == 39).all(), shape
            near = brute_force(products, queries, similarity)[:, :1]
            assert np.abs(scores - near).max() <= 0.05 * max(1, np.abs(near).max()), shape


def test_a_graph_is_the_one_that_faiss_builds_of_all_vectors_at_once() -> None:
    """Near vectors side by side, as in a catalogue that is sorted: piece by piece, links lack."""
    rng = np.random.default_rng(9)
    centres = np.repeat(random_vectors(rng, 2 * PIECE_ROWS // 32), 32, axis=0)
    near = (centres + random_vectors(rng, len(centres)) / 4).astype(np.float32)
    products = np.concatenate([near, near[:1]])
    settings = HnswIndex(kind="hnsw", m=4, ef_construction=16, ef_search=TOP)
    built: Any = build_index(settings, DIMENSION, "dot", [products[:1_000], products[1_000:]])
    expected: Any = faiss.IndexHNSWFlat(DIMENSION, settings.m, faiss.METRIC_INNER_PRODUCT)
    expected.hnsw.efConstruction = settings.ef_construction
    with faiss_threads(1):  # before 1.15, FAISS builds the same graph on one thread alone
        expected.add(products)
    for index in (built, expected):
        index.hnsw.efSearch = settings.ef_search
    assert np.array_equal(faiss.serialize_index(built), faiss.serialize_index(expected))


@pytest.mark.parametrize("similarity", ["dot", "l2"])
def test_a_graph_of_equal_or_zero_vectors_finds_most_of_them_with_their_scores(
    similarity: Similarity,
) -> None:
    rng = np.random.default_rng(6)
    one = random_vectors(rng, 1)
    queries = np.concatenate([one, random_vectors(rng, 3), np.zeros_like(one)])
    for products in (np.repeat(one, 40, axis=0), np.zeros((40, DIMENSION), np.float32)):
        built = build_index(HNSW, DIMENSION, similarity, [products])
        scores, codes = neighbours.search(built, queries, len(products))
        found = codes != ranking.NO_PRODUCT  # its links leave some equal vectors out
        assert found.mean() > 0.8
        for row in codes:
            own = row[row != ranking.NO_PRODUCT]
            assert len(np.unique(own)) == len(own)
        near = np.broadcast_to(brute_force(products, queries, similarity), scores.shape)
        np.testing.assert_allclose(scores[found], near[found], rtol=1e-5, atol=1e-5)


def test_a_dimension_that_is_not_a_multiple_of_8_is_held_by_codes_of_bits() -> None:
    rng = np.random.default_rng(10)
    products, queries = random_vectors(rng, 600, 50), random_vectors(rng, 20, 50)
    exact = np.argsort(-(queries @ products.T), axis=1)[:, :TOP]
    for settings in (RABITQ, EDEN):
        built = build_index(settings, 50, "dot", [products])
        _, codes = neighbours.search(built, queries, TOP)
        assert neighbours.overlap(codes, exact) > 0.85


def test_the_shipped_entries_that_need_training_are_quiet_on_a_small_catalogue(
    capfd: pytest.CaptureFixture[str],
) -> None:
    products = random_vectors(np.random.default_rng(2), 300)
    for settings in (IVF_FLAT, IVF_PQ, FAST_SCAN):
        build_index(settings, DIMENSION, "cosine", [products])
    assert capfd.readouterr() == ("", "")


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A flat index of 250 products on disk."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    write_clean(rng, 250, 20)
    manifest = write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))
    stage_index.index(params(), LOCALE)
    return manifest


def test_an_index_of_other_vectors_is_refused_with_both_hashes(built: Manifest) -> None:
    rng = np.random.default_rng(9)
    other = write_embeddings(params(), random_vectors(rng, 250), random_vectors(rng, 20))
    with pytest.raises(
        PipelineError, match=r"vectors_sha256 must be .* built from something else"
    ) as told:
        read_index(params(), LOCALE, other)
    assert built.products.sha256()[:12] in str(told.value)
    assert other.products.sha256()[:12] in str(told.value)


def test_an_index_of_other_settings_is_refused(built: Manifest) -> None:
    with pytest.raises(PipelineError, match=r"index must be 'hnsw' .found 'flat'.*dvc repro"):
        read_index(params({"index.es": "hnsw"}), LOCALE, built)


@pytest.mark.parametrize(
    ("kind", "key", "other"),
    [
        ("hnsw", "ef_search", 1001),
        ("ivf-flat", "probes", 16),
        ("ivf-pq", "rescore", 3),
        ("ivf-pq-fastscan", "probes", 16),
    ],
)
def test_how_an_index_is_searched_is_not_in_it(
    built: Manifest, kind: str, key: str, other: int
) -> None:
    given = {f"index.{LOCALE}": kind, "indexes.ivf-pq.bits": 4,
             "indexes.ivf-pq-fastscan.subvectors": 24}  # fmt: skip
    changed = given | {f"indexes.{kind}.{key}": other}
    written = []
    for each in (given, changed):
        stage_index.index(params(each), LOCALE)
        written.append(
            [path.read_bytes() for path in sorted(layout.index(LOCALE).folder.iterdir())]
        )
    assert written[0] == written[1]
    for each in (given, changed):
        index: Any = read_index(params(each), LOCALE, built)
        asked = params(each).index_of(LOCALE)
        if isinstance(asked, HnswIndex):
            assert index.hnsw.efSearch == asked.ef_search
        elif isinstance(asked, Ivf):
            assert index.nprobe == asked.probes
    settings = [params(each).index_of(LOCALE) for each in (given, changed)]
    (build, search), (same, others) = map(split_settings, settings)
    assert (build, search) != (same, others)
    assert build == same
    assert build | search == settings[0].model_dump(mode="json")


@pytest.mark.parametrize("damage", ["truncated", "missing", "edited"])
def test_a_damaged_index_is_refused_before_faiss_reads_it(built: Manifest, damage: str) -> None:
    path = layout.index(LOCALE).index
    data = path.read_bytes()
    match damage:
        case "truncated":
            path.write_bytes(data[:-10])
        case "missing":
            path.unlink()
        case "edited":
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(PipelineError, match=r"index.faiss.* Run `dvc repro index@es"):
        read_index(params(), LOCALE, built)


@pytest.mark.parametrize("content", ["nothing", "noise", "half"])
def test_an_index_that_faiss_cannot_parse_is_refused_though_its_hash_is_right(
    built: Manifest, content: str
) -> None:
    files_of = layout.index(LOCALE)
    data = files_of.index.read_bytes()
    files_of.index.write_bytes(
        {"nothing": b"", "noise": b"noise" * 99, "half": data[:9_999]}[content]
    )
    card = files.read_json(files_of.card, "")
    files.write_json(files_of.card, card | {"index_sha256": files.sha256_file(files_of.index)})
    with pytest.raises(
        PipelineError, match=r"index.faiss cannot be read .* Run `dvc repro index@es"
    ):
        read_index(params(), LOCALE, built)


@pytest.mark.parametrize("kind", ["flat", "sq8", "hnsw", "ivf-flat", "ivf-pq", "rabitq"])
def test_an_index_that_is_replaced_while_it_is_mapped_finds_what_it_found(
    built: Manifest, kind: str
) -> None:
    given = params({"index.es": kind, "indexes.ivf-pq.bits": 4})
    stage_index.index(given, LOCALE)
    path = layout.index(LOCALE).index
    before = path.read_bytes()
    read = faiss.deserialize_index(np.frombuffer(before, np.uint8))
    set_search(read, given.index_of(LOCALE))
    mapped = read_index(given, LOCALE, built)
    assert is_mapped(mapped)
    assert not is_mapped(read)
    rng = np.random.default_rng(8)
    write_embeddings(given, random_vectors(rng, 250), random_vectors(rng, 20))
    stage_index.index(given, LOCALE)
    assert path.read_bytes() != before
    queries = to_index_form(random_vectors(rng, 20), "cosine", "queries")
    for found, expected in zip(mapped.search(queries, 30), read.search(queries, 30), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_graph_is_built_on_all_threads_only_where_their_number_leaves_its_bytes(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.index.build.GRAPHS_ARE_DETERMINISTIC", deterministic)
    products, seen = random_vectors(np.random.default_rng(4), 300), []

    def shards() -> Iterator[Matrix]:
        seen.append(faiss.omp_get_max_threads())
        yield products

    with faiss_threads(3):
        build_index(HNSW, DIMENSION, "cosine", shards(), len(products))
    assert seen == [3 if deterministic else 1]


def test_an_index_that_would_pass_the_memory_limit_is_refused_with_those_that_fit() -> None:
    given = params({"runtime.memory_limit": 1.6})
    with pytest.raises(PipelineError) as told:
        check_memory(given, LOCALE, 10**6, 384)
    assert str(told.value) == (
        "index.es: building flat of 1000000 vectors of 384 components would take 2.0 GB of memory, "
        "more than the 1.6 GB that runtime.memory_limit allows. Set index.es to one that fits: "
        "sq8 (0.8 GB), ivf-pq (0.7 GB), rabitq (0.6 GB), eden (0.6 GB), pq-fastscan (0.7 GB), "
        "ivf-pq-fastscan (0.6 GB), or set runtime.memory_limit to 2.2 where there is that much."
    )
    with pytest.raises(PipelineError, match=r"No other index of params\.yaml would fit: add one"):
        check_memory(given, LOCALE, 10**8, 384)
    check_memory(params(), LOCALE, 10**6, 384)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index.es": "ivf-flat", "indexes.ivf-flat.lists": 1000}, "found 1000"),
        ({"runtime.memory_limit": 0.2}, r"would take 0\.3 GB .* 0\.2 GB"),
    ],
)
def test_a_refused_index_leaves_the_one_that_was_there(
    built: Manifest, changes: dict[str, object], message: str
) -> None:
    before = layout.index(LOCALE).index.read_bytes()
    with pytest.raises(PipelineError, match=message):
        stage_index.index(params(changes), LOCALE)
    assert layout.index(LOCALE).index.read_bytes() == before
    assert sorted(p.name for p in layout.index(LOCALE).folder.parent.iterdir()) == [LOCALE]


@pytest.mark.parametrize("similarity", ["dot", "l2"])
@pytest.mark.parametrize("settings", ALL, ids=lambda value: value.kind)
def test_vectors_whose_scores_would_overflow_are_refused_and_shorter_ones_found(
    settings: Index, similarity: Similarity
) -> None:
    rng = np.random.default_rng(7)
    products = rng.uniform(-1, 1, (64, DIMENSION)).astype(np.float32)
    products[5] *= LARGEST_COMPONENT
    index = build_index(settings, DIMENSION, similarity, [products])
    set_search(index, settings)
    scores, codes = neighbours.search(index, products[:1], 10)
    assert np.isfinite(scores).all()
    assert len(set(codes[0].tolist())) == 10
    products[5] *= 1e12
    with pytest.raises(
        PipelineError, match=r"^products: row 5: a component must be at most 1e.09, else"
    ):
        build_index(settings, DIMENSION, similarity, [products])
    with pytest.raises(
        PipelineError, match=r"^es queries: row 105: .*overflow \(found \d\.\d+e.20\)"
    ):
        to_index_form(products, similarity, "es queries", 100)
