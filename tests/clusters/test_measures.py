"""The measures of clusters against brute force."""

import itertools

import numpy as np
import pytest

from pipeline.clusters.measures import chance, pair_shares


def test_chance_is_the_share_of_all_pairs_that_are_together() -> None:
    group = np.random.default_rng(1).integers(0, 5, 60)
    together = [a == b for a, b in itertools.combinations(group, 2)]
    assert chance(group) == pytest.approx(np.mean(together))
    assert np.isnan(chance(np.array([0])))


def test_the_shares_of_pairs_are_those_of_all_pairs_of_a_query() -> None:
    rng = np.random.default_rng(2)
    group = rng.integers(0, 6, 40)
    pairs = sorted({(rng.integers(0, 30), rng.integers(0, 40)) for _ in range(200)})
    queries, products = np.array(pairs).T
    labels = rng.choice(list("ESCI"), len(pairs))
    found = pair_shares(group, queries, products, labels, 31)
    for query in range(31):
        of = {
            label: group[products[(queries == query) & (labels == label)]] for label in ("E", "I")
        }
        exact = [a == b for a, b in itertools.combinations(of["E"], 2)]
        mixed = [a == b for a, b in itertools.product(of["E"], of["I"])]
        for value, expected in ((found.exact[query], exact), (found.irrelevant[query], mixed)):
            if expected:
                assert value == pytest.approx(np.mean(expected))
            else:
                assert np.isnan(value)


def test_without_labels_no_query_has_a_share() -> None:
    nothing = np.empty(0, dtype=np.int64)
    found = pair_shares(np.zeros(3, dtype=np.int64), nothing, nothing, np.empty(0, dtype="<U1"), 4)
    assert np.isnan(found.exact).all()
    assert np.isnan(found.irrelevant).all()
