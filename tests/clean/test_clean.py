import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.clean import products as clean_module
from pipeline.clean.judgements import clean_judgements
from pipeline.clean.stage import clean
from pipeline.clean.texts import clean_products, clean_queries
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.sample.stage import sample
from pipeline.text.normalise import MAX_CHARACTERS, join_fields, normalise
from tests.conftest import RunStage
from tests.helpers import artefacts
from tests.helpers.esci_files import example, product, random_source, small_source, write_source

LOCALES = ("us", "es", "jp")
TABLES = {
    "queries": tables.QUERIES,
    "products": tables.PRODUCTS,
    "judgements": tables.JUDGEMENTS,
}


def cleaned(locale: str) -> dict[str, pd.DataFrame]:
    found = {}
    for name, schema in TABLES.items():
        path = layout.clean(locale).folder / f"{name}.parquet"
        found[name] = tables.read_table(path, schema, "").to_pandas()
    return found


def counts(locale: str) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(
        layout.clean(locale).counts.read_text(encoding="utf-8")
    )
    return found


def run_both(
    params: Params, examples: list[dict[str, Any]], products: list[dict[str, Any]]
) -> None:
    write_source(Path(params.sample.source), examples, products)
    sample(params)
    for locale in params.locales:
        clean(params, locale)


def sampled_judgements(rows: list[tuple[int, str, str]]) -> pa.Table:
    examples = [
        example(number, query, product_id, label)
        for number, (query, product_id, label) in enumerate(sorted(rows))
    ]
    return pa.Table.from_pylist(examples, tables.SAMPLE_JUDGEMENTS)


def ids(*values: str) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(values, pa.string())])


def queries_of(*ids: int) -> pa.Table:
    """Clean queries, whose text is their id."""
    return pa.table({"query_id": pa.array(ids, pa.int64()), "text": [f"q{one}" for one in ids]})


def test_every_row_comes_out_or_is_counted_under_one_reason(project: Path, params: Params) -> None:
    for seed, locale in itertools.product(range(3), LOCALES):
        if locale == LOCALES[0]:
            run_both(params, *random_source(seed))
        found = cleaned(locale)
        for name, row in counts(locale).items():
            dropped = sum(row[key] for key in row if key.startswith("dropped_"))
            assert row["in"] == row["out"] + dropped
            assert row["out"] == len(found[name])
            rows = pq.read_metadata(layout.sample(locale).folder / f"{name}.parquet").num_rows
            assert row["in"] == rows


def test_random_data_come_out_as_the_rules_say(project: Path, params: Params) -> None:
    for seed, locale in itertools.product(range(3), LOCALES):
        if locale == LOCALES[0]:
            examples, products = random_source(seed)
            examples = [dict(row, split="test", small_version=1) for row in examples]
            run_both(params, examples, products)
        found, rows = cleaned(locale), counts(locale)
        of_locale = [row for row in examples if row["product_locale"] == locale]
        texts = {row["query_id"]: normalise(row["query"]) for row in of_locale}
        listed = {
            row["product_id"]: join_fields([row[one] for one in params.clean.fields], " ")[0]
            for row in products
            if row["product_locale"] == locale
        }
        no_query = [row for row in of_locale if not texts[row["query_id"]]]
        rest = [row for row in of_locale if texts[row["query_id"]]]
        missing = [row for row in rest if row["product_id"] not in listed]
        kept = {
            (row["query_id"], row["product_id"]): row["esci_label"]
            for row in rest
            if row["product_id"] in listed
        }

        assert found["products"].set_index("product_id").text.to_dict() == {
            one: text for one, text in listed.items() if text
        }
        for row in found["products"].itertuples():
            assert len(row.field_ends) == len(params.clean.fields)
            assert row.field_ends[-1] == len(row.text)
        judged = {query for query, _ in kept}
        assert found["queries"].set_index("query_id").text.to_dict() == {
            one: text for one, text in texts.items() if one in judged
        }
        labels = found["judgements"].set_index(["query_id", "product_id"]).label.to_dict()
        assert labels == kept
        assert rows["judgements"]["dropped_query_empty"] == len(no_query)
        assert rows["judgements"]["dropped_product_missing"] == len(missing)
        without_text = sum(not listed[product_id] for _, product_id in kept)
        assert rows["judgements"]["product_without_text"] == without_text
        assert rows["products"]["dropped_empty"] == sum(not text for text in listed.values())
        assert rows["queries"]["dropped_empty"] == sum(not text for text in texts.values())
        shared = pd.Series([text for text in listed.values() if text]).duplicated(keep=False)
        assert rows["products"]["sharing_a_text"] == shared.sum()


def test_rows_are_sorted_unique_and_never_empty(project: Path, params: Params) -> None:
    for seed, locale in itertools.product(range(3), LOCALES):
        if locale == LOCALES[0]:
            run_both(params, *random_source(seed))
        found = cleaned(locale)
        for name, keys in (
            ("queries", ["query_id"]),
            ("products", ["product_id"]),
            ("judgements", ["query_id", "product_id"]),
        ):
            rows = list(found[name][keys].itertuples(index=False, name=None))
            assert rows == sorted(set(rows))
        assert (found["queries"].text != "").all()
        assert (found["products"].text != "").all()
        assert set(found["judgements"].query_id) == set(found["queries"].query_id)
        sampled = pq.read_table(layout.sample(locale).products)["product_id"]
        assert set(found["judgements"].product_id) <= set(sampled.to_pylist())


@pytest.mark.parametrize(("batch_rows", "piece_rows"), [(1, 2_048), (7, 1), (59, 5)])
def test_pieces_of_any_size_give_the_same_tables_and_counts(
    project: Path,
    params: Params,
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
    piece_rows: int,
) -> None:
    run_both(params, *random_source(7))
    whole = [cleaned(locale) for locale in LOCALES], [counts(locale) for locale in LOCALES]

    monkeypatch.setattr(clean_module, "BATCH_ROWS", batch_rows)
    monkeypatch.setattr(clean_module, "PIECE_ROWS", piece_rows)
    for locale in LOCALES:
        clean(params, locale)

    for locale, tables_before, counts_before in zip(LOCALES, *whole, strict=True):
        assert counts(locale) == counts_before
        for name, frame in cleaned(locale).items():
            pd.testing.assert_frame_equal(frame, tables_before[name])


def test_few_batches_more_than_threads_are_in_memory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = artefacts.params({"runtime.threads": 16})
    run_both(params, *random_source(7))
    taken, in_memory = 0, list[int]()
    iter_table = tables.iter_table

    def counted(*arguments: Any) -> Iterator[pa.Table]:
        nonlocal taken
        for batch in iter_table(*arguments):
            taken += 1
            yield batch

    class Writer(pq.ParquetWriter):  # type: ignore[misc] # pyarrow has no types
        def write_table(self, *arguments: Any) -> None:
            in_memory.append(taken - len(in_memory))
            super().write_table(*arguments)

    monkeypatch.setattr(clean_module, "BATCH_ROWS", 1)
    monkeypatch.setattr(tables, "iter_table", counted)
    monkeypatch.setattr(pq, "ParquetWriter", Writer)
    clean(params, "us")

    assert len(in_memory) > 50
    assert max(in_memory) <= 16 + clean_module.WAITING_BATCHES + 4  # those read ahead


def test_the_same_sample_gives_the_same_bytes(project: Path, params: Params) -> None:
    def output() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in layout.clean("jp").folder.iterdir()}

    run_both(params, *random_source(8))
    before = output()
    clean(params, "jp")

    assert output() == before


def test_another_locale_has_no_part_in_a_locales_tables(project: Path, params: Params) -> None:
    examples, products = random_source(9)
    run_both(params, examples, products)
    before = cleaned("es"), counts("es")

    others = [dict(row, query=f"zz {row['query']}") for row in examples]
    run_both(
        params,
        [old if old["product_locale"] == "es" else new
         for old, new in zip(examples, others, strict=True)],
        [row if row["product_locale"] == "es" else dict(row, product_title="zz")
         for row in products],
    )  # fmt: skip

    assert counts("es") == before[1]
    for name, frame in cleaned("es").items():
        pd.testing.assert_frame_equal(frame, before[0][name])


def test_cleaning_one_locale_leaves_the_others_alone(project: Path, params: Params) -> None:
    run_both(params, *random_source(10))
    before = {path: path.stat().st_mtime_ns for path in Path("data/clean").rglob("*.*")}

    clean(params, "us")

    assert {
        path for path in before if before[path] != path.stat().st_mtime_ns
    } == set(layout.clean("us").folder.iterdir())  # fmt: skip


# One rule at a time


@pytest.mark.parametrize(
    ("fields", "separator", "text", "ends"),
    [
        (["product_title", "product_brand", "product_color"], " ", "Bag 👜 ACME red", [5, 10, 14]),
        (["product_color", "product_title"], " | ", "red | Bag 👜", [3, 11]),
        (["product_description", "product_brand"], " | ", "ACME", [0, 4]),
        (["product_brand", "product_description"], " | ", "ACME", [4, 4]),
        (["product_title"], "", "Bag 👜", [5]),
    ],
)
def test_a_products_text_is_the_chosen_fields_in_the_chosen_order_without_nulls(
    fields: list[str], separator: str, text: str, ends: list[int]
) -> None:
    settings = artefacts.params({"clean.fields": fields, "clean.separator": separator}).clean
    row = product(
        "A", product_title="<b>Bag</b> 👜", product_brand=" ACME ", product_color="red",
        product_description=" &nbsp; ",
    )  # fmt: skip

    found = clean_products(pa.Table.from_pylist([row], tables.SAMPLE_PRODUCTS), settings)

    assert found.to_pylist() == [{"product_id": "A", "text": text, "field_ends": ends}]
    assert found.schema == tables.PRODUCTS


def test_products_and_queries_without_text_are_left_out(params: Params) -> None:
    products = [product("A", product_title=None), product("B"), product("C", product_title="<br>")]
    queries = [
        example(n, n, "A", query=text) for n, text in enumerate([None, "\t", " ", "q&amp;a"])
    ]

    found = clean_products(pa.Table.from_pylist(products, tables.SAMPLE_PRODUCTS), params.clean)
    asked = clean_queries(pa.Table.from_pylist(queries, tables.SAMPLE_QUERIES))

    assert found.to_pylist() == [
        {"product_id": "B", "text": "title B", "field_ends": [7, 7, 7, 7, 7]}
    ]
    assert asked.to_pylist() == [{"query_id": 3, "text": "q&a"}]


def test_each_dropped_judgement_has_the_first_reason_that_holds() -> None:
    sampled = sampled_judgements(
        [
            (1, "EMPTY", "S"), (1, "GONE", "I"), (1, "HERE", "E"), (1, "HERE", "E"),
            (2, "HERE", "E"), (2, "EMPTY", "E"), (2, "GONE", "E"), (2, "GONE", "E"),
        ]
    )  # fmt: skip

    found = clean_judgements(
        sampled, queries_of(1), ids("EMPTY", "HERE"), Path("judgements.parquet")
    )

    # A product without text keeps its judgements: the judgements do not depend on the texts.
    assert found.table.to_pylist() == [
        {"query_id": 1, "product_id": "EMPTY", "label": "S"},
        {"query_id": 1, "product_id": "HERE", "label": "E"},
    ]
    assert found.dropped == {
        "dropped_repeated": 2,
        "dropped_query_empty": 3,
        "dropped_product_missing": 1,
    }


@pytest.mark.parametrize("labels", [("E", "S"), ("S", "E"), ("E", "E", "I")])
def test_a_pair_with_two_labels_is_refused_with_both(labels: tuple[str, ...]) -> None:
    rng = np.random.default_rng(0)
    rows = [(int(query), f"P{query}", "E") for query in rng.permutation(50)]

    with pytest.raises(PipelineError) as caught:
        clean_judgements(
            sampled_judgements([*rows, *((77, "B1", label) for label in labels)]),
            queries_of(77), ids("B1"), Path("data/sample/us/judgements.parquet"),
        )  # fmt: skip

    assert str(caught.value) == (
        "data/sample/us/judgements.parquet: query_id 77 ('q77') and product_id B1 must have one "
        f"label (found {' and '.join(sorted(labels))}). Keep one label per pair in the source."
    )


def test_products_that_share_a_text_are_kept_and_counted(project: Path, params: Params) -> None:
    titles = {
        "A": "red bag",
        "B": "RED bag",
        "C": "<b>red</b> bag",
        "D": "red bag",
        "E": "x",
        "F": "x",
    }
    catalogue = [
        product(one, locale, product_title=title)
        for one, title in titles.items()
        for locale in LOCALES
    ]
    examples = [example(number, number, "A", locale=one) for number, one in enumerate(LOCALES)]

    run_both(params, examples, catalogue)

    assert counts("us")["products"] == {
        "in": 6, "out": 6, "dropped_empty": 0, "sharing_a_text": 5,
        "fields_cut": 0, **params.clean.model_dump(mode="json"),
    }  # fmt: skip


def test_texts_over_the_limit_are_cut_counted_and_warned_of(
    project: Path, params: Params, caplog: pytest.LogCaptureFixture
) -> None:
    long = "ab " * MAX_CHARACTERS
    examples = [
        example(number, number, "A", locale=one, query=long if one == "us" else "short")
        for number, one in enumerate(LOCALES)
    ]
    catalogue = [
        product("A", one, product_title=long, product_brand=long if one == "us" else None)
        for one in LOCALES
    ]
    run_both(params, examples, catalogue)

    assert counts("us")["products"]["fields_cut"] == 2
    assert counts("us")["queries"]["cut"] == 1
    assert (counts("es")["products"]["fields_cut"], counts("es")["queries"]["cut"]) == (1, 0)
    assert cleaned("us")["queries"].text.tolist() == [normalise(long[:MAX_CHARACTERS])]
    warning = "data/sample/us/products.parquet: 2 texts are longer than 100000 characters"
    assert warning in caplog.text
    assert "data/sample/es/queries.parquet" not in caplog.text


def test_any_text_of_a_feed_is_cleaned(project: Path, params: Params) -> None:
    odd = [
        "&#" + "1" * 5_000 + "; x", "<br" + " " * 65_000 + "<", "<script>" * 12_000,
        "&" + "amp;" * 20_000, "a" + "\u0301" * 50_000, "<" * 90_000, "\x00\x92\u200d\ufe0f y",
    ]  # fmt: skip
    examples = [
        example(10 * number + i, 10 * number + i, "P0", locale=one, query=text)
        for number, one in enumerate(LOCALES)
        for i, text in enumerate([*odd, "plain"])
    ]
    catalogue = [
        product(f"P{i}", one, product_title=text) for one in LOCALES for i, text in enumerate(odd)
    ]
    run_both(params, examples, catalogue)

    found = cleaned("us")["products"].set_index("product_id").text
    assert found.to_dict() == {
        f"P{i}": normalise(text) for i, text in enumerate(odd) if normalise(text)
    }


# Bad input: one message, the earlier artefact intact


def test_a_sample_without_any_text_names_the_fields(project: Path) -> None:
    params = artefacts.params({"clean.fields": ["product_color", "product_brand"]})
    small_source(Path(params.sample.source))
    sample(params)

    message = "products.parquet: none of its 3 products has any text in product_color"
    with pytest.raises(PipelineError, match=re.escape(message)):
        clean(params, "us")
    assert not Path("data/clean/us").exists()


def test_a_sample_without_any_usable_query_is_refused(project: Path, params: Params) -> None:
    examples = [
        example(number, number, "A", locale=one, query=" ") for number, one in enumerate(LOCALES)
    ]
    write_source(Path(params.sample.source), examples, [product("A", one) for one in LOCALES])
    sample(params)

    with pytest.raises(PipelineError, match="none of its 1 queries has a text and a judged"):
        clean(params, "us")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("queries", "missing"),
        ("products", "no parquet"),
        ("judgements", "another column"),
        ("products", "a null"),
    ],
)
def test_a_damaged_sample_names_the_file_and_the_stage_that_writes_it(
    project: Path, params: Params, name: str, damage: str
) -> None:
    run_both(params, *random_source(11))
    before = {path.name: path.read_bytes() for path in layout.clean("us").folder.iterdir()}
    path = layout.sample("us").folder / f"{name}.parquet"
    table = pq.read_table(path)
    match damage:
        case "missing":
            path.unlink()
        case "no parquet":
            path.write_bytes(path.read_bytes()[:-10])
        case "another column":
            pq.write_table(table.append_column("more", pa.array([1] * len(table))), path)
        case "a null":
            first = table.column_names[0]
            nulls = pa.array([None] * len(table), table[first].type)
            pq.write_table(table.set_column(0, first, nulls), path)

    with pytest.raises(PipelineError, match=rf"^{path}.*Run `dvc repro sample`"):
        clean(params, "us")
    assert {path.name: path.read_bytes() for path in layout.clean("us").folder.iterdir()} == before


@pytest.mark.slow
def test_the_stage_cleans_the_locale_it_is_given(project: Path, run_stage: RunStage) -> None:
    small_source(project / "data/demo")
    assert run_stage("sample").returncode == 0

    result = run_stage("clean", "--locale", "es")

    assert (result.returncode, result.stdout) == (0, ""), result.stderr
    said, timed = result.stderr.splitlines()
    assert said == "clean locale=es queries=2 products=3 judgements=3"
    assert timed.startswith("stage=clean locale=es seconds=")
    assert [path.name for path in Path("data/clean").iterdir()] == ["es"]


def test_spelling_is_corrected_where_it_is_asked_for_and_every_correction_is_listed(
    project: Path,
) -> None:
    typed = ["Red snekaers", "red sneakers", "rde hta 5l", "snekaers snekaers", "red sneakres"]
    examples = [example(i, i, "A", query=text) for i, text in enumerate(typed)]
    examples += [
        example(9 + place, 9 + place, "A", locale=locale, query="snekaers")
        for place, locale in enumerate(("es", "jp"))
    ]
    titles = {one: {"product_title": "red sneakers"} for one in "AB"}
    products = [product(one, of, **titles[one]) for of in LOCALES for one in "AB"]
    off = artefacts.params({"sample.source": "source"})
    run_both(off, examples, products)
    before = {path: path.read_bytes() for path in sorted(layout.CLEAN.rglob("*.*"))}
    assert not layout.clean("us").corrections.exists()
    assert "spelling" not in counts("us")

    clean(artefacts.params({"sample.source": "source", "spelling.us": "corrected"}), "us")

    texts = ["Red sneakers", "red sneakers", "rde hta 5l", "sneakers sneakers", "red sneakers"]
    assert cleaned("us")["queries"]["text"].tolist() == texts
    path = layout.clean("us").corrections
    assert tables.read_table(path, tables.CORRECTIONS, "").to_pylist() == [
        {"query_id": i, "typed": typed[i], "text": texts[i]} for i in (0, 3, 4)
    ]
    assert counts("us")["spelling"] == {
        "queries": 3,
        "sharing_a_text": 1,
        "vocabulary": 2,
        "words": 4,
    }
    changed = {path for path, data in before.items() if path.read_bytes() != data}
    assert changed == {layout.clean("us").queries, layout.clean("us").counts}

    clean(off, "us")
    assert {path: path.read_bytes() for path in sorted(layout.CLEAN.rglob("*.*"))} == before
