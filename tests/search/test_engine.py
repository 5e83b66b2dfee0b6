"""The engine over what real stages wrote: every system's first products are those of its run.

Filters are compared with whole rankings cut down, neighbours with all vectors.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.bm25.analysers import analyser_for
from pipeline.core import cache, layout, tables
from pipeline.core.cache import forget
from pipeline.core.errors import PipelineError
from pipeline.core.faiss import faiss
from pipeline.core.params import HubWeights
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.query_vectors import QueryVectors
from pipeline.search.question import Question
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import read_vectors
from tests.helpers.terms import index_of

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_small_project")]

LOCALE = "es"


@pytest.fixture(scope="module")
def engine(in_small_project: Path) -> Engine:
    """The engine of that project."""
    return open_engine(LOCALE)


def test_one_encoder_is_loaded_once_whoever_uses_it(engine: Engine) -> None:
    models = []
    for opened in (engine, open_engine(LOCALE)):
        opened.query_vectors.encode("agua")
        models.append(opened.query_vectors._model)
    assert models[0] is models[1] is not None


def test_the_first_products_of_every_query_and_system_are_those_of_its_run(engine: Engine) -> None:
    for system in FIRST_SYSTEMS:
        expected: dict[int, list[tuple[str, int, np.float32]]] = {}
        for row in pq.read_table(layout.runs(system, LOCALE).catalogue).to_pylist():
            hit = row["product_id"], row["rank"], np.float32(row["score"])
            expected.setdefault(row["query_id"], []).append(hit)
        for text in engine.judged.rows:
            answer = engine.search(Question(text, (system,), 20))
            found = [
                (hit.product.product_id, hit.rank, np.float32(hit.score))
                for hit in answer.systems[system]
            ]
            assert answer.query_id is not None
            assert found == expected.get(answer.query_id, [])[:20]


def test_a_search_uses_the_threads_of_runtime_on_any_thread_of_the_process(engine: Engine) -> None:
    brand = engine.shown.facets["brand"].shown[0].as_py()
    other = faiss.omp_get_max_threads() + 3

    def search(filters: dict[str, str]) -> int:
        faiss.omp_set_num_threads(other)
        engine.search(Question("agua", ("dense",), 3, filters))
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as thread:
        used = list(thread.map(search, ({}, {"brand": brand})))
    assert used == [engine.params.runtime.thread_count()] * 2


def test_a_query_is_encoded_to_the_vector_that_the_stage_stored(engine: Engine) -> None:
    for text, row in engine.judged.rows.items():
        encoded = engine.query_vectors.encode(text)
        np.testing.assert_array_equal(encoded, engine.query_vectors.stored(row))


def test_a_model_that_is_not_on_this_machine_is_not_fetched_where_nothing_may_be(
    engine: Engine,
) -> None:
    params, absent = engine.params, HubWeights(kind="hub", model="no/model", revision="0" * 40)
    name, spec = params.encoder[LOCALE], params.encoder_of(LOCALE)
    encoders = params.encoders | {name: spec.model_copy(update={"weights": absent})}
    elsewhere = params.model_copy(update={"encoders": encoders})
    vectors = QueryVectors(elsewhere, LOCALE, read_manifest(params, LOCALE), fetch=False)
    said = rf"^encoders\.{name}: its weights are not on this machine.*search a --locale es "
    with pytest.raises(PipelineError, match=f"{said}--system dense`"):
        vectors.encode("agua")
    np.testing.assert_array_equal(vectors.stored(0), engine.query_vectors.stored(0))


def test_labels_are_those_of_the_judgements_and_of_no_other_query(engine: Engine) -> None:
    table = tables.read_table(layout.clean(LOCALE).judgements, tables.JUDGEMENTS, "")
    label = {(row["query_id"], row["product_id"]): row["label"] for row in table.to_pylist()}
    judged = 0
    for text in engine.judged.rows:
        answer = engine.search(Question(text, ("dense",), 50))
        for hit in answer.systems["dense"]:
            assert hit.label == label.get((answer.query_id or 0, hit.product.product_id))
            judged += hit.label is not None
    assert judged > 20
    answer = engine.search(Question("algo que nadie juzgó"))
    assert answer.query_id is None
    assert not [hit for hits in answer.systems.values() for hit in hits if hit.label]


def test_a_judged_query_that_looks_like_markup_is_known(engine: Engine) -> None:
    row, text = 3, "<b>Acme</b>"
    texts = [*engine.judged.texts[:row], text, *engine.judged.texts[row + 1 :]]
    judged = replace(engine.judged, rows={text: row}, texts=texts)
    answer = replace(engine, judged=judged).search(Question(text))
    assert answer.searched == text
    assert answer.query_id == judged.query_ids[row]


def test_a_filter_gives_the_whole_ranking_cut_down_to_its_products(engine: Engine) -> None:
    products = len(engine.shown.ids)
    for text in [*list(engine.judged.rows)[:8], "zapatillas rojas"]:
        whole = engine.search(Question(text, ("dense", "bm25"), products))
        for name, facet in engine.shown.facets.items():
            value = facet.shown[0].as_py()
            one = engine.search(
                Question(text, ("dense", "bm25", "hybrid"), products, {name: value.upper()})
            )
            for system in ("dense", "bm25"):
                expected = [
                    (hit.product, hit.score)
                    for hit in whole.systems[system]
                    if getattr(hit.product, name) == value
                ]
                assert [(hit.product, hit.score) for hit in one.systems[system]] == expected
            assert {getattr(hit.product, name) for hit in one.systems["hybrid"]} == {value}
            assert one.facets[name] == [(value, one.facets[name][0][1])]


def test_two_filters_that_no_product_passes_are_refused_with_both(engine: Engine) -> None:
    brands, colors = engine.shown.facets["brand"], engine.shown.facets["color"]
    pairs = set(zip(brands.codes.tolist(), colors.codes.tolist(), strict=True))
    brand, color = next(
        (one, other)
        for one in range(len(brands.shown))
        for other in range(len(colors.shown))
        if (one, other) not in pairs
    )
    filters = {"brand": brands.shown[brand].as_py(), "color": colors.shown[color].as_py()}
    with pytest.raises(PipelineError, match=r"no es product has brand '.*' and color '.*'"):
        engine.search(Question("zapatillas", filters=filters))


def test_similar_products_are_the_nearest_vectors_without_the_product(engine: Engine) -> None:
    vectors = read_vectors(read_manifest(engine.params, LOCALE), "products", LOCALE)
    vectors = vectors / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    for row in range(0, len(vectors), 7):
        cosines = np.round(vectors @ vectors[row], 6)
        order = np.lexsort((-np.arange(len(vectors)), -cosines))
        order = order[order != row][:10]
        found = engine.similar(engine.shown.ids[row].as_py(), 10)
        assert found.product == engine.product(row)
        np.testing.assert_allclose([hit.score for hit in found.hits], cosines[order], atol=2e-6)
        ids = engine.shown.ids.take(order).to_pylist()
        clear = np.abs(np.diff(cosines[order])) > 4e-6  # else the last digit may order otherwise
        if clear.all():
            assert [hit.product.product_id for hit in found.hits] == ids


def test_kept_postings_score_as_new_ones_and_survive_damage(engine: Engine) -> None:
    analyser = analyser_for("es")
    texts = tables.read_column(layout.clean(LOCALE).products, tables.PRODUCTS, "text", "")
    new = index_of(list(map(analyser.terms, texts.to_pylist())), engine.params.bm25)
    assert dict(engine.terms.postings.vocabulary) == dict(new.postings.vocabulary)
    for text in [*engine.judged.rows, "nada de esto xyzzy"]:
        terms = analyser.terms(text)
        np.testing.assert_array_equal(engine.terms.scores(terms), new.scores(terms))
    (folder,) = filter(Path.is_dir, layout.postings("").folder.iterdir())
    times = layout.PostingFiles(folder).times
    good = times.read_bytes()
    times.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    open_engine(LOCALE)
    assert times.read_bytes() == good


def test_only_the_newest_folders_stay_in_the_cache(tmp_path: Path) -> None:
    def fill(out: Path) -> None:
        (out / "a").write_bytes(b"a")

    for number in range(cache.KEPT_FOLDERS + 3):
        one = tmp_path / f"kept/es-{number}"
        cache.keep(one, fill, locales=1)
    stay = [f"es-{number}" for number in range(3, cache.KEPT_FOLDERS + 3)]
    assert sorted(path.name for path in (tmp_path / "kept").glob("es-*")) == stay
    assert sorted(path.name for path in (tmp_path / "kept").glob(".*.seal.json")) == [
        f".{name}.seal.json" for name in stay
    ]
    assert (tmp_path / f"kept/es-{cache.KEPT_FOLDERS + 2}/a").is_file()
    cache.keep(tmp_path / f"kept/{stay[0]}", fill, locales=1)
    cache.keep(tmp_path / "kept/es-new", fill, locales=1)  # what was used last stays, however old
    names = {path.name for path in (tmp_path / "kept").glob("es-*")}
    assert names == {stay[0], *stay[2:], "es-new"}

    gone: list[Path] = []

    def read() -> bytes:
        if not gone:  # as another process does it that makes room
            gone.append(tmp_path / "kept/es-new")
            forget(gone[0])
        return (tmp_path / "kept/es-new/a").read_bytes()

    assert cache.keep_and_read(tmp_path / "kept/es-new", fill, 1, read) == b"a"
    assert gone
    for number in range(20):
        cache.keep(tmp_path / f"kept/l{number}", fill, locales=20)
    assert all((tmp_path / f"kept/l{number}/a").is_file() for number in range(20))


@pytest.mark.parametrize(
    ("path", "stage"),
    [
        (layout.clean(LOCALE).products, "clean"),
        (layout.clean(LOCALE).queries, "clean"),
        (layout.clean(LOCALE).judgements, "clean"),
        (layout.clean(LOCALE).counts, "clean"),
        (layout.embeddings(LOCALE).manifest, "embed"),
        (layout.index(LOCALE).card, "index"),
        (layout.index(LOCALE).index, "index"),
    ],
)
def test_a_missing_artefact_is_one_line_with_the_command(
    engine: Engine, path: Path, stage: str
) -> None:
    moved = path.rename("moved")
    try:
        with pytest.raises(PipelineError, match=rf"^{path} is missing. Run `dvc repro {stage}@es"):
            open_engine(LOCALE)
        # What is open stays open.
        assert engine.search(Question("zapatillas")).found["dense"]
        assert engine.similar(engine.shown.ids[0].as_py(), 3).hits
    finally:
        moved.rename(path)


def test_settings_that_the_artefacts_do_not_fit_are_refused() -> None:
    text = layout.PARAMS.read_text()
    for old, new, said in (
        ("  - product_color\n", "", "fields must be .* Run `dvc repro clean@es`"),
        ("separator: ' '", "separator: ' | '", "separator must be ' | '.*`dvc repro clean@es`"),
        ("max_tokens: 32", "max_tokens: 31", "max_tokens .* Run `dvc repro embed@es`"),
        ("es: flat", "es: sq8", "index must be 'sq8' .* Run `dvc repro index@es`"),
    ):
        layout.PARAMS.write_text(text.replace(old, new, 1))
        try:
            with pytest.raises(PipelineError, match=said):
                open_engine(LOCALE)
        finally:
            layout.PARAMS.write_text(text)
    with pytest.raises(PipelineError, match=r"--locale xx: unknown locale; params.yaml has es"):
        open_engine("xx")


def test_texts_that_were_cleaned_again_are_refused_until_they_are_embedded(
    engine: Engine,
) -> None:
    for kind, schema in (("products", tables.PRODUCTS), ("queries", tables.QUERIES)):
        path = layout.clean(LOCALE).side(kind)
        before = path.read_bytes()
        rows = tables.read_table(path, schema, "").to_pylist()
        rows[0]["text"] = rows[0]["text"][:-1] + "x"  # the same ids
        tables.write_table(path, pa.Table.from_pylist(rows, schema), schema)
        with pytest.raises(
            PipelineError, match=rf"the {kind} vectors are of other texts .*`dvc repro embed@es`"
        ):
            open_engine(LOCALE)
        path.write_bytes(before)
    open_engine(LOCALE)


def test_an_answer_is_json_with_everything_that_is_shown(engine: Engine) -> None:
    answer = engine.search(Question(next(iter(engine.judged.rows)), k=3))
    read = json.loads(json.dumps(answer.as_dict(), allow_nan=False))
    assert list(read["systems"]) == list(FIRST_SYSTEMS)
    first = read["systems"]["hybrid"]["hits"][0]
    assert set(first) == {
        "rank", "score", "product_id", "title", "brand", "color", "label", "ranks",
    }  # fmt: skip
    assert re.fullmatch(r"[A-Z0-9]+", first["product_id"])
