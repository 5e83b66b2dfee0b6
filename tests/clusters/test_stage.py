"""The clusters stage: what it writes, that it is the same each time, and bad input."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import adjusted_mutual_info_score

from pipeline.bm25.analysers import analyser_for
from pipeline.clusters.directions import Directions
from pipeline.clusters.form import CLUSTERS, MAP, read_report
from pipeline.clusters.kmeans import cluster_products, default_clusters, default_leaf_size
from pipeline.clusters.stage import clusters
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.demo.marketplace import load_wording
from pipeline.demo.tables import draw_products
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import ShardReader
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings

pytestmark = pytest.mark.slow

Changes = dict[str, object]
Write = Callable[..., None]


@pytest.fixture
def write(project: Path) -> Write:
    """Write clean tables and vectors of `LOCALE`."""

    def written(vectors: Matrix, titles: Sequence[str] = (), brands: Sequence[str] = ()) -> None:
        rng = np.random.default_rng(3)
        write_clean(rng, len(vectors), 20)
        if titles:
            retitle(titles, brands or [""] * len(titles))
        write_embeddings(params(), vectors, random_vectors(rng, 20, vectors.shape[1]))

    return written


def retitle(titles: Sequence[str], brands: Sequence[str]) -> None:
    """Write other texts of the products: a title, and a brand after it."""
    path = layout.clean(LOCALE).products
    old = tables.read_table(path, tables.PRODUCTS, "")
    texts, ends = [], []
    for title, brand in zip(titles, brands, strict=True):
        texts.append(f"{title} {brand}".strip())
        ends.append([len(title), *[len(texts[-1])] * (len(params().clean.fields) - 1)])
    columns = {"product_id": old["product_id"], "text": texts, "field_ends": ends}
    tables.write_table(path, pa.table(columns, tables.PRODUCTS), tables.PRODUCTS)


def hashes() -> list[str]:
    """Return the hashes of all that the stage wrote."""
    files = layout.clusters(LOCALE)
    paths = (files.clusters, files.map, layout.clusters_report(LOCALE))
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]


def test_the_artefacts_agree_and_are_the_same_twice(write: Write) -> None:
    write(random_vectors(np.random.default_rng(4), 120))
    clusters(params(), LOCALE)
    first = hashes()
    report = read_report(LOCALE)
    table = tables.read_table(layout.clusters(LOCALE).clusters, CLUSTERS, "")
    ids = tables.read_column(layout.clean(LOCALE).products, tables.PRODUCTS, "product_id", "")
    assert table["product_id"].to_pylist() == ids.to_pylist()
    assert len(tables.read_table(layout.clusters(LOCALE).map, MAP, "")) == 120
    sizes = np.bincount(table["cluster"].to_numpy())
    assert [group.products for group in report.groups] == sizes.tolist()
    leaves = [leaf for group in report.groups for leaf in group.leaves]
    assert [leaf.products for leaf in leaves] == np.bincount(table["leaf"].to_numpy()).tolist()
    assert [leaf.leaf for leaf in leaves] == list(range(report.leaves))
    of_product = dict(zip(ids.to_pylist(), table["cluster"].to_pylist(), strict=True))
    for group in report.groups:
        assert {of_product[each.product_id] for each in group.examples} == {group.cluster}
    clusters(params({"runtime.threads": 3}), LOCALE)
    assert hashes() == first


def test_settings_are_obeyed_and_an_impossible_one_is_refused(write: Write) -> None:
    write(random_vectors(np.random.default_rng(5), 60))
    clusters(params({"clusters.count": 3, "clusters.leaf_size": 5}), LOCALE)
    report = read_report(LOCALE)
    assert report.clusters == 3
    assert report.leaves > 8
    with pytest.raises(PipelineError, match=r"clusters.count must be at most 60, .*found 61"):
        clusters(params({"clusters.count": 61}), LOCALE)


def test_one_product_is_one_cluster_and_nothing_is_measured(write: Write) -> None:
    write(np.ones((1, 4), dtype=np.float32), ["Una lámpara de mesa"])
    clusters(params(), LOCALE)
    report = read_report(LOCALE)
    assert (report.clusters, report.leaves, report.without_direction) == (1, 1, 1)
    assert "lámpara" in report.groups[0].name
    assert report.measures.clusters is None
    assert report.measures.stability is None
    assert set(report.measures.missing) == {"pairs", "stability"}


def test_equal_vectors_are_one_cluster(write: Write) -> None:
    write(np.full((30, 4), 7, dtype=np.float32))
    clusters(params(), LOCALE)
    report = read_report(LOCALE)
    assert (report.clusters, report.without_direction) == (1, 30)
    assert report.measures.clusters is not None
    assert report.measures.clusters.lift is None or report.measures.clusters.lift.mean == 1


def test_without_labels_the_measures_are_absent_and_it_is_said_why(write: Write) -> None:
    write(random_vectors(np.random.default_rng(6), 50))
    path = layout.clean(LOCALE).judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, "")
    tables.write_table(path, judgements.slice(0, 0), tables.JUDGEMENTS)
    clusters(params(), LOCALE)
    measures = read_report(LOCALE).measures
    assert measures.clusters is measures.leaves is None
    assert measures.missing == {"pairs": "no product with a text is Exact for a query"}
    assert measures.stability is not None


def test_brands_are_counted_apart_where_texts_have_the_field(write: Write) -> None:
    rng = np.random.default_rng(7)
    group = np.repeat([0, 1], 20)
    vectors = 9 * random_vectors(rng, 2)[group] + random_vectors(rng, 40)
    titles = [("Acme zapatillas rojas", "Solis cafetera italiana")[of] for of in group]
    write(vectors, titles, [("Acme", "SOLIS")[of] if i % 4 else "" for i, of in enumerate(group)])
    clusters(params({"clusters.count": 2}), LOCALE)
    described = {group.name: group for group in read_report(LOCALE).groups}
    assert set(described) == {("zapatillas rojas",), ("cafetera italiana",)}
    coffee = described["cafetera italiana",]
    assert coffee.with_brand == 15
    assert [(each.brand, each.products) for each in coffee.brands] == [("SOLIS", 15)]
    assert len(coffee.examples) == 1, "equal titles are shown once"


def test_vectors_of_other_products_are_refused(write: Write) -> None:
    write(random_vectors(np.random.default_rng(8), 40))
    write_clean(np.random.default_rng(9), 40, 20)
    with pytest.raises(PipelineError, match="products vectors are of 40 rows"):
        clusters(params(), LOCALE)
    assert not layout.clusters(LOCALE).folder.exists()


@pytest.mark.parametrize("locale", ["us", "jp", pytest.param("es", marks=pytest.mark.thorough)])
def test_the_demos_true_categories_are_found_from_its_words(locale: str, write: Write) -> None:
    """The words are a stand-in for an encoder: a random vector for each, weighted by its rarity."""
    given = params()
    products = [
        each
        for each in draw_products(load_wording(locale), locale, given.demo)
        if each.listed and each.title
    ]
    analyse = analyser_for(given.language[locale]).terms
    found = [set(analyse(each.title)) for each in products]
    numbers = {term: number for number, term in enumerate(sorted(set.union(*found)))}
    having = np.zeros((len(products), len(numbers)))
    for row, terms in enumerate(found):
        having[row, [numbers[term] for term in terms]] = 1
    weighted = having * np.log(len(products) / having.sum(axis=0))
    directions = np.random.default_rng(1).standard_normal((len(numbers), 192))
    write((weighted @ directions).astype(np.float32), [each.title for each in products])
    vectors = Directions(ShardReader(read_manifest(given, LOCALE), "products", LOCALE))
    wanted, leaf_size = default_clusters(vectors.rows), default_leaf_size(vectors.rows)
    cluster = cluster_products(vectors, wanted, leaf_size, given.clusters.seed, 2).cluster
    assert adjusted_mutual_info_score([each.type for each in products], cluster) > 0.8
