"""A source in a form of somebody's own: other files, fewer columns, other names and labels."""

import csv
import json
import re
import shlex
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.param_types import SOURCE_COLUMNS
from pipeline.core.params import Params
from pipeline.pairs.stage import pairs
from pipeline.sample import esci
from pipeline.sample.asker import Asker
from pipeline.sample.columns import EXAMPLES
from pipeline.sample.stage import sample
from tests.helpers import artefacts
from tests.helpers.esci_files import random_source

Row = dict[str, Any]
Shop = Callable[..., Params]
FILES = ("queries", "products", "judgements", "sources")
ONE_LOCALE: Row = {
    "encoder": {"de": "e5-small-q4"}, "index": {"de": "flat"}, "language": {"de": "de"},
    "rerank": {"de": "none"}, "spelling": {"de": "typed"}, "systems": {"de": {}},
    "explore": [],
}  # fmt: skip
JUDGED: list[Row] = [
    {"id": "17", "query": "roter schuh", "sku": "001", "grade": "Exact"},
    {"id": "18", "query": "roter schuh", "sku": "002", "grade": "Partial"},
    {"id": "19", "query": "hut", "sku": "003", "grade": "Exact"},
    {"id": "20", "query": "hut", "sku": "001", "grade": "Irrelevant"},
]
SOLD: list[Row] = [
    {"sku": "001", "name": "Roter Schuh, „Löwe“", "preis": "19,99"},
    {"sku": "002", "name": 'Blauer "Schuh"', "preis": "5"},
    {"sku": "003", "name": "Grüner Hut", "preis": None},
    {"sku": "004", "name": None, "preis": None},
]
NAMES = {"product_id": "sku", "product_title": "name", "esci_label": "grade"}
LABELS = {"Exact": "E", "Partial": "S", "Irrelevant": "I"}


def write_csv(path: Path, rows: list[Row], separator: str = ",", encoding: str = "utf-8") -> None:
    with path.open("w", encoding=encoding, newline="") as handle:
        writer = csv.DictWriter(handle, rows[0].keys(), delimiter=separator)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[Row]) -> None:
    """Write JSON Lines; a null is left out in every second row."""
    kept = (
        {key: value for key, value in row.items() if value is not None or number % 2}
        for number, row in enumerate(rows)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")


def write_parquet(path: Path, rows: list[Row]) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path)


FORMS: dict[str, tuple[str, Callable[[Path, list[Row]], None]]] = {
    "parquet": (".parquet", write_parquet),
    "csv": (".csv", write_csv),
    "semicolons": (".csv", lambda path, rows: write_csv(path, rows, ";", "utf-8-sig")),
    "tabs": (".tsv", lambda path, rows: write_csv(path, rows, "\t")),
    "json": (".jsonl", write_lines),
}


def output(locales: Iterable[str]) -> dict[str, bytes]:
    """Return the bytes of the sample's tables."""
    return {
        f"{locale}/{name}": (layout.sample(locale).folder / f"{name}.parquet").read_bytes()
        for locale in locales
        for name in FILES
    }


def rows_of(name: str, locale: str = "de") -> list[Row]:
    rows: list[Row] = pq.read_table(layout.sample(locale).folder / f"{name}.parquet").to_pylist()
    return rows


def counts() -> dict[str, int]:
    found: dict[str, int] = json.loads(layout.sample("de").counts.read_text())
    return found


@pytest.fixture
def shop(project: Path) -> Shop:
    """Return what writes a source of one locale, and gives params that sample it."""

    def make(
        judged: list[Row] = JUDGED, sold: list[Row] = SOLD, form: str = "csv", **changes: Any
    ) -> Params:
        ending, write = FORMS[form]
        (project / "shop").mkdir(exist_ok=True)
        write(project / f"shop/judgements{ending}", judged)
        write(project / f"shop/products{ending}", sold)
        settings = {"source": "shop", "columns": NAMES, "labels": LABELS, "version": "all"}
        return artefacts.params(
            {
                **ONE_LOCALE,
                **{f"sample.{key}": one for key, one in {**settings, **changes}.items()},
            }
        )

    return make


def test_params_know_every_column_of_both_files() -> None:
    known = {*EXAMPLES.names, *tables.SAMPLE_PRODUCTS.names}
    assert set(SOURCE_COLUMNS) == known
    assert len(SOURCE_COLUMNS) == len(known)


@pytest.mark.parametrize("batch_rows", [7, 10_000])
def test_the_same_rows_in_every_form_leave_the_same_bytes(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_rows: int,
) -> None:
    monkeypatch.setattr(esci, "BATCH_ROWS", batch_rows)
    rng = np.random.default_rng(5)
    examples, products = (
        [{key: None if value == "" else value for key, value in row.items()} for row in rows]
        for rows in random_source(5)
    )
    found = {}
    for form, (ending, write) in FORMS.items():
        folder = project / form
        folder.mkdir()
        for stem, rows in ((layout.EXAMPLES_STEMS[0], examples), ("products", products)):
            shuffled = [rows[at] for at in rng.permutation(len(rows)).tolist()]
            write(folder / f"{stem}{ending}", shuffled)
        sample(artefacts.params({"sample.source": form, "sample.version": "large"}))
        found[form] = output(("us", "es", "jp"))
    assert all(each == found["parquet"] for each in found.values())


@pytest.mark.parametrize("form", FORMS)
def test_a_source_that_begins_with_a_tilde_is_in_the_project(project: Path, form: str) -> None:
    ending, write = FORMS[form]
    found = []
    for source in ("shop", "~root/shop"):
        folder = project / source
        folder.mkdir(parents=True)
        examples, products = random_source(5)
        write(folder / f"{layout.EXAMPLES_STEMS[0]}{ending}", examples)
        write(folder / f"products{ending}", products)
        queries = sorted({row["query_id"] for row in examples})
        told = [{"query_id": query, "source": "other"} for query in queries]
        write_csv(folder / layout.SOURCES_FILE, told)
        sample(artefacts.params({"sample.source": source, "sample.version": "large"}))
        files = {locale: layout.sample(locale) for locale in ("us", "es", "jp")}
        found.append((output(files), {each: of.sources.read_bytes() for each, of in files.items()}))
    assert found[0] == found[1]


@pytest.mark.parametrize("form", FORMS)
def test_a_shop_needs_a_query_a_product_a_label_and_a_text(shop: Shop, form: str) -> None:
    sample(shop(form=form))

    labels = {(row["product_id"], row["esci_label"]) for row in rows_of("judgements")}
    assert labels == {("001", "E"), ("002", "S"), ("003", "E"), ("001", "I")}
    assert {row["query"] for row in rows_of("queries")} == {"roter schuh", "hut"}
    assert [row["product_title"] for row in rows_of("products")] == [row["name"] for row in SOLD]
    assert {row["split"] for row in rows_of("judgements")} == {"test"}
    assert counts() == {
        "judgements": 4, "judgements_outside_filters": 0, "judgements_taken_as_test": 4,
        "products": 4, "products_repeated_rows_dropped": 0, "queries": 2,
        "queries_named_by_text": 2, "queries_without_source": 2, "query_spellings_joined": 0,
    }  # fmt: skip


def test_ids_that_are_filled_in_depend_on_their_own_row_alone(shop: Shop) -> None:
    rng = np.random.default_rng(1)
    sample(shop())
    before = {row["query"]: row["query_id"] for row in rows_of("queries")}
    examples = {row["example_id"] for row in rows_of("judgements")}
    assert len(set(before.values())) == 2
    assert all(0 <= each < 2**53 for each in before.values())

    more = [*JUDGED, {"id": "1", "query": "kappe", "sku": "003", "grade": "Partial"}, JUDGED[0]]
    sample(shop([more[at] for at in rng.permutation(len(more))]))

    after = {row["query"]: row["query_id"] for row in rows_of("queries")}
    assert {query: after[query] for query in before} == before
    rows = rows_of("judgements")
    # Equal rows are one example, which `clean` counts as repeated.
    assert (len(rows), len({row["example_id"] for row in rows})) == (6, 5)
    assert examples < {row["example_id"] for row in rows}


def test_spellings_that_clean_makes_one_text_are_one_query(shop: Shop) -> None:
    sample(shop())
    before = {row["query"]: row["query_id"] for row in rows_of("queries")}
    spellings = ("hut\u00a0", "ｈｕｔ", " hut ", "&#104;ut")
    judged = [
        *JUDGED[:2],
        *({**JUDGED[2], "sku": f"00{at}", "query": each} for at, each in enumerate(spellings, 1)),
    ]
    found = []
    for rows in (judged, judged[::-1]):
        sample(shop(rows))
        queries = {row["query"]: row["query_id"] for row in rows_of("queries")}
        assert queries == {"roter schuh": before["roter schuh"], " hut ": before["hut"]}
        assert len(rows_of("judgements")) == 6
        assert counts()["queries_named_by_text"] == 2
        assert counts()["query_spellings_joined"] == 3
        found.append(output(["de"]))
    assert found[0] == found[1]


def test_columns_of_another_meaning_are_not_taken_for_errors_in_a_name(shop: Shop) -> None:
    others = (
        "product_rank", "brand_id", "color_id", "title_de", "subtitle", "description_html",
        "split_id", "query_date", "sample_id",
    )  # fmt: skip
    sample(shop(judged_as(**dict.fromkeys(others, "x"))))
    sample(shop(sold=[{**row, **dict.fromkeys(others, "x")} for row in SOLD]))
    columns = {"product_bullet_point": "name", "product_id": "sku", "esci_label": "grade"}
    for near in ("colour", "colours", "product_colours", "brands", "splits", "titel", "brant"):
        judged = judged_as(splits="x") if near == "splits" else JUDGED
        params = shop(judged, [{**row, near: "x"} for row in SOLD], columns=columns)
        with pytest.raises(PipelineError, match=f"did you mean '{near}'"):
            sample(params)


def test_a_source_that_lacks_most_judged_products_is_warned_of(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    sample(shop(sold=SOLD[:2]))
    assert not caplog.messages or "are missing" not in "".join(caplog.messages)
    sample(shop(sold=SOLD[:1]))
    assert "2 of the 3 products judged for locale de are missing, such as product_id '002'" in (
        "".join(caplog.messages)
    )


def test_query_ids_that_are_whole_numbers_stay_and_others_become_numbers(shop: Shop) -> None:
    for given, kept in ((["12", "7"], ["12", "7"]), (["q12", "q7"], []), (["007", "7"], ["7"])):
        ids = {"roter schuh": given[0], "hut": given[1]}
        for form in ("csv", "json", "parquet"):
            judged = [{**row, "query_id": ids[row["query"]]} for row in JUDGED]
            sample(shop(judged, form=form))
            found = {row["query"]: row["query_id"] for row in rows_of("queries")}
            assert [each for each in given if each in map(str, found.values())] == kept
            assert len(set(found.values())) == 2
            shutil.rmtree("shop")


def test_labels_may_be_numbers_and_only_those_of_params_are_known(shop: Shop) -> None:
    scale = {"Exact": 3, "Partial": 2, "Irrelevant": 0}
    judged = [{**row, "grade": scale[row["grade"]]} for row in JUDGED]
    for form in ("parquet", "json", "csv"):
        sample(shop(judged, form=form, labels={"3": "E", "2": "S", "0": "I"}))
        assert sorted(row["esci_label"] for row in rows_of("judgements")) == ["E", "E", "I", "S"]
        shutil.rmtree("shop")
    # E, S, C and I are a source's own labels too, once it has some: none means itself.
    own = [{**row, "grade": row["grade"][0]} for row in JUDGED]
    with pytest.raises(PipelineError, match=r"holds 'I' .*only E, P are known"):
        sample(shop(own, labels={"E": "E", "P": "S"}))


def test_a_source_without_split_is_evaluated_and_never_learned_from(shop: Shop) -> None:
    shop()
    for splits in (["test"], ["test", "train"]):
        sample(shop(splits=splits))
        assert counts()["judgements_taken_as_test"] == 4
    with pytest.raises(PipelineError, match=r"sample.splits=train.*Without a.*: ask for that, or"):
        sample(shop(splits=["train"]))
    params = artefacts.params(
        {
            **ONE_LOCALE, "training.source": "shop", "training.columns": NAMES,
            "training.labels": LABELS, "training.version": "all",
            "trained.minilm-demo.locales": ["de"],
        }
    )  # fmt: skip
    Path("data/clean/de").mkdir(parents=True)
    for name, schema in (("queries", tables.QUERIES), ("judgements", tables.JUDGEMENTS)):
        tables.write_table(
            layout.clean("de").folder / f"{name}.parquet", schema.empty_table(), schema
        )
    write_json(layout.clean("de").counts, artefacts.clean_counts())
    said = r"Without a column split, .* and models learn from train: give the file a column split"
    with pytest.raises(PipelineError, match=said):
        pairs(params, "minilm-demo")


def test_a_training_source_without_locales_is_never_taken_for_one_of_several(shop: Shop) -> None:
    shop([{**row, "split": "train"} for row in JUDGED])
    params = artefacts.params({
        "training.source": "shop", "training.columns": NAMES, "training.labels": LABELS,
        "training.version": "all", "trained.minilm-demo.locales": ["us"],
    })  # fmt: skip
    assert len(params.language) > 1
    for locale in params.language:
        layout.clean(locale).folder.mkdir(parents=True)
        for name, schema in (("queries", tables.QUERIES), ("judgements", tables.JUDGEMENTS)):
            path = layout.clean(locale).folder / f"{name}.parquet"
            tables.write_table(path, schema.empty_table(), schema)
        write_json(layout.clean(locale).counts, artefacts.clean_counts())
    with pytest.raises(PipelineError, match=r"product_locale is missing\. Without it, params\.yam"):
        pairs(params, "minilm-demo")


def judged_as(**columns: object) -> list[Row]:
    return [{**row, **columns} for row in JUDGED]


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no such column": (
        {"columns": {**NAMES, "product_title": "nmae"}},
        r"products\.csv: sample\.columns names 'nmae' for product_title, which is not there; did "
        r"you mean 'name'\? Name your column .* \(found: 'sku', 'name', 'preis'\)",
    ),
    "an id that neither has": (
        {"columns": {**NAMES, "product_locale": "land"}},
        r"sample\.columns: product_locale: land: neither shop/judgements\.csv nor shop/products",
    ),
    "no label": (
        {"columns": {"product_id": "sku", "product_title": "name"}},
        r"column esci_label is missing\. Name your column for each, such as `sample\.columns: "
        r"product_title: NAME`",
    ),
    "two candidates": (
        {"judged": judged_as(product_id="9")},
        r"judgements\.csv: it has both 'sku', which sample\.columns names for product_id, and "
        r"product_id\. Rename or drop one",
    ),
    "no text": (
        {"columns": {"product_id": "sku", "esci_label": "grade"}},
        r"products\.csv: no column has a product's text .*product_title: NAME`",
    ),
    "an error in a name that may be left out": (
        {"sold": [{**row, "product_colour": "rot"} for row in SOLD]},
        r"column product_color is missing; did you mean 'product_colour'\?",
    ),
    "a version that it does not have": (
        {"version": "small"},
        r"column small_version is missing\. Without it, sample\.version must be all \(found small",
    ),
    "labels of another scale": (
        {"labels": {}},
        r"esci_label holds 'Exact' \(query 'roter schuh', product_id '001'\), and 'Irrelevant', "
        r"'Partial'; only E, S, C, I are known.*such as `sample\.labels: Exact: E` \(E exact, S",
    ),
    "a label that params forget": (
        {"labels": {"Exact": "E", "Irrelevant": "I"}},
        r"holds 'Partial' .*only Exact, Irrelevant are known",
    ),
    "no label in a row": ({"judged": [*JUDGED, {**JUDGED[0], "grade": None}]}, "esci_label holds 1 "
                          "null"),
    "another split": ({"judged": judged_as(split="dev")}, r"split holds 'dev' \(query 'roter sch"),
    "another version": (
        {"judged": judged_as(small_version="yes")}, r"small_version holds 'yes'; only 0, 1"
    ),
    "one text in both splits": (
        {"judged": [{**row, "split": "test" if at else "train"} for at, row in enumerate(JUDGED)],
         "splits": ["train", "test"]},
        r"query 'roter schuh' of locale de is in both splits\. Put all its rows in one\.",
    ),
    "a locale in large letters": (
        {"judged": judged_as(product_locale="DE")},
        r"never holds 'de' \(found: 'DE'\)\. Write de in place of 'DE'",
    ),
    "ids of two forms": (
        {"judged": [{**row, "sku": f"{int(row['sku'])}.0"} for row in JUDGED]},
        r"none of the 3 products judged for locale 'de' is there: judgements have product_id '1\.0'"
        r", products '001'",
    ),
    "one query_id, two texts": ({"judged": judged_as(query_id="5")}, r"query_id 5 of locale de ap"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_one_message(shop: Shop, case: str) -> None:
    changes, said = BAD[case]
    params = shop(**changes)
    with pytest.raises(PipelineError, match=said) as caught:
        sample(params)
    assert "\n" not in str(caught.value)
    assert not layout.SAMPLE.exists()


def test_a_source_without_locales_is_of_one_locale(shop: Shop) -> None:
    shop()
    several = artefacts.params({
        "sample.source": "shop", "sample.columns": NAMES, "sample.labels": LABELS,
        "sample.version": "all",
    })  # fmt: skip
    with pytest.raises(PipelineError, match=r"product_locale is missing\. Without it, params\.yam"):
        sample(several)


def test_without_queries_no_judgement_is_read_and_every_product_is_there(shop: Shop) -> None:
    params = shop(queries="none")
    sample(params)
    assert rows_of("judgements") == rows_of("queries") == []
    assert len(rows_of("products")) == len(SOLD)

    before = output(["de"])
    Path("shop/judgements.csv").unlink()
    sample(params)
    assert output(["de"]) == before
    asked = params.sample.model_copy(update={"queries": "all"})
    with pytest.raises(PipelineError, match=r"is missing.*set sample\.queries to none\.$"):
        sample(params.model_copy(update={"sample": asked}))


def test_a_table_in_two_forms_is_refused_by_both_names(shop: Shop) -> None:
    shop()
    with pytest.raises(PipelineError, match=r"judgements\.csv and judgements\.jsonl, which are"):
        sample(shop(form="json"))


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("products.csv", b"", r"products\.csv is empty \(0 bytes\)\. Fetch"),
        ("products.csv", b"sku,name\n", r"products\.csv has no rows\."),
        ("products.csv", b"  \nsku,name\n1,a\n", r"products\.csv: .*column"),
        ("products.csv", b"sku,name\n1,a,b\n", r"not readable as CSV .*Expected 2 columns"),
        ("products.csv", b"sku,name,name\n1,a,b\n", r"product_title \('name'\) appears 2 times"),
        ("products.csv", b'sku,name\n1,"a\n2,b\n3,c\n', r"quotes are not in pairs by line 4"),
        ("products.csv", b'sku,name\n1,"a" b\n', r"quotes are not in pairs by line 2"),
        ("products.jsonl", b"[1]\n", r"line 1 must be an object \(found \['1'\]\)"),
        ("products.jsonl", b'{"sku": "001", "name": ["a"]}\n', r"line 1, name must be a text or a"),
        ("products.jsonl", b'{"sku": NaN, "name": "a"}\n', r"line 1, sku is NaN, .*Write null"),
        ("products.jsonl", b'{"sku": "001", "name": -Infinity}\n', r"line 1, name is -Infinity, "),
        (
            "products.jsonl",
            b'{"sku": "001", "sku": "2"}\n',
            r"line 1 .*'sku' is repeated.*key once",
        ),
        (
            "products.jsonl",
            b'{"sku": "\\ud800", "name": "a"}\n',
            r"line 1, sku holds \\ud800, which is half a",
        ),
        ("products.jsonl", b'{"sku": "1"}\n{"\\udfff": 1}\n', r"line 2, key .* holds \\udfff, whi"),
        ("products.jsonl", b'{"sku": "1"}\n{\n', r"line 2 is not JSON .*write_ndjson"),
        ("products.jsonl", b'{"sku": "1", "name": "\xfc"}\n', r"must be UTF-8 \(found: line 1 has"),
        ("products.parquet", b"PAR1", "not readable as parquet"),
        ("products.csv", b"sku,name\n1,Be\0tt\n", r"products\.csv: line 2 has a NUL byte"),
        ("products.csv", b"sku,name\n" + b"1,a\n" * 99 + b"2,\0", "line 101 has a NUL byte"),
        ("products.jsonl", b'{"sku": "1"}\n{"sku": "\0"}\n', "line 2 has a NUL byte"),
    ],
)
def test_a_damaged_table_is_one_message(shop: Shop, name: str, data: bytes, said: str) -> None:
    params = shop()
    Path("shop/products.csv").unlink()
    (Path("shop") / name).write_bytes(data)
    with pytest.raises(PipelineError, match=said) as caught:
        sample(params)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("own", ["Exact", "3", "null", "sehr gut", "it's", "a: b", "#1"])
def test_the_line_for_an_unknown_label_is_read_as_that_label(own: str) -> None:
    line = Asker("sample", "encoder").label(own).removeprefix("sample.labels: ")
    assert YAML(typ="safe", pure=True).load(line) == {own: "E"}
    option, given = shlex.split(Asker("sample", "encoder", options=True).label(own))
    assert (option, given) == ("--label", f"{own}=E")


@pytest.mark.parametrize("own", ["two\nlines", "a title " * 20])
def test_the_line_for_what_is_no_label_is_short(own: str) -> None:
    assert Asker("sample", "encoder").label(own) == "sample.labels: VALUE: E"


def mend(message: str) -> None:
    """Run the line that a message gives for pandas."""
    (line,) = re.findall(r"in pandas `(.*?)`, in polars", message)
    exec(line, {"pd": pd})  # noqa: S102 (our own message)


@pytest.mark.parametrize(
    ("separator", "encoding", "found"),
    [
        (",", "cp1252", r"line 2 has the byte 0x84"),
        (",", "utf-16", "it looks like UTF-16"),
        (",", "utf-16-le", "it looks like UTF-16"),
        ("^", "utf-8", r"the separator must be a comma, a semicolon, a tab or \|"),
        (" ", "utf-8", r"the separator must be a comma, a semicolon, a tab or \|"),
    ],
)
def test_another_encoding_or_separator_is_refused_with_the_line_that_mends_it(
    shop: Shop, separator: str, encoding: str, found: str
) -> None:
    params = shop()
    sample(params)
    before = output(["de"])
    write_csv(Path("shop/products.csv"), SOLD, separator, encoding)
    with pytest.raises(PipelineError, match=found) as caught:
        sample(params)
    if encoding == "utf-16-le":  # the order of its bytes is not marked
        return
    mend(str(caught.value))
    sample(params)
    assert output(["de"]) == before


def test_a_type_is_refused_with_the_line_that_mends_it(shop: Shop) -> None:
    params = shop(form="parquet")
    path = Path("shop/products.parquet")
    frame = pd.DataFrame({"sku": [1.0, 2.0, 3.0], "name": ["a", "b", "c"]})
    frame.to_parquet(path)
    with pytest.raises(PipelineError, match="has type double, but string is expected") as caught:
        sample(params)
    (line,) = re.findall(r"in pandas `(.*?)`, in polars", str(caught.value))
    exec(line, {"frame": frame})  # noqa: S102 (our own message)
    frame.to_parquet(path)
    judged = pd.DataFrame(JUDGED)
    judged["sku"] = judged["sku"].str.lstrip("0")
    judged.to_parquet("shop/judgements.parquet")
    sample(params)
    assert [row["product_id"] for row in rows_of("products")] == ["1", "2", "3"]
