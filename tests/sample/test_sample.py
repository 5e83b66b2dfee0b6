import json
import os
import resource
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.sample import buckets, esci
from pipeline.sample.draw import draw
from pipeline.sample.opening import match_columns, open_file
from pipeline.sample.stage import sample
from tests.conftest import RunStage
from tests.helpers import artefacts
from tests.helpers.esci_files import (
    EXAMPLES,
    EXAMPLES_FILE,
    PRODUCTS,
    PRODUCTS_FILE,
    SOURCES_FILE,
    example,
    product,
    random_source,
    small_source,
    write_source,
)
from tests.helpers.peaks import numbers_told

LOCALES = ("us", "es", "jp")
FILES = [
    f"{locale}/{name}"
    for locale in LOCALES
    for name in (
        "queries.parquet",
        "products.parquet",
        "judgements.parquet",
        "sources.parquet",
        "counts.json",
    )
]


@pytest.fixture
def sampled(project: Path) -> Callable[..., dict[str, dict[str, list[dict[str, Any]]]]]:
    """Return what draws from `project/source`, and gives the rows of each locale's tables."""

    def run(**settings: object) -> dict[str, dict[str, list[dict[str, Any]]]]:
        sample(params_of(**settings))
        return {
            locale: {
                name: pq.read_table(layout.sample(locale).folder / f"{name}.parquet").to_pylist()
                for name in ("queries", "products", "judgements")
            }
            for locale in LOCALES
        }

    return run


def params_of(**settings: object) -> Params:
    return artefacts.params(
        {"sample.source": "source", **{f"sample.{name}": one for name, one in settings.items()}}
    )


def output(folder: Path) -> dict[str, bytes]:
    return {name: (folder / layout.SAMPLE / name).read_bytes() for name in FILES}


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


# What is drawn


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("version", ["small", "large", "all"])
@pytest.mark.parametrize("splits", [["test"], ["train", "test"]])
def test_all_rows_that_pass_the_filters_come_out_untouched(
    project: Path, sampled: Callable[..., Any], seed: int, version: str, splits: list[str]
) -> None:
    examples, products = random_source(seed)
    write_source(project / "source", examples, products)

    found = sampled(version=version, splits=splits)

    for locale in LOCALES:
        passing = [
            row
            for row in examples
            if row["product_locale"] == locale
            and row["split"] in splits
            and (version == "all" or row[f"{version}_version"] == 1)
        ]
        by_id = sorted(passing, key=lambda row: (row["query_id"], row["product_id"]))
        assert found[locale]["judgements"] == [
            {name: row[name] for name in tables.SAMPLE_JUDGEMENTS.names} for row in by_id
        ]
        queries = {row["query_id"]: row for row in passing}
        assert found[locale]["queries"] == [
            {name: queries[one][name] for name in tables.SAMPLE_QUERIES.names}
            for one in sorted(queries)
        ]
        catalogue = {row["product_id"]: row for row in products if row["product_locale"] == locale}
        assert found[locale]["products"] == [catalogue[one] for one in sorted(catalogue)]


def test_counts_have_the_rows_and_the_repeated_products(project: Path, params: Params) -> None:
    examples, products = random_source(1)
    write_source(project / "data/demo", examples, products)

    sample(params)

    for locale in LOCALES:
        rows = [row for row in products if row["product_locale"] == locale]
        counts = json.loads(layout.sample(locale).counts.read_text(encoding="utf-8"))
        assert counts == {
            **{
                name: pq.read_metadata(layout.sample(locale).folder / f"{name}.parquet").num_rows
                for name in ("judgements", "products", "queries")
            },
            "judgements_outside_filters": 0,
            "queries_without_source": counts["queries"],
            "products_repeated_rows_dropped": len(rows) - len({row["product_id"] for row in rows}),
        }
        assert counts["products_repeated_rows_dropped"] > 0


@pytest.mark.parametrize(
    ("queries", "distractors"), [(1, 0), (1, 1_000), (7, 5), (1_000, 0), (1_000, 1_000)]
)
def test_drawn_queries_keep_all_judgements_and_judged_products(
    project: Path, sampled: Callable[..., Any], queries: int, distractors: int
) -> None:
    examples, products = random_source(2)
    write_source(project / "source", examples, products)
    everything = sampled(version="all")

    found = sampled(version="all", queries=queries, distractors=distractors)

    for locale in LOCALES:
        drawn = {row["query_id"] for row in found[locale]["queries"]}
        assert len(drawn) == min(queries, len(everything[locale]["queries"]))
        assert found[locale]["judgements"] == [
            row for row in everything[locale]["judgements"] if row["query_id"] in drawn
        ]
        there = {row["product_id"] for row in everything[locale]["products"]}
        judged = {row["product_id"] for row in found[locale]["judgements"]} & there
        kept = {row["product_id"] for row in found[locale]["products"]}
        assert judged <= kept
        assert len(kept - judged) == min(distractors, len(there - judged))


def test_a_larger_draw_holds_the_smaller_one_in_queries_and_distractors(
    project: Path, sampled: Callable[..., Any]
) -> None:
    write_source(project / "source", *random_source(3))
    before: dict[str, dict[str, set[Any]]] = {}

    for count in (1, 2, 5, 9, 100):
        found = sampled(version="all", queries=count, distractors=count)
        now = {
            locale: {
                "query_id": {row["query_id"] for row in found[locale]["queries"]},
                "product_id": {row["product_id"] for row in found[locale]["products"]},
            }
            for locale in LOCALES
        }
        for locale, ids in before.items():
            assert ids["query_id"] <= now[locale]["query_id"]
        before = now


def test_draws_of_one_seed_are_nested_whatever_the_order() -> None:
    for seed in range(5):
        check_nested(seed)


def check_nested(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(1_000).tolist()
    whole = [set(draw(ids, count, seed, "us")) for count in range(0, 60, 7)]

    assert all(small < large for small, large in pairwise(whole))
    assert draw(ids, 50, seed, "us") == draw(sorted(ids), 50, seed, "us")
    assert draw(ids, "all", seed, "us") == draw(ids, 2_000, seed, "us") == sorted(ids)


def test_draws_differ_by_seed_and_by_locale() -> None:
    ids = [f"B{one:04d}" for one in range(1_000)]

    draws = {tuple(draw(ids, 20, seed, locale)) for seed in range(5) for locale in LOCALES}

    assert len(draws) == 15


def test_an_id_that_goes_changes_no_more_than_its_own_place_in_a_draw() -> None:
    ids = list(range(1_000))
    drawn = set(draw(ids, 50, 1, "us"))

    for gone in sorted(drawn)[:10]:
        assert drawn - {gone} < set(draw(set(ids) - {gone}, 50, 1, "us"))


def test_a_draw_takes_each_id_equally_often() -> None:
    hits = np.zeros(20)
    for seed in range(2_000):
        hits[draw(range(20), 5, seed, "us")] += 1

    assert np.abs(hits - 500).max() < 5 * np.sqrt(2_000 * 0.25 * 0.75)


# One id in two locales


def test_the_same_product_id_in_two_locales_is_two_products(
    project: Path, sampled: Callable[..., Any]
) -> None:
    small_source(project / "source")
    rows = [product("A", one, product_title=f"A of {one}") for one in LOCALES]
    rewrite(
        project / "source" / PRODUCTS_FILE, lambda _: pa.Table.from_pylist(rows, schema=PRODUCTS)
    )

    found = sampled()

    for row in rows:
        assert found[row["product_locale"]]["products"] == [row]


def test_the_same_query_id_in_two_locales_is_two_queries(
    project: Path, sampled: Callable[..., Any]
) -> None:
    examples = [
        example(number, 1, "A", locale=one, query=f"query of {one}")
        for number, one in enumerate(LOCALES)
    ]
    write_source(project / "source", examples, [product("A", one) for one in LOCALES])

    found = sampled()

    for locale in LOCALES:
        assert [row["query"] for row in found[locale]["queries"]] == [f"query of {locale}"]


def test_locales_that_params_do_not_name_are_left_out(
    project: Path, sampled: Callable[..., Any]
) -> None:
    small_source(project / "source", (*LOCALES, "de"))

    sampled()

    folders = filter(Path.is_dir, layout.SAMPLE.iterdir())
    assert sorted(path.name for path in folders) == sorted(LOCALES)


def test_rows_of_locales_that_params_do_not_name_are_counted_and_warned_of(
    project: Path, sampled: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    small_source(project / "source", (*LOCALES, "de", "uss"))
    append(PRODUCTS_FILE, product("Z", "fr"), product("Y", "fr"))(project / "source")

    sampled()

    counts = json.loads(layout.other_locales(layout.SAMPLE).read_text(encoding="utf-8"))
    assert counts == {
        "judgements": {"de": 3, "uss": 3},
        "products": {"de": 3, "fr": 2, "uss": 3},
    }
    assert f"{PRODUCTS_FILE}: 2 rows of locale 'fr' are left out" in caplog.text
    assert f"{EXAMPLES_FILE}: 3 rows of locale 'uss' are left out" in caplog.text
    assert "no such locale; did you mean 'us'?" in caplog.text


def test_of_many_other_locales_the_first_are_warned_of_and_the_others_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rows = {f"l{number:04}": 2 for number in range(3000)}
    assert esci.warn_of_other_locales(rows, Path("a.csv"), ["us"]) == rows
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "warning: a.csv: 5960 rows of 2980 more locales are left out"


# Same inputs, same bytes


@pytest.mark.parametrize("batch_rows", [1, 7, 64])
def test_order_of_rows_row_groups_and_batches_leave_the_same_bytes(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
) -> None:
    params = params_of(version="all", queries=15, distractors=10)
    examples, products = random_source(4)
    write_source(project / "source", examples, products)
    sample(params)
    before = output(project)

    rng = np.random.default_rng(batch_rows)
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        table = pq.read_table(project / "source" / name)
        shuffled = table.take(rng.permutation(len(table)))
        pq.write_table(shuffled, project / "source" / name, row_group_size=int(rng.integers(3, 50)))
    monkeypatch.setattr(esci, "BATCH_ROWS", batch_rows)
    sample(params)

    assert output(project) == before


@pytest.mark.parametrize("bucket_rows", [1, 3, 50, 60])
def test_the_size_of_buckets_leaves_the_same_rows(
    project: Path,
    sampled: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    bucket_rows: int,
) -> None:
    write_source(project / "source", *random_source(5))
    before = sampled()

    monkeypatch.setattr(buckets, "BUCKET_ROWS", bucket_rows)

    assert sampled() == before
    assert sorted(path.name for path in layout.sample("us").folder.iterdir()) == [
        "counts.json", "judgements.parquet", "products.parquet", "queries.parquet",
        "sources.parquet",
    ]  # fmt: skip


def test_as_many_files_may_be_open_as_there_are_buckets() -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, limits[1]))
        buckets.allow_open_files(10)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 300
        buckets.allow_open_files(100)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 100 + buckets.OTHER_FILES
        buckets.allow_open_files(10**9)  # more than the system has
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= limits[1]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_each_drawn_query_has_its_source_and_null_where_the_file_has_none(
    project: Path, sampled: Callable[..., Any]
) -> None:
    examples, products = random_source(3)
    write_source(project / "source", examples, products)

    def sources() -> dict[str, dict[int, str | None]]:
        drawn = sampled(version="all")
        found = {}
        for locale in LOCALES:
            table = pq.read_table(layout.sample(locale).sources)
            assert table.schema.equals(tables.SAMPLE_SOURCES)
            ids = [row["query_id"] for row in drawn[locale]["queries"]]
            assert table["query_id"].to_pylist() == ids
            found[locale] = dict(zip(ids, table["source"].to_pylist(), strict=True))
        return found

    assert all(one is None for of in sources().values() for one in of.values())
    # Ids of no drawn query, a null, white space and "NA" as ordinary text, in any order.
    known: dict[int, str | None] = {1003: "other", 5: "NA", 999_999: "other", 2: "negations", 9: ""}
    lines = [f"{query},{source}" for query, source in known.items()]
    (project / "source" / SOURCES_FILE).write_text("\n".join(["query_id,source", *lines]) + "\n")
    for locale, of in sources().items():
        for query, told in of.items():
            assert told == (known.get(query) or None), (locale, query)
        counts = json.loads(layout.sample(locale).counts.read_text())
        assert counts["queries_without_source"] == list(of.values()).count(None)


# The source's form


@pytest.mark.parametrize(
    "text_type",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=str,
)
def test_other_types_of_the_same_kind_and_other_columns_are_taken(
    project: Path, sampled: Callable[..., Any], text_type: pa.DataType
) -> None:
    def retype(table: pa.Table) -> pa.Table:
        names = list(reversed(table.column_names))
        columns = []
        for name in names:
            column = table[name]
            if pa.types.is_dictionary(text_type) and column.type == pa.string():
                columns.append(column.dictionary_encode())
            elif column.type == pa.string():
                columns.append(column.cast(text_type))
            else:
                columns.append(column.cast(pa.int32()))
        return pa.table(dict(zip(names, columns, strict=True))).append_column(
            "more", pa.array([1.5] * len(table))
        )

    write_source(project / "source", *random_source(6))
    before = sampled()
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        rewrite(project / "source" / name, retype)

    assert sampled() == before


def test_every_type_of_index_that_pandas_writes_is_taken(
    project: Path, sampled: Callable[..., Any]
) -> None:
    write_source(project / "source", *random_source(6))
    before = sampled()
    for name in (EXAMPLES_FILE, PRODUCTS_FILE):
        frame = pq.read_table(project / "source" / name).to_pandas()
        frame.sample(frac=1, random_state=1).to_parquet(project / "source" / name)

    assert sampled() == before


# Bad input: one message, nothing written


def change_rows(name: str, **columns: object) -> Callable[[Path], None]:
    """Return what sets columns of the file's second row."""

    def change(folder: Path) -> None:
        def edit(table: pa.Table) -> pa.Table:
            rows = table.to_pylist()
            rows[1].update(columns)
            return pa.Table.from_pylist(rows, table.schema)

        rewrite(folder / name, edit)

    return change


def change_table(name: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    return lambda folder: rewrite(folder / name, change)


def append(name: str, *rows: dict[str, Any]) -> Callable[[Path], None]:
    schema = EXAMPLES if name == EXAMPLES_FILE else PRODUCTS
    return change_table(
        name, lambda table: pa.concat_tables([table, pa.Table.from_pylist(list(rows), schema)])
    )


def with_many_locales(table: pa.Table) -> pa.Table:
    """Return 3,000 products of a locale each, none of them of LOCALES."""
    rows = [product("A", f"l{number:04}") for number in range(3000)]
    return pa.Table.from_pylist(rows, table.schema)


def write_bytes(name: str, data: bytes) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return change


def damage(name: str) -> Callable[[Path], None]:
    """Return what overwrites the file's pages and leaves its footer."""

    def change(folder: Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[4:200] = bytes(196)
        (folder / name).write_bytes(data)

    return change


def as_folder(name: str) -> Callable[[Path], None]:
    """Return what writes the file as Spark does: a folder of parts under its name."""

    def change(folder: Path) -> None:
        table = pq.read_table(folder / name)
        (folder / name).unlink()
        (folder / name).mkdir()
        for part in (0, 1):
            pq.write_table(table.slice(3 * part), folder / name / f"part-{part}.snappy.parquet")
        (folder / name / "_SUCCESS").touch()

    return change


def as_pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return change


def as_link(name: str) -> Callable[[Path], None]:
    """Return what puts a link that points at itself in the file's place."""

    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(name)

    return change


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4a735b69\nsize 51000000\n"
"""As Git checks a file out without LFS."""

BAD: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "no examples file": (
        lambda folder: (folder / EXAMPLES_FILE).unlink(),
        [EXAMPLES_FILE, "is missing", "make esci"],
    ),
    "no products file": (
        lambda folder: (folder / PRODUCTS_FILE).unlink(),
        [PRODUCTS_FILE, "is missing", "make esci"],
    ),
    "pointer to examples": (
        write_bytes(EXAMPLES_FILE, POINTER),
        [EXAMPLES_FILE, "Git LFS pointer", str(len(POINTER)), "git lfs pull"],
    ),
    "pointer to products": (
        write_bytes(PRODUCTS_FILE, POINTER),
        [PRODUCTS_FILE, "Git LFS pointer", "make esci"],
    ),
    "empty file": (write_bytes(PRODUCTS_FILE, b""), [PRODUCTS_FILE, "is empty (0 bytes)"]),
    "another format": (
        write_bytes(EXAMPLES_FILE, b"example_id,query\n1,a\n"),
        [EXAMPLES_FILE, "not readable as parquet"],
    ),
    "damaged examples": (damage(EXAMPLES_FILE), [EXAMPLES_FILE, "not readable as parquet"]),
    "damaged products": (damage(PRODUCTS_FILE), [PRODUCTS_FILE, "not readable as parquet"]),
    "missing column": (
        change_table(EXAMPLES_FILE, lambda table: table.drop_columns("esci_label")),
        [EXAMPLES_FILE, "column esci_label is missing"],
    ),
    "misnamed column": (
        change_table(
            PRODUCTS_FILE,
            lambda table: table.rename_columns(
                [name.replace("title", "titel") for name in table.column_names]
            ),
        ),
        [PRODUCTS_FILE, "column product_title is missing; did you mean 'product_titel'?"],
    ),
    "two missing columns": (
        change_table(EXAMPLES_FILE, lambda table: table.drop_columns(["esci_label", "query"])),
        ["column esci_label is missing", "column query is missing"],
    ),
    "text as numbers": (
        change_table(
            PRODUCTS_FILE,
            lambda table: table.set_column(0, "product_id", pa.array(range(len(table)))),
        ),
        [PRODUCTS_FILE, "column product_id has type int64, but string is expected"],
    ),
    "ids as floats": (
        change_table(
            EXAMPLES_FILE,
            lambda table: table.set_column(2, "query_id", table["query_id"].cast(pa.float64())),
        ),
        [EXAMPLES_FILE, "column query_id has type double, but int64 is expected"],
    ),
    "null query_id": (
        change_rows(EXAMPLES_FILE, query_id=None),
        [EXAMPLES_FILE, "column query_id holds 1 null"],
    ),
    "null product_id in examples": (
        change_rows(EXAMPLES_FILE, product_id=None),
        [EXAMPLES_FILE, "column product_id holds 1 null"],
    ),
    "null product_id in products": (
        change_rows(PRODUCTS_FILE, product_id=None),
        [PRODUCTS_FILE, "column product_id holds 1 null"],
    ),
    "null locale": (
        change_rows(PRODUCTS_FILE, product_locale=None),
        [PRODUCTS_FILE, "column product_locale holds 1 null"],
    ),
    "null label": (
        change_rows(EXAMPLES_FILE, esci_label=None),
        [EXAMPLES_FILE, "column esci_label holds 1 null"],
    ),
    "unknown label": (
        change_rows(EXAMPLES_FILE, esci_label="exact"),
        [EXAMPLES_FILE, "column esci_label holds 'exact' (example_id 1)", "E, S, C, I"],
    ),
    "unknown split": (
        change_rows(EXAMPLES_FILE, split="dev"),
        [EXAMPLES_FILE, "column split holds 'dev' (example_id 1)", "train, test"],
    ),
    "a split as long as a book": (
        change_rows(EXAMPLES_FILE, split="x" * 10**6),
        [EXAMPLES_FILE, "column split holds 'xxx", "... (example_id 1)"],
    ),
    "unknown version": (
        change_rows(EXAMPLES_FILE, small_version=2),
        [EXAMPLES_FILE, "column small_version holds 2 (example_id 1)", "0, 1"],
    ),
    "a locale without judgements": (
        change_table(
            EXAMPLES_FILE, lambda table: table.filter(pa.compute.field("product_locale") != "jp")
        ),
        [EXAMPLES_FILE, "product_locale never holds 'jp' (found: 'es', 'us')",
         "Remove jp from encoder, index, language, spelling, rerank, systems and, if it is there, "
         "explore in params.yaml"],
    ),
    "a locale without products": (
        change_table(
            PRODUCTS_FILE, lambda table: table.filter(pa.compute.field("product_locale") != "jp")
        ),
        [PRODUCTS_FILE, "product_locale never holds 'jp'"],
    ),
    "no row at all": (
        change_table(EXAMPLES_FILE, lambda table: table.slice(0, 0)),
        [EXAMPLES_FILE, "has no rows"],
    ),
    "no query after the filters": (
        change_table(
            EXAMPLES_FILE,
            lambda table: table.set_column(
                table.column_names.index("split"), "split", pa.array(["train"] * len(table))
            ),
        ),
        [EXAMPLES_FILE, "no query of locale 'us' is left after sample.version=small and "
         "sample.splits=test (rows before: 3)"],
    ),
    "two texts for one query": (
        append(EXAMPLES_FILE, example(99, 1, "C", query="another")),
        [EXAMPLES_FILE, "query_id 1 of locale us appears twice", "'another'", "'query 1'"],
    ),
    "one example_id for two judgements": (
        append(EXAMPLES_FILE, example(1, 1, "C")),
        [EXAMPLES_FILE, "example_id 1 of locale us appears twice"],
    ),
    "two sources of one query": (
        write_bytes(SOURCES_FILE, b"query_id,source\n1,other\n1,behavioral\n"),
        [SOURCES_FILE, "query_id 1 has two sources"],
    ),
    "sources without their column": (
        write_bytes(SOURCES_FILE, b"query_id,why\n1,other\n"),
        [SOURCES_FILE, "not readable as CSV with the columns query_id, source", "optional"],
    ),
    "a source of no query": (
        write_bytes(SOURCES_FILE, b"query_id,source\n,other\n"),
        [SOURCES_FILE, "column query_id holds 1 null"],
    ),
    "sources of a query with a name": (
        write_bytes(SOURCES_FILE, b"query_id,source\nq1,other\n"),
        [SOURCES_FILE, "not readable as CSV", "'q1'"],
    ),
    "sources in another encoding": (
        write_bytes(SOURCES_FILE, "query_id,source\n1,other\n".encode("utf-16")),
        [SOURCES_FILE, "not readable as CSV", "optional"],
    ),
    "sources of more cells than columns": (
        write_bytes(SOURCES_FILE, b"query_id,source\n1,other,more\n"),
        [SOURCES_FILE, "not readable as CSV"],
    ),
    "sources with a column twice": (
        write_bytes(SOURCES_FILE, b"query_id,source,source\n1,other,more\n"),
        [SOURCES_FILE, "not readable as CSV"],
    ),
    "sources that are not UTF-8": (
        write_bytes(SOURCES_FILE, b"query_id,source\n1,ni\xf1o\n"),
        [SOURCES_FILE, "not readable as CSV"],
    ),
    "sources of nothing": (write_bytes(SOURCES_FILE, b""), [SOURCES_FILE, "not readable as CSV"]),
    "sources with a query of 5,000 digits": (
        write_bytes(SOURCES_FILE, b"query_id,source\n" + b"1" * 5_000 + b",other\n"),
        [SOURCES_FILE, "not readable as CSV"],
    ),
    "sources as a pipe": (as_pipe(SOURCES_FILE), [SOURCES_FILE, "must be a regular file"]),
    "examples as a folder": (
        as_folder(EXAMPLES_FILE),
        [EXAMPLES_FILE, "must be one file (found a folder with 2 parquet files). Join them with"],
    ),
    "products as a folder": (as_folder(PRODUCTS_FILE), [PRODUCTS_FILE, "must be one file"]),
    "products as a pipe": (as_pipe(PRODUCTS_FILE), [PRODUCTS_FILE, "must be a regular file"]),
    "products as a link to itself": (
        as_link(PRODUCTS_FILE),
        [PRODUCTS_FILE, "cannot be opened", "sample.source"],
    ),
    "two contents of one product": (
        append(PRODUCTS_FILE, product("A", "es", product_brand="X")),
        [PRODUCTS_FILE, "product_id 'A' of locale es appears twice, with different product_brand "
         "(None and 'X')"],
    ),
    "two contents of a product whose id steers a terminal": (
        append(PRODUCTS_FILE, *(
            product("A\x1b[31m\n" + "x" * 10**6, "es", product_brand=brand) for brand in "XY"
        )),
        [PRODUCTS_FILE, r"product_id 'A\x1b[31m\nxxx", "... of locale es appears twice"],
    ),
    "a locale without products among thousands of others": (
        change_table(PRODUCTS_FILE, with_many_locales),
        [PRODUCTS_FILE, "never holds 'us' (found: 'l0000', 'l0001', ", "'l0019' and 2,980 more)"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small source and its sample, to be copied."""
    folder = tmp_path_factory.mktemp("small")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        small_source(Path("source"))
        sample(artefacts.params({"sample.source": "source"}))
    return folder


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_message_and_leaves_the_old_sample(
    small: Path, project: Path, case: str
) -> None:
    spoil, told = BAD[case]
    params = params_of()
    for name in ("source", "data"):
        shutil.copytree(small / name, project / name)
    before = output(project)
    spoil(project / "source")

    with pytest.raises(PipelineError) as caught:
        sample(params)

    for part in told:
        # The order in which two rows are told follows the file.
        swapped = part.replace("None and 'X'", "'X' and None")
        assert part in str(caught.value) or swapped in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 1000
    assert output(project) == before
    assert not list(Path("data").glob(".*"))


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", ("y" * 250 + "/") * 20])
def test_a_source_that_cannot_be_a_path_is_one_message(project: Path, name: str) -> None:
    with pytest.raises(PipelineError, match=r"(cannot be opened|is missing).*sample\.source"):
        sample(artefacts.params({"sample.source": name}))


@pytest.mark.parametrize(
    "place", ["data/sample/mine", "data/sample", "data", ".", "link", "data/sample/link", "linked"]
)
def test_a_source_in_the_output_is_refused_before_anything_is_touched(
    project: Path, place: str
) -> None:
    source_of = {
        "link": "data/sample/mine", "data/sample/link": "elsewhere", "linked": "data/sample/mine"
    }.get(place, place)  # fmt: skip
    small_source(project / source_of)
    if place == "linked":  # a folder of links to files within the output
        (project / place).mkdir()
        for name in (EXAMPLES_FILE, PRODUCTS_FILE):
            (project / place / name).symlink_to(project / source_of / name)
    elif place != source_of:
        (project / place).parent.mkdir(parents=True, exist_ok=True)
        (project / place).symlink_to(project / source_of)
    before = sorted(map(str, project.rglob("*")))

    with pytest.raises(PipelineError, match="data/sample, which this stage replaces"):
        sample(artefacts.params({"sample.source": place}))
    assert sorted(map(str, project.rglob("*"))) == before


def test_damage_of_any_byte_of_the_source_is_one_message_or_changes_no_count(project: Path) -> None:
    rng = np.random.default_rng(3)
    params = params_of()
    refused = list[str]()
    for number in range(30):
        small_source(project / "source")
        (project / "source" / SOURCES_FILE).write_text("query_id,source\n0,other\n1,behavioral\n")
        path = project / "source" / (EXAMPLES_FILE, PRODUCTS_FILE, SOURCES_FILE)[number % 3]
        data = bytearray(path.read_bytes())
        match number % 5:
            case 0:
                data = data[: rng.integers(len(data))]
            case 1:
                data[rng.integers(len(data)) :] = rng.bytes(50)
            case _:
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            sample(params)
        except PipelineError as err:
            refused.append(str(err))
    assert len(refused) > 5
    assert all(len(each) < 1_000 and "\n" not in each for each in refused)


def test_judged_products_that_are_all_absent_are_told(project: Path) -> None:
    examples = [example(number, number, "GONE", locale=one) for number, one in enumerate(LOCALES)]
    write_source(project / "source", examples, [product("A", one) for one in LOCALES])

    with pytest.raises(PipelineError, match="none of the 1 products judged for locale 'us'"):
        sample(params_of(distractors=0))


def test_equal_judgements_with_one_example_id_are_kept_for_clean_to_count(
    project: Path, sampled: Callable[..., Any]
) -> None:
    small_source(project / "source")
    append(EXAMPLES_FILE, example(0, 0, "A"))(project / "source")

    assert [row["example_id"] for row in sampled()["us"]["judgements"]] == [0, 0, 1, 2]


def test_a_source_that_is_missing_is_told_with_the_ways_to_one(
    project: Path, params: Params
) -> None:
    with pytest.raises(PipelineError) as caught:
        sample(params)

    assert str(caught.value) == (
        f"data/demo/{EXAMPLES_FILE} is missing. sample.source must be a folder "
        f"with {EXAMPLES_FILE} and {PRODUCTS_FILE} (`make esci` brings the official ones to "
        "data/esci), or with judgements and products as .parquet, .csv or .jsonl. To search "
        "products alone, and measure nothing, set sample.queries to none."
    )
    assert not (project / "data").exists()


@pytest.mark.slow
def test_the_stage_reads_a_source_of_the_official_form(project: Path, run_stage: RunStage) -> None:
    small_source(project / "data/demo")

    result = run_stage("sample")

    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    lines = result.stderr.splitlines()
    assert lines[:3] == [
        f"sample locale={locale} queries=2 products=3 judgements=3" for locale in LOCALES
    ]
    assert lines[3].startswith("stage=sample seconds=")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_texts(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sizes, of which one holds 80 MB of text more than the other."""
    monkeypatch.setenv("ARROW_DEFAULT_MEMORY_POOL", "system")
    script = """
from pipeline.sample import buckets, esci, stage as sample
from pipeline.core.params_file import load_params
buckets.BUCKET_ROWS, esci.BATCH_ROWS = 100, 100
sample.sample(load_params())
print(held("VmHWM") >> 20)
"""
    rng = np.random.default_rng(0)
    pool = rng.bytes(2_000_000).hex()
    used = []
    for products in (500, 4_500):
        small_source(project / "data/demo")
        starts = rng.integers(len(pool) - 20_000, size=products).tolist()
        texts = [pool[start : start + 20_000] for start in starts]
        table = pa.Table.from_pylist(
            [
                product(f"{number:06d}", LOCALES[number % 3], product_description=text)
                for number, text in enumerate(texts)
            ]
            + [product("A", locale) for locale in LOCALES],
            PRODUCTS,
        )
        path = project / "data/demo" / PRODUCTS_FILE
        pq.write_table(table, path, row_group_size=200, use_dictionary=False)
        used += numbers_told(script)

    few, many = used
    assert many - few < 40, used


@pytest.mark.parametrize("kind", [pa.null(), pa.float32(), pa.bool_(), pa.uint64()])
def test_an_id_of_another_type_is_refused_with_both_types(
    tmp_path: Path, kind: pa.DataType
) -> None:
    table = pa.table({"query_id": pa.array([None], kind)})
    pq.write_table(table, tmp_path / "x.parquet")
    wanted = pa.schema([pa.field("query_id", pa.int64(), nullable=False)])
    with pytest.raises(PipelineError, match=f"query_id has type {kind}, but int64 is expected"):
        match_columns(open_file(tmp_path / "x.parquet"), wanted)


def test_text_that_is_not_utf_8_is_refused_by_its_row_in_the_file_and_its_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(esci, "BATCH_ROWS", 16)
    path, column = tmp_path / "x.parquet", PRODUCTS.names.index("product_title")
    table = pa.Table.from_pylist([product(f"B{one:02d}") for one in range(50)], PRODUCTS)
    titles = [f"título {one}".encode() for one in range(50)]
    titles[37] = "niño".encode("latin-1")
    texts = pa.Array.from_buffers(pa.string(), 50, pa.array(titles).buffers())
    for broken in (texts, texts.dictionary_encode()):
        pq.write_table(table.set_column(column, "product_title", broken), path)
        file = match_columns(open_file(path), tables.SAMPLE_PRODUCTS, locales=("us",))
        told = rf"^{path}: column product_title holds b'ni\\xf1o' in row 37 \(from 0\), .*UTF-8\.$"
        with pytest.raises(PipelineError, match=told):
            list(esci.read_batches(file, tables.SAMPLE_PRODUCTS))


def test_judgements_of_a_drawn_query_outside_the_filters_are_counted_and_warned_of(
    project: Path, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    small_source(project / "data/demo", ("us", "es", "jp"))
    path = project / "data/demo" / EXAMPLES_FILE
    rows = pq.read_table(path).to_pylist()
    whole = [dict(row, split="test", small_version=1) for row in rows]
    divided = [dict(row, example_id=10_000 + n, split="train") for n, row in enumerate(whole)]
    pq.write_table(pa.Table.from_pylist([*whole, *divided], EXAMPLES), path)

    sample(params)

    for locale in ("us", "es", "jp"):
        count = sum(row["product_locale"] == locale for row in divided)
        counts = json.loads(layout.sample(locale).counts.read_text())
        assert counts["judgements_outside_filters"] == count > 0
        assert f"{count} judgements of the drawn {locale} queries are outside" in caplog.text
