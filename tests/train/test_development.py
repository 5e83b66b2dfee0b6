"""The dev measures, against rankings written out query by query."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.evaluate.metrics import GAINS
from pipeline.train import catalogue
from pipeline.train.catalogue import draw_others
from pipeline.train.development import CATALOGUE, POOL, Development, expected_gains
from pipeline.train.pairs import pairs_of
from tests.helpers.training import pair_table


def _ndcg(ranked: list[str], labels: dict[str, str]) -> float:
    gains = [GAINS[labels[product]] if product in labels else 0.0 for product in ranked[:10]]
    best = sorted((GAINS[label] for label in labels.values()), reverse=True)[:10]
    dcg, ideal = (sum(g / np.log2(at + 2) for at, g in enumerate(each)) for each in (gains, best))
    return float(dcg / ideal)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_measures_are_those_of_every_query_ranked_by_hand(seed: int) -> None:
    table = pair_table(17, seed, per_query=7)
    others = draw_others(table, pair_table(9, seed, first=40), seed)
    pairs = pairs_of(table, others)
    rng = np.random.default_rng(seed)
    # Small whole numbers tie often.
    queries = rng.integers(-1, 2, (len(pairs.queries), 3)).astype(np.float32) + 0.1
    texts = rng.integers(-1, 2, (len(pairs.texts), 3)).astype(np.float32) + 0.1
    found = Development(pairs, "dev", catalogue=True).of_vectors(queries, texts)

    rows, others = table.to_pylist(), others.to_pylist()
    assert len(others) == 45
    expected: dict[str, list[float]] = {CATALOGUE: [], POOL: []}
    for locale, query_id in sorted({(row["locale"], row["query_id"]) for row in rows}):
        own = [row for row in [*rows, *others] if row["locale"] == locale]
        mine = [row for row in own if row["query_id"] == query_id]
        labels = {row["product_id"]: row["label"] for row in mine}
        query = queries[pairs.queries.index(mine[0]["query"])].astype(np.float64)

        def rank(products: list[dict[str, str]], query: np.ndarray = query) -> list[str]:
            scored = []
            for row in products:
                text = texts[pairs.texts.index(row["text"])].astype(np.float64)
                cosine = query @ text / np.linalg.norm(query) / np.linalg.norm(text)
                scored.append((round(float(cosine), 6), row["product_id"]))
            return [product for _, product in sorted(scored, reverse=True)]

        expected[CATALOGUE].append(_ndcg(rank(own), labels))
        expected[POOL].append(_ndcg(rank(mine), labels))
    for measure, values in expected.items():
        assert found[measure] == pytest.approx(np.mean(values), abs=1e-5)


def test_dev_queries_are_searched_among_the_products_of_both_sides_each_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With few a locale, the seed decides which; and the products of dev queries are all there."""
    dev, train = pair_table(4, 1), pair_table(12, 2)  # the first queries' products are the same
    both = pa.concat_tables([dev, train, train])

    def keys(table: pa.Table) -> list[tuple[str, str]]:
        return sorted(
            zip(*(table[name].to_pylist() for name in ("locale", "product_id")), strict=True)
        )

    assert keys(draw_others(dev, both, 1)) == sorted({*keys(train)} - {*keys(dev)})
    of_us = dev.filter(pc.equal(dev["locale"], "us"))
    assert {locale for locale, _ in keys(draw_others(of_us, both, 1))} == {"us"}
    monkeypatch.setattr(catalogue, "OTHERS", 3)
    one, again, other = (draw_others(dev, both, seed) for seed in (1, 1, 2))
    assert one == again
    assert [locale for locale, _ in keys(one)] == ["es"] * 3 + ["us"] * 3
    assert keys(one) != keys(other)
    assert Development(pairs_of(dev, one), "dev", catalogue=True).products == len(dev) + 6


def test_a_rerankers_score_is_the_expected_gain() -> None:
    logits = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    gains = [sum(row[at] * GAINS[label] for at, label in enumerate(LABELS)) for row in chances]
    np.testing.assert_allclose(expected_gains(logits), gains, rtol=1e-5)
    pairs = pairs_of(pair_table(9, 1))
    development = Development(pairs, "dev", catalogue=False)
    perfect = np.where(np.arange(4) == pairs.label[:, None], 9.0, -9.0).astype(np.float32)
    assert development.chooses == POOL
    assert development.of_logits(perfect) == {POOL: 1.0}
    assert development.of_logits(-perfect)[POOL] < 0.9


def test_queries_of_one_label_are_counted_and_a_dev_part_without_gain_is_refused() -> None:
    table = pair_table(9, 1)
    labels = ["E" if row["query_id"] < 4 else row["label"] for row in table.to_pylist()]
    one = table.set_column(4, table.schema.field("label"), [labels])
    assert Development(pairs_of(one), "dev", catalogue=True).of_one_label == 4
    none = table.set_column(4, table.schema.field("label"), [["I"] * len(labels)])
    with pytest.raises(PipelineError, match=r"^dev: no query has a product with a gain"):
        Development(pairs_of(none), "dev", catalogue=True)
