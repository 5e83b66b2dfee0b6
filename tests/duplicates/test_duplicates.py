"""The stage finds what was planted, the same each time, and says what it means."""

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from sentence_transformers.util import paraphrase_mining_embeddings

from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.params import Params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.duplicates import stage as duplicates
from pipeline.duplicates.collapse import agreement, collapse_judgements, firsts
from pipeline.duplicates.table import GROUPS, read_kept
from pipeline.duplicates.texts import find_equal, grams_of
from pipeline.evaluate.judged_run import Judgements
from pipeline.index import stage as stage_index
from pipeline.runs import ranking
from pipeline.runs.inputs import read_inputs
from pipeline.similar import stage as similar
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import ShardReader
from tests.helpers.artefacts import LOCALE, clean_counts, params, write_embeddings
from tests.helpers.run_files import write_given_runs

pytestmark = pytest.mark.usefixtures("empty_folder")

LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyzáéñ"))
WORDS = ["".join(each) for each in np.random.default_rng(0).choice(LETTERS, (60, 6))]
DIMENSION = 128


@cache
def _direction(gram: int) -> Matrix:
    return np.random.default_rng(gram).standard_normal(DIMENSION, np.float32)


def embed(texts: list[str]) -> Matrix:
    """Return vectors whose cosines are about the share of 5-grams in common: a tiny encoder."""
    vectors = np.zeros((len(texts), DIMENSION), dtype=np.float32)
    for row, text in enumerate(texts):
        for gram in grams_of(text).tolist():
            vectors[row] += _direction(gram)
    return vectors


def planted(rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Return texts, and for each the number of the product that it is a variant of."""
    texts, truth = [], []
    for number in range(120):
        words = rng.choice(WORDS, 24).tolist()
        kinds = [words]
        if number % 4 == 0:
            kinds.append(words)
        if number % 3 == 0:
            kinds += [[*words, "XL"], [*words[:-1], f"talla{number}"]]
        if number % 5 == 0:  # the same words, and yet another product
            texts.append(" ".join(rng.permutation(words)))
            truth.append(1000 + number)
        texts += [" ".join(each) for each in kinds]
        truth += [number] * len(kinds)
    return texts, truth


def write_catalogue(
    given: Params, ids: list[str], texts: list[str], pairs: list[tuple[int, str, str]]
) -> None:
    """Write clean tables, vectors and the neighbours of products, sorted by id."""
    order = sorted(range(len(ids)), key=ids.__getitem__)
    clean, fields = layout.clean(LOCALE), given.clean.fields
    mine = [texts[i] for i in order]
    products = {
        "product_id": [ids[i] for i in order],
        "text": mine,
        "field_ends": [[len(text)] * len(fields) for text in mine],
    }
    tables.write_table(clean.products, pa.table(products, tables.PRODUCTS), tables.PRODUCTS)
    queries = pa.table({"query_id": [1, 2, 3], "text": ["una", "dos", "tres"]}, tables.QUERIES)
    tables.write_table(clean.queries, queries, tables.QUERIES)
    judged = pa.table(
        {
            name: [pair[place] for pair in sorted(pairs)]
            for place, name in enumerate(tables.JUDGEMENTS.names)
        },
        tables.JUDGEMENTS,
    )
    tables.write_table(clean.judgements, judged, tables.JUDGEMENTS)
    write_json(clean.counts, clean_counts())
    write_embeddings(given, embed(mine), embed(["una", "dos", "tres"]))
    stage_index.index(given, LOCALE)
    similar.similar(given, LOCALE)


def given(changes: Mapping[str, Any] | None = None) -> Params:
    return params({"similar.neighbours": 12, **(changes or {})})


def groups() -> set[frozenset[str]]:
    table = tables.read_table(layout.duplicates(LOCALE).groups, GROUPS, "")
    found: dict[str, set[str]] = {}
    for product, kept in zip(
        *(table[name].to_pylist() for name in ("product_id", "kept_id")), strict=True
    ):
        found.setdefault(kept, set()).add(product)
    return {frozenset(each) for each in found.values()}


def test_planted_duplicates_are_found_and_no_other_and_the_same_twice() -> None:
    texts, truth = planted(np.random.default_rng(5))
    write_catalogue(given(), [f"B{i:04d}" for i in range(len(texts))], texts, [])
    seen = []
    for _ in range(2):
        duplicates.duplicates(given(), LOCALE)
        seen.append(layout.duplicates(LOCALE).groups.read_bytes())
    assert seen[0] == seen[1]
    expected: dict[int, set[str]] = {}
    for i, number in enumerate(truth):
        expected.setdefault(number, set()).add(f"B{i:04d}")
    assert groups() == {frozenset(each) for each in expected.values() if len(each) > 1}
    report = json.loads(layout.duplicates_report(LOCALE).read_text())
    assert report["duplicates"] == sum(len(each) - 1 for each in expected.values())
    assert (
        report["duplicates_of_equal_text"] + report["duplicates_of_near_text"]
        == report["duplicates"]
    )
    assert report["not_judged"] == "there are no judgements"
    shown = report["examples"]
    assert 0 < len(shown) <= duplicates.EXAMPLES
    assert all(one["products"][0]["why"] == "kept" for one in shown)
    least = report["threshold"]["cosine"]
    near = [p for one in shown for p in one["products"] if p["why"] == "near text"]
    assert near
    assert all(p["cosine"] >= least and p["text_similarity"] >= 0.7 for p in near)


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
def test_candidates_are_the_pairs_that_paraphrase_mining_finds(similarity: str) -> None:
    texts, _ = planted(np.random.default_rng(6))
    texts = sorted(set(texts))[:90]
    encoder = params().encoder[LOCALE]
    chosen = given(
        {
            "similar.neighbours": len(texts),  # all of them: whatever the similarity, no pair lacks
            f"encoders.{encoder}.similarity": similarity,
            f"encoders.{encoder}.normalize": similarity == "cosine",
        }
    )
    write_catalogue(chosen, [f"B{i:04d}" for i in range(len(texts))], texts, [])
    distinct = find_equal(layout.clean(LOCALE).products, "")
    vectors = ShardReader(read_manifest(chosen, LOCALE), "products", LOCALE)
    threshold, saturated, (first, second, _) = duplicates.choose_candidates(
        chosen, LOCALE, vectors, distinct
    )
    assert threshold.cosine is not None
    assert saturated == 0
    mined = paraphrase_mining_embeddings(torch.from_numpy(embed(texts)), top_k=len(texts))
    expected = set()
    for score, i, j in mined:
        grams = [set(grams_of(texts[each]).tolist()) for each in (i, j)]
        share = len(grams[0] & grams[1]) / len(grams[0] | grams[1])
        if round(score, 6) >= threshold.cosine and share >= chosen.duplicates.text:
            expected.add((min(i, j), max(i, j)))
    assert set(zip(first.tolist(), second.tolist(), strict=True)) == expected


def test_one_product_and_products_without_near_ones_have_no_groups() -> None:
    for texts in (["una sola"], ["zapatillas rojas", "mesa de madera maciza", "lámpara de pie"]):
        write_catalogue(given(), [f"B{i}" for i in range(len(texts))], texts, [])
        duplicates.duplicates(given(), LOCALE)
        report = json.loads(layout.duplicates_report(LOCALE).read_text())
        assert (report["groups"], report["duplicates"], report["examples"]) == (0, 0, [])
        assert report["threshold"]["cosine"] is None
        assert groups() == set()


def test_where_all_products_are_the_same_one_is_kept() -> None:
    write_catalogue(given(), [f"B{i:02d}" for i in range(40)], ["la misma lámpara"] * 40, [])
    duplicates.duplicates(given(), LOCALE)
    assert groups() == {frozenset(f"B{i:02d}" for i in range(40))}
    manifest = read_manifest(given(), LOCALE)
    assert read_kept(given(), LOCALE, manifest).tolist() == [0] * 40


def test_labels_and_runs_are_reported_of_the_collapsed_catalogue() -> None:
    base = "zapatillas deportivas rojas de mujer con suela de goma y cordones elásticos talla"
    texts = [
        f"{base} 38",
        f"{base} 39",
        f"{base} 40",
        "mesa de madera de roble macizo",
        "gato azul",
    ]
    pairs = [
        (1, "B0", "E"),
        (1, "B1", "E"),
        (1, "B2", "S"),
        (1, "B3", "I"),
        (2, "B0", "E"),
        (2, "B4", "E"),
    ]
    chosen = given({"duplicates.precision": 0.5})
    write_catalogue(chosen, [f"B{i}" for i in range(5)], texts, pairs)
    with pytest.raises(PipelineError, match=r"run\.json is missing\. Run `dvc repro"):
        duplicates.duplicates(chosen, LOCALE)
    assert not layout.duplicates(LOCALE).folder.exists()
    inputs = read_inputs(LOCALE)
    run = ranking.rank_pairs(
        np.repeat([0, 1], 5), np.tile(np.arange(5), 2), np.array([5, 4, 3, 2, 1, 5, 4, 3, 2, 1.0])
    )
    for system in FIRST_SYSTEMS:
        write_given_runs(system, inputs, run)
    duplicates.duplicates(chosen, LOCALE)
    assert groups() == {frozenset(["B0", "B1", "B2"])}
    report = json.loads(layout.duplicates_report(LOCALE).read_text())
    agreed = report["labels"]["groups"]
    assert (agreed["pairs"], agreed["queries"]) == (3, 1)
    assert agreed["agreement"] == pytest.approx(1 / 3, abs=1e-5)
    assert agreed["agreement_of_all_pairs"] == pytest.approx(1 / 6, abs=1e-5)
    log2 = np.log2
    ideal = 1 + 1 / log2(3) + 0.1 / log2(4), 1 + 1 / log2(3)
    before = np.mean([1.0, (1 + 1 / log2(6)) / ideal[1]])
    after = np.mean([1 / ideal[0], (1 + 1 / log2(4)) / ideal[1]])
    labels = np.mean([1.0, (1 + 1 / log2(4)) / ideal[1]])
    for system in FIRST_SYSTEMS:
        assert report["runs"][system] == {
            "ndcg@10": pytest.approx(before, abs=1e-5),
            "ndcg@10_collapsed": pytest.approx(after, abs=1e-5),
            "ndcg@10_collapsed_labels": pytest.approx(labels, abs=1e-5),
        }


def test_where_nothing_is_relevant_there_is_no_ndcg() -> None:
    texts = ["zapatillas rojas", "mesa de madera maciza", "lámpara de pie"]
    write_catalogue(given(), ["B0", "B1", "B2"], texts, [(1, "B0", "I"), (2, "B1", "I")])
    inputs = read_inputs(LOCALE)
    for system in FIRST_SYSTEMS:
        write_given_runs(system, inputs, (np.array([0, 1]), np.array([0, 0]), np.array([1.0, 1.0])))
    duplicates.duplicates(given(), LOCALE)
    report = json.loads(layout.duplicates_report(LOCALE).read_text())
    assert report["runs"] == {system: {} for system in FIRST_SYSTEMS}
    assert report["labels"]["groups"] == {"pairs": 0}


def test_a_group_is_judged_by_its_best_label_and_shown_at_its_first_place() -> None:
    rng = np.random.default_rng(8)
    kept = rng.integers(0, 6, 20)
    kept[kept] = kept[kept]  # whatever it is, a function of products
    rows, codes = (
        np.repeat(np.arange(4), 9),
        np.concatenate([rng.permutation(25)[:9] for _ in range(4)]),
    )
    labels = rng.integers(0, 4, 36)
    best = collapse_judgements(Judgements.from_pairs(rows, codes, labels, 4), kept)
    expected: dict[tuple[int, int], int] = {}
    for row, code, label in zip(rows.tolist(), codes.tolist(), labels.tolist(), strict=True):
        key = (row, int(kept[code]) if code < 20 else code)
        expected[key] = min(label, expected.get(key, 9))
    found = zip(best.positions().tolist(), best.codes.tolist(), strict=True)
    assert dict(zip(found, best.labels.tolist(), strict=True)) == expected
    assert firsts(np.array([0, 0, 0, 1, 1]), np.array([7, 7, 2, 7, 2])).tolist() == [0, 2, 3, 4]


def test_agreement_counts_pairs_within_groups_of_a_query() -> None:
    pool = Judgements.from_pairs(
        np.array([0, 0, 0, 0, 1, 1]), np.array([0, 1, 2, 3, 0, 1]), np.array([0, 0, 1, 3, 0, 1]), 3
    )
    agree, chance, pairs = agreement(pool, np.array([0, 0, 0, 3]))
    assert agree[:2] == pytest.approx([1 / 3, 0])
    assert chance[:2] == pytest.approx([1 / 6, 0])
    assert np.isnan(agree[2])
    assert pairs == 4


def test_edited_groups_and_groups_of_other_neighbours_are_refused() -> None:
    texts, _ = planted(np.random.default_rng(9))
    write_catalogue(given(), [f"B{i:04d}" for i in range(len(texts))], texts, [])
    duplicates.duplicates(given(), LOCALE)
    manifest = read_manifest(given(), LOCALE)
    other = {"table_sha256": "0" * 64}
    side = manifest.products.model_copy(update=other)
    for changed, of, said in (
        (given(), manifest.model_copy(update={"products": side}), "table_sha256 must be"),
        (given({"duplicates.text": 0.5}), manifest, "settings must be"),
        (given({"similar.neighbours": 11}), manifest, "neighbours must be 11"),
        (given({"explore": []}), manifest.model_copy(update={"products": side}), "Add es to expl"),
    ):
        with pytest.raises(PipelineError, match=rf"{said}.*`dvc repro duplicates@es"):
            read_kept(changed, LOCALE, of)
    path = layout.duplicates(LOCALE).groups
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(PipelineError, match=r"groups.*: sha256 must be.*`dvc repro duplicates@"):
        read_kept(given(), LOCALE, manifest)
    with pytest.raises(PipelineError, match=r"neighbours must be 11 .*`dvc repro similar@"):
        duplicates.duplicates(given({"similar.neighbours": 11}), LOCALE)
