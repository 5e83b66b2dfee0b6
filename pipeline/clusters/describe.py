"""What is said of each cluster: its name, its brands, its examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest

import numpy as np

from pipeline.clusters.counts import Counter
from pipeline.clusters.form import Brand, Cluster, Example, Leaf
from pipeline.clusters.kmeans import Clustering
from pipeline.clusters.names import Name, common_terms, name_groups
from pipeline.clusters.surfaces import surfaces_for
from pipeline.core import layout
from pipeline.core.arrays import Ints
from pipeline.core.params import Params
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.product_fields import BRAND, iter_fields

BRANDS = 3
CLUSTER_EXAMPLES, LEAF_EXAMPLES = 5, 2
CANDIDATES = 20
"""How many products of a leaf are looked at for examples with different titles."""

EXAMPLE_CHARACTERS = 200


@dataclass(frozen=True)
class Texts:
    """What the texts of all products gave.

    Attributes:
        titles: of the products that may be examples, by row.
        cluster_names, leaf_names: of each.
        brand_of: the number of each product's brand, -1 without one, int64 [products].
        brands: how the brands are written, by number.
    """

    titles: dict[int, str]
    cluster_names: list[Name]
    leaf_names: list[Name]
    brand_of: Ints
    brands: list[str]


def describe_clusters(
    params: Params, locale: str, found: Clustering, ids: Sequence[str]
) -> tuple[Cluster, ...]:
    """Return what is said of each cluster, in order.

    Args:
        params: decides how texts become words.
        locale: whose clean products are read.
        found: the clusters.
        ids: the product_id of each product; only those of examples are read.
    """
    candidates = nearest_products(found)
    texts = _read_texts(params, locale, found, np.sort(np.concatenate(candidates)))
    sizes, leaf_sizes = np.bincount(found.cluster), np.bincount(found.leaf)
    nearness = np.bincount(found.cluster, found.nearness) / sizes
    branded = BRAND in params.clean.fields
    described = []
    for number in range(found.clusters):
        leaves = np.flatnonzero(found.cluster_of_leaf == number).tolist()
        middle = _by_turns([candidates[leaf] for leaf in leaves])
        brands = texts.brand_of[found.cluster == number]
        brands = brands[brands >= 0]
        described.append(
            Cluster(
                cluster=number,
                name=texts.cluster_names[number].words,
                covered=round(texts.cluster_names[number].covered, MEAN_DECIMALS),
                products=int(sizes[number]),
                nearness=round(float(nearness[number]), MEAN_DECIMALS),
                with_brand=len(brands) if branded else None,
                brands=_most_frequent(brands, texts.brands),
                examples=_examples(middle, texts.titles, ids, CLUSTER_EXAMPLES),
                leaves=tuple(
                    Leaf(
                        leaf=leaf,
                        name=texts.leaf_names[leaf].words,
                        covered=round(texts.leaf_names[leaf].covered, MEAN_DECIMALS),
                        products=int(leaf_sizes[leaf]),
                        examples=_examples(candidates[leaf], texts.titles, ids, LEAF_EXAMPLES),
                    )
                    for leaf in leaves
                ),
            )
        )
    return tuple(described)


def nearest_products(found: Clustering) -> list[Ints]:
    """Return the rows of the products that are nearest to the centroid of each leaf, in order."""
    order = np.lexsort((-found.nearness.round(MEAN_DECIMALS), found.leaf))
    starts = np.searchsorted(found.leaf[order], np.arange(found.leaves + 1))
    return [order[start:stop][:CANDIDATES] for start, stop in pairwise(starts)]


def _read_texts(params: Params, locale: str, found: Clustering, shown: Ints) -> Texts:
    """Read the texts once: count the terms of each leaf, keep brands and the titles shown."""
    counter = Counter(surfaces_for(params.language[locale]))
    titles: dict[int, str] = {}
    brand_numbers: dict[str, int] = {}
    written: list[str] = []
    brand_of = np.full(len(found.leaf), -1, dtype=np.int64)
    done = 0
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    for batch in iter_fields(path, params.clean, [BRAND], remedy, title_characters=None):
        brands = batch.values.get(BRAND) or [""] * len(batch.titles)
        rows = slice(done, done + len(batch.titles))
        counter.add(batch.titles, brands, found.leaf[rows])
        for row, brand in enumerate(brands, start=done):
            if brand:
                number = brand_numbers.setdefault(brand.casefold(), len(written))
                if number == len(written):
                    written.append(brand)
                brand_of[row] = number
        for row in shown[slice(*np.searchsorted(shown, [rows.start, rows.stop]))].tolist():
            titles[row] = batch.titles[row - done][:EXAMPLE_CHARACTERS]
        done = rows.stop
    leaves, terms = counter.finish()
    common = common_terms(leaves.within(found.cluster_of_leaf), np.bincount(found.cluster))
    cluster_names, leaf_names = (
        name_groups(leaves, terms, found.leaf, groups, found.centroids, common | leaves.is_brand)
        for groups in (found.cluster_of_leaf, np.arange(found.leaves))
    )
    return Texts(titles, cluster_names, leaf_names, brand_of, written)


def _most_frequent(brands: Ints, written: list[str]) -> tuple[Brand, ...]:
    """Return the brands that most of some products have, ties by their letters."""
    numbers, products = np.unique(brands, return_counts=True)
    found = zip((-products).tolist(), [written[number] for number in numbers], strict=True)
    return tuple(Brand(brand=brand, products=-less) for less, brand in sorted(found)[:BRANDS])


def _by_turns(parts: list[Ints]) -> Ints:
    """Return the first of each part, then the second of each, and so on."""
    turns = zip_longest(*(part.tolist() for part in parts))
    return np.array([row for turn in turns for row in turn if row is not None], dtype=np.int64)


def _examples(
    rows: Ints, titles: dict[int, str], ids: Sequence[str], most: int
) -> tuple[Example, ...]:
    """Return the first `most` of the products whose titles differ."""
    chosen: dict[str, Example] = {}
    for row in rows.tolist():
        key = titles[row].casefold()
        if key not in chosen:
            chosen[key] = Example(product_id=str(ids[row]), title=titles[row])
        if len(chosen) == most:
            break
    return tuple(chosen.values())
