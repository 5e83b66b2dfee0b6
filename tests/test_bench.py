"""make bench measures what it says: the same texts, the record's nDCG, figures that follow."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ruamel.yaml import YAML

from pipeline import evaluate, index, layout, retrieve
from pipeline.bench import encode
from pipeline.bench.quality import ndcg, read_catalogue
from pipeline.bench.side import BASELINE, Side
from pipeline.params import PARAMS_FILE, load_params
from tests.artefacts import LOCALE, ROOT, params, random_vectors, write_clean, write_embeddings
from tests.conftest import RunStage
from tests.tiny_models import build_model

CPU_SIDES = {str(side) for side in encode.SIDES["cpu"]}


def test_rounds_take_all_rows_before_any_twice() -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        total = int(rng.integers(1, 40))
        size, rounds = int(rng.integers(1, total + 1)), int(rng.integers(1, 8))
        shares = encode.shares(total, size, rounds)
        assert [len(rows) for rows in shares] == [size] * rounds
        for rows in shares:
            assert len(set(rows.tolist())) == size, "a text twice in a round"
        taken = np.bincount(np.concatenate(shares), minlength=total)
        assert taken.max() - taken.min() <= 1


def test_cosine_distance_is_the_largest_angle_between_rows_in_one_place() -> None:
    rng = np.random.default_rng(2)
    left = random_vectors(rng, 20)
    right = left * rng.uniform(0.1, 9, (20, 1)).astype(np.float32)
    assert encode.cosine_distance(left, right) < 1e-12
    right[7] += random_vectors(rng, 1)[0]
    cosine = float(left[7] @ right[7] / np.linalg.norm(left[7]) / np.linalg.norm(right[7]))
    assert encode.cosine_distance(left, right) == pytest.approx(1 - cosine, rel=1e-4)
    left[7] = np.nan
    assert encode.cosine_distance(left, right) < 1e-12


def test_a_ratio_compares_a_side_with_its_baseline_in_the_same_round() -> None:
    base = encode.Measured(np.ones((2, 3), np.float32), [10.0, 40.0, 20.0], 5, {"es": 0.5})
    one = replace(base, seconds=[5.0, 10.0, 20.0], ndcg={"es": 0.4}, peak_bytes=7_000_000)
    found = encode.figures(one, base, texts=20, tokens=[100, 200, 300])
    assert found["ratio"] == {"min": 1.0, "median": 2.0, "max": 4.0}
    assert found["texts_per_second"] == 2.0
    assert found["tokens_per_second"] == 20
    assert found["ndcg@10_difference"] == {"es": pytest.approx(-0.1)}
    assert found["peak_megabytes"] == 7
    assert encode.figures(base, base, 20, [1, 1, 1])["ratio"]["median"] == 1.0


@pytest.mark.parametrize("dimension", [3, 48])
def test_its_ndcg_is_the_one_of_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dimension: int
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(3)
    write_clean(rng, 120, 30)
    products = random_vectors(rng, 120, dimension)
    queries = random_vectors(rng, 30, dimension)
    given = params({"index.es": "flat"})
    write_embeddings(given, products, queries)
    for stage in (index.index, retrieve.retrieve, evaluate.evaluate):
        stage(given, LOCALE)
    recorded = json.loads(layout.metrics(LOCALE).read_text())["dense"]["ndcg@10"]
    catalogue = read_catalogue(LOCALE)
    assert ndcg(catalogue.judgements, products, queries, "cosine") == recorded > 0


def test_a_product_without_text_is_still_what_a_query_should_have_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(4)
    judged = write_clean(rng, 40, 10)
    products, queries = random_vectors(rng, 39), random_vectors(rng, 10)
    path = layout.clean(LOCALE) / "products.parquet"
    import pyarrow.parquet as pq

    from pipeline import tables

    whole = tables.read_table(path, tables.PRODUCTS, "")
    gone = judged["product_id"][0]
    tables.write_table(
        path, whole.filter(pq_not_equal(whole["product_id"], gone)), tables.PRODUCTS
    )
    write_embeddings(params(), products, queries)
    for stage in (index.index, retrieve.retrieve, evaluate.evaluate):
        stage(params(), LOCALE)
    recorded = json.loads(layout.metrics(LOCALE).read_text())["dense"]["ndcg@10"]
    assert ndcg(read_catalogue(LOCALE).judgements, products, queries, "cosine") == recorded
