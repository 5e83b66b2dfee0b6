"""The made-up catalogue has ESCI's schema, size and shape, and the same bytes however made."""

from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from bench.full_size import command as full_size
from bench.full_size import shape
from bench.full_size.words import own, skewed
from pipeline.clean import stage as clean
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, sha256_file
from pipeline.demo.tables import EXAMPLES, PRODUCTS
from pipeline.sample import stage as sample
from tests.conftest import RunStage
from tests.helpers import artefacts

pytestmark = [pytest.mark.slow, pytest.mark.thorough]

SIZE = full_size.LEAST


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest made-up catalogue."""
    made = tmp_path_factory.mktemp("stand-in") / "esci"
    full_size.write(made, SIZE, threads=2)
    return made


@pytest.fixture(scope="module")
def examples(folder: Path) -> pd.DataFrame:
    table = pq.read_table(folder / layout.EXAMPLES_FILE)
    assert table.schema.equals(EXAMPLES)
    return table.to_pandas()


@pytest.fixture(scope="module")
def products(folder: Path) -> pd.DataFrame:
    table = pq.read_table(folder / layout.PRODUCTS_FILE)
    assert table.schema.equals(PRODUCTS)
    return table.to_pandas()


def test_the_bytes_are_the_same_however_many_threads_make_them(
    folder: Path, tmp_path: Path
) -> None:
    full_size.write(tmp_path / "again", SIZE, threads=5)
    names = sorted(path.name for path in folder.iterdir())
    assert names == sorted([layout.EXAMPLES_FILE, layout.PRODUCTS_FILE, layout.SOURCES_FILE])
    for name in names:
        assert sha256_file(folder / name) == sha256_file(tmp_path / "again" / name), name


def test_full_size_has_escis_published_numbers() -> None:
    full = shape.shapes(shape.PRODUCTS).values()
    assert sum(each.products for each in full) == 1_814_924
    assert sum(each.queries for each in full) == 130_652
    assert sum(each.judgements for each in full) == 2_621_288
    for size in (20_000, 123_457, 3_000_000):
        assert sum(each.products for each in shape.shapes(size).values()) == size


def test_every_locale_has_its_share_of_products_queries_splits_and_labels(
    examples: pd.DataFrame, products: pd.DataFrame
) -> None:
    assert (examples.example_id == np.arange(len(examples))).all()
    for locale, wanted in shape.shapes(SIZE).items():
        rows = examples[examples.product_locale == locale]
        queries = rows.drop_duplicates("query_id")
        assert (products.product_locale == locale).sum() == wanted.products
        assert len(rows) == wanted.judgements
        assert len(queries) == wanted.queries
        assert (queries.split == "test").sum() == wanted.test
        small = queries[queries.small_version == 1]
        assert len(small) == wanted.small
        assert (small.split == "test").sum() == wanted.small_test
        shares = rows.esci_label.value_counts(normalize=True)
        for label, share in zip("ESCI", wanted.labels, strict=True):
            assert shares[label] == pytest.approx(share, abs=0.04)
        judged = rows.groupby("query_id").size()
        assert judged.min() >= shape.JUDGED_LEAST
        if locale == "us":
            assert judged.median() == shape.JUDGED_USUAL
        assert (rows[rows.esci_label == "E"].groupby("query_id").size() > 0).sum() == len(queries)
    assert (examples.groupby("query_id").product_locale.nunique() == 1).all()


def test_products_are_null_and_marked_up_as_often_as_real_ones(products: pd.DataFrame) -> None:
    for locale, wanted in shape.SHAPES.items():
        rows = products[products.product_locale == locale]
        names = ("description", "bullet_point", "brand", "color")
        for name, share in zip(names, wanted.null, strict=True):
            assert rows[f"product_{name}"].isna().mean() == pytest.approx(share, abs=0.03)
        described = rows.product_description.dropna()
        assert described.str.contains("<").mean() == pytest.approx(wanted.html, abs=0.05)
        lengths = described.str.len()
        assert lengths.median() == pytest.approx(wanted.description.median, rel=0.2)
    total = products.drop(columns=["product_id", "product_locale"]).fillna("").sum(axis=1)
    assert 1_000 < total.str.encode("utf-8").str.len().mean() < 1_400


def test_every_judged_product_has_a_row_and_no_pair_or_product_stands_twice(
    examples: pd.DataFrame, products: pd.DataFrame
) -> None:
    key = ["product_locale", "product_id"]
    assert not products.duplicated(key).any()
    assert not examples.duplicated(["query_id", "product_id"]).any()
    assert len(examples.merge(products[key], on=key)) == len(examples)
    assert products.product_id.duplicated().any(), "locales share ids"


def test_the_stages_take_all_of_it(folder: Path, project: Path) -> None:
    changes = {"source": str(folder), "version": "all", "splits": ["train", "test"]}
    params = artefacts.params({f"sample.{key}": value for key, value in changes.items()})
    sample.sample(params)
    total = 0
    for locale in params.locales:
        clean.clean(params, locale)
        counts = read_json(layout.clean(locale).counts, "")
        for kind in ("products", "queries", "judgements"):
            assert counts[kind]["in"] == counts[kind]["out"]
        total += counts["products"]["out"]
        counts = read_json(layout.sample(locale).counts, "")
        assert counts["queries_without_source"] == 0
    assert total == SIZE


def test_too_few_products_for_the_shape_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=f"--products {SIZE - 1}: fewer than {SIZE}"):
        full_size.write(tmp_path / "esci", SIZE - 1, threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["data", "data/esci", "data/../data/esci/", ".", "link"])
def test_a_folder_that_holds_anything_is_refused_and_stays_as_it_is(
    project: Path, run_stage: RunStage, out: str
) -> None:
    (project / "data/esci").mkdir(parents=True)
    (project / "data/esci/official").write_text("")
    (project / "link").symlink_to("data/esci")
    before = sorted(project.rglob("*"))

    done = run_stage("bench.full_size", "--products", str(SIZE), "--out", out)

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    folder = (project / out).resolve()
    first = min(path.name for path in folder.iterdir())
    assert line.startswith(
        f"error in full-size: --out {folder}: the folder would be replaced, and {first}"
    )
    assert line.endswith("Name a folder that is absent or empty, or move its files away.")
    assert sorted(project.rglob("*")) == before


def test_a_file_in_the_folders_place_is_refused_and_stays(project: Path) -> None:
    with pytest.raises(PipelineError, match=r"--out .*params\.yaml is a file\. Name a folder"):
        full_size.write(Path("params.yaml"), SIZE, threads=1)
    assert [path.name for path in project.iterdir()] == ["params.yaml"]


def test_an_earlier_stand_in_is_replaced_in_its_usual_place_alone_and_with_nothing_beside_it(
    folder: Path, project: Path
) -> None:
    name, other = layout.PRODUCTS_FILE, full_size.FOLDER.with_name("other")
    for each in (full_size.FOLDER, other):
        each.mkdir(parents=True)
        (each / name).write_text("old")
    (project / "data/empty").mkdir()

    full_size.write(full_size.FOLDER, SIZE, threads=2)
    full_size.write(Path("data/empty"), SIZE, threads=2)

    for each in (full_size.FOLDER, Path("data/empty")):
        assert sha256_file(each / name) == sha256_file(folder / name)
    with pytest.raises(PipelineError, match=f"--out .*other: .* {name} in it would be lost"):
        full_size.write(other, SIZE, threads=1)
    assert (other / name).read_text() == "old"
    (full_size.FOLDER / "notes").write_text("mine")
    with pytest.raises(PipelineError, match="notes in it would be lost"):
        full_size.write(full_size.FOLDER, SIZE, threads=1)
    assert (full_size.FOLDER / "notes").read_text() == "mine"


def test_words_are_drawn_as_they_are_used_and_a_product_keeps_its_own() -> None:
    drawn = skewed(np.random.default_rng(0), 1_000, 50_000)
    counts = np.bincount(drawn, minlength=1_000)
    assert len(counts) == 1_000
    assert counts[0] > 5 * counts[9] > 25 * counts[99]
    numbers = np.arange(5_000)
    np.testing.assert_array_equal(own(numbers, 70, 3)[::7], own(numbers[::7], 70, 3))
    assert set(own(numbers, 70, 3)) == set(range(70))
