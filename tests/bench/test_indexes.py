"""The larger catalogue that indexes are measured on is the real one, with copies near it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import reports
from bench.indexes import HEADER, grow, measure, table
from pipeline.core import layout, tables
from pipeline.core.files import read_json
from pipeline.tradeoff.command import tradeoff
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import ShardReader, read_vectors
from tests.helpers.artefacts import (
    LOCALE,
    ROOT,
    params,
    random_vectors,
    write_clean,
    write_embeddings,
)

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_products_and_their_labels_are_repeated_and_the_real_ones_and_the_queries_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    monkeypatch.chdir(tmp_path / "real")
    rng = np.random.default_rng(1)
    write_clean(rng, 300, 20)
    given = params({"indexes.pq-fastscan.subvectors": 24})
    products, queries = random_vectors(rng, 300), random_vectors(rng, 20)
    manifest = write_embeddings(given, products, queries)
    path = layout.clean(LOCALE).products
    names = tables.read_column(path, tables.PRODUCTS, "product_id", "").to_pylist()
    grow(given, manifest, LOCALE, 1_000, 0.3, tmp_path / "grown")
    monkeypatch.chdir(tmp_path / "grown")
    grown = read_manifest(given, LOCALE)
    ids = tables.read_column(path, tables.PRODUCTS, "product_id", "").to_pylist()
    assert (len(ids), ids) == (1_000, sorted(ids))
    labels = tables.read_table(layout.clean(LOCALE).judgements, tables.JUDGEMENTS, "").to_pylist()
    label_of = {(each["query_id"], each["product_id"]): each["label"] for each in labels}
    assert label_of == {
        (query, name): label
        for (query, product), label in label_of.items()
        if product in names
        for name in ids
        if name.startswith(product)
    }
    vectors = np.concatenate(list(ShardReader(grown, "products", LOCALE)))
    for name, vector in zip(ids, vectors, strict=True):
        own = products[names.index(name[: len(names[0])])]
        cosine = vector @ own / np.linalg.norm(vector) / np.linalg.norm(own)
        if name in names:
            np.testing.assert_allclose(vector, own, rtol=1e-6)
        else:
            assert 0.9 < cosine < 0.99
    np.testing.assert_array_equal(read_vectors(grown, "queries", LOCALE), queries)
    monkeypatch.setattr("pipeline.tradeoff.command.LEAST_SECONDS", 0)
    tradeoff(given, LOCALE, ["flat", "sq8"])
    found = layout.tradeoff(LOCALE).read_text("utf-8")
    lines = table(json.loads(found)).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["flat", "sq8"]
    assert lines[2].endswith("| 1.0 |")


def test_an_index_is_measured_by_itself_and_the_others_stay_if_they_are_of_the_same_products(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pipeline.tradeoff.command.LEAST_SECONDS", 0)
    Path("params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    rng = np.random.default_rng(2)
    write_clean(rng, 300, 20)
    write_embeddings(params(), random_vectors(rng, 300), random_vectors(rng, 20))

    def run(*names: str, products: int = 900, commit: str = "first") -> dict[str, Any]:
        monkeypatch.setattr(reports, "commit", lambda: commit)
        measure(LOCALE, list(names), products, 8, 0.3)
        path = reports.indexes(products)
        report: dict[str, Any] = read_json(path, "")
        text = path.with_suffix(".md").read_text("utf-8")
        assert text.splitlines()[2].count("|") == len(HEADER) + 1
        commits = sorted(set(report["commits"].values()))
        assert f"Of the commit{'s' * (len(commits) > 1)} {', '.join(commits)}, on" in text
        return report

    first = run("flat", "hnsw")
    second = run("ivf-flat-1", commit="second")
    assert second["commits"] == {"flat": "first", "hnsw": "first", "ivf-flat-1": "second"}
    assert second["found"]["indexes"][:2] == first["found"]["indexes"]
    other = run("sq8", products=600, commit="third")
    assert other["commits"] == {"sq8": "third"}
    assert read_json(reports.indexes(900), "") == second
