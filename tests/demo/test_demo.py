import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from pipeline.core import layout
from pipeline.core.params import Demo
from pipeline.core.params_file import load_params
from pipeline.demo.catalogue import Product, Query
from pipeline.demo.marketplace import FORMS, Wording, inflect, load_wording
from pipeline.demo.stage import demo
from pipeline.demo.tables import (
    EXAMPLES,
    FOREIGN_LOCALE,
    LOCALES,
    PRODUCTS,
    draw_products,
    draw_queries,
    generate,
)
from pipeline.text.normalise import normalise
from tests.helpers import artefacts

Row = dict[str, str | int | None]

SIZES = [Demo(products=100, queries=20, seed=1), artefacts.params().demo]
"""The least, and the shipped one."""


@pytest.fixture(scope="module")
def wordings() -> dict[str, Wording]:
    return {locale: load_wording(locale) for locale in LOCALES}


class Catalogue:
    """One generated catalogue, and what was drawn to make it."""

    def __init__(self, wordings: Mapping[str, Wording], size: Demo) -> None:
        self.size = size
        self.example_table, self.product_table, self.source_table = generate(wordings, size)
        self.examples: list[Row] = self.example_table.to_pylist()
        self.products: list[Row] = self.product_table.to_pylist()
        self.drawn = {name: draw_products(wordings[name], name, size) for name in LOCALES}
        self.queries = {
            name: list(draw_queries(wordings[name], self.drawn[name], name, size))
            for name in LOCALES
        }

    def rows(self, locale: str) -> list[Row]:
        return [row for row in self.products if row["product_locale"] == locale]

    def judgements(self, locale: str) -> list[Row]:
        return [row for row in self.examples if row["product_locale"] == locale]

    def by_query(self, locale: str) -> dict[int, list[Row]]:
        found: dict[int, list[Row]] = {}
        for row in self.judgements(locale):
            assert isinstance(row["query_id"], int)
            found.setdefault(row["query_id"], []).append(row)
        return found


@pytest.fixture(scope="module", params=SIZES, ids=lambda size: f"{size.products} products")
def catalogue(request: pytest.FixtureRequest, wordings: dict[str, Wording]) -> Catalogue:
    return Catalogue(wordings, request.param)


def text_of(row: Row) -> tuple[str, ...]:
    return tuple(normalise(str(row[name] or "")) for name in PRODUCTS.names[1:-1])


# -- form ------------------------------------------------------------------------------------------


def test_the_files_have_escis_names_columns_and_types_and_no_pandas_metadata(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params().model_copy(update={"demo": SIZES[0]})
    monkeypatch.chdir(tmp_path)
    demo(params)
    for name, schema in ((layout.EXAMPLES_FILE, EXAMPLES), (layout.PRODUCTS_FILE, PRODUCTS)):
        file = pq.ParquetFile(layout.DEMO / name)
        assert file.schema_arrow.equals(schema, check_metadata=True)
        assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert EXAMPLES.names == [
        "example_id", "query", "query_id", "product_id", "product_locale", "esci_label",
        "small_version", "large_version", "split",
    ]  # fmt: skip
    assert {str(field.type) for field in PRODUCTS} == {"string"}


@pytest.mark.slow
def test_equal_seeds_give_equal_bytes_and_other_seeds_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = load_params()
    monkeypatch.chdir(tmp_path)

    def written(seed: int) -> list[bytes]:
        size = SIZES[0].model_copy(update={"seed": seed})
        demo(params.model_copy(update={"demo": size}))
        names = (layout.EXAMPLES_FILE, layout.PRODUCTS_FILE, layout.SOURCES_FILE)
        return [(layout.DEMO / name).read_bytes() for name in names]

    first, again, other = written(1), written(1), written(2)
    assert first == again
    assert all(mine != yours for mine, yours in zip(first, other, strict=True))


def test_more_queries_change_no_product(wordings: dict[str, Wording]) -> None:
    few = generate(wordings, Demo(products=130, queries=20, seed=3))[1]
    many = generate(wordings, Demo(products=130, queries=45, seed=3))[1]
    assert few.equals(many)


@pytest.mark.parametrize(
    ("products", "queries"), [(100, 20), (101, 97), (124, 97), (125, 20), (333, 97)]
)
def test_every_locale_has_the_asked_number_of_products_and_queries(
    wordings: dict[str, Wording], products: int, queries: int
) -> None:
    size = Demo(products=products, queries=queries, seed=products)
    examples, rows, _ = generate(wordings, size)
    for locale in LOCALES:
        ids = rows.filter(pc.equal(rows["product_locale"], locale))["product_id"]
        asked = examples.filter(pc.equal(examples["product_locale"], locale))["query_id"]
        assert len(set(ids.to_pylist())) == products
        assert len(set(asked.to_pylist())) == queries


@pytest.mark.slow
def test_sources_are_escis_csv_of_most_queries_at_about_escis_shares(
    wordings: dict[str, Wording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = Demo(products=600, queries=900, seed=7)
    params = load_params().model_copy(update={"demo": size})
    monkeypatch.chdir(tmp_path)
    demo(params)
    text = (layout.DEMO / layout.SOURCES_FILE).read_text(encoding="utf-8")
    assert re.fullmatch(r"query_id,source\n(\d+,[a-z_]+\n)+", text)
    sources = dict(line.split(",") for line in text.splitlines()[1:])
    asked = {row["query_id"] for row in generate(wordings, size)[0].to_pylist()}
    assert {int(query) for query in sources} < asked
    assert len(sources) / len(asked) == pytest.approx(29 / 30, abs=0.002)
    shares = {name: count / len(sources) for name, count in Counter(sources.values()).items()}
    escis = {"other": 0.87, "negations": 0.053, "parse_pattern": 0.047, "behavioral": 0.029}
    assert shares == pytest.approx(escis, abs=0.04)


def test_a_query_has_the_source_negations_exactly_where_it_avoids_a_value(
    catalogue: Catalogue,
) -> None:
    sources = dict(zip(*catalogue.source_table.to_pydict().values(), strict=True))
    avoiding = [
        number * catalogue.size.queries + i
        for number, locale in enumerate(LOCALES)
        for i, query in enumerate(catalogue.queries[locale])
        if query.avoids
    ]
    assert avoiding
    found = {query for query, source in sources.items() if source == "negations"}
    assert found == set(avoiding) & set(sources)


# -- keys ------------------------------------------------------------------------------------------


def test_a_locale_and_product_id_have_one_text_and_ids_look_like_asins(
    catalogue: Catalogue,
) -> None:
    seen: dict[tuple[object, object], Row] = {}
    for row in catalogue.products:
        assert re.fullmatch(r"B0[0-9A-Z]{8}", str(row["product_id"]))
        key = row["product_locale"], row["product_id"]
        assert seen.setdefault(key, row) == row


def test_a_query_and_product_have_one_label(catalogue: Catalogue) -> None:
    labels: dict[tuple[object, object], object] = {}
    for row in catalogue.examples:
        key = row["query_id"], row["product_id"]
        assert labels.setdefault(key, row["esci_label"]) == row["esci_label"]


def test_a_query_id_has_one_text_one_locale_one_split_and_one_version(
    catalogue: Catalogue,
) -> None:
    names = ("query", "product_locale", "split", "small_version", "large_version")
    seen: dict[object, list[object]] = {}
    for row in catalogue.examples:
        values: list[object] = [row[name] for name in names]
        assert seen.setdefault(row["query_id"], values) == values
    splits = Counter(values[2] for values in seen.values())
    small = sum(values[3] == 1 for values in seen.values()) / len(seen)
    assert 0.6 < splits["test"] / len(seen) <= 0.7
    assert set(splits) == {"train", "test"}
    assert 0.7 < small < 0.8
    assert {values[4] for values in seen.values()} == {1}


def test_rows_of_one_example_id_are_identical(catalogue: Catalogue) -> None:
    seen: dict[object, Row] = {}
    for row in catalogue.examples:
        assert seen.setdefault(row["example_id"], row) == row


@pytest.mark.parametrize("catalogue", SIZES[1:], indirect=True)
def test_the_shipped_size_leaves_60_queries_a_locale_in_the_small_test_set(
    catalogue: Catalogue,
) -> None:
    for locale in LOCALES:
        drawn = {
            row["query_id"]
            for row in catalogue.judgements(locale)
            if row["small_version"] == 1 and row["split"] == "test"
        }
        assert len(drawn) >= 60


# -- labels ----------------------------------------------------------------------------------------


def expected_label(wording: Wording, query: Query, product: Product) -> str:
    """The rule once more: E meets all that is asked, S fails some, C goes with the type, I else."""
    if product.type != query.type:
        return "C" if product.type in wording.types[query.type].complements else "I"
    failed = [name for name in query.needs if product.traits[name] not in query.needs[name]]
    return "S" if failed else "E"


@pytest.mark.parametrize("locale", LOCALES)
def test_the_demo_is_neither_too_easy_nor_too_hard_for_the_default_encoders(locale: str) -> None:
    committed = json.loads((artefacts.ROOT / layout.metrics(locale)).read_text(encoding="utf-8"))
    assert 0.5 < committed["dense"]["ndcg@10"] < 0.9


def test_every_label_follows_from_the_attributes(
    catalogue: Catalogue, wordings: dict[str, Wording]
) -> None:
    found = set()
    for locale in LOCALES:
        products = {product.product_id: product for product in catalogue.drawn[locale]}
        for query, rows in zip(
            catalogue.queries[locale], catalogue.by_query(locale).values(), strict=True
        ):
            assert dict(query.judgements) == {row["product_id"]: row["esci_label"] for row in rows}
            for product_id, label in query.judgements:
                assert label == expected_label(wordings[locale], query, products[product_id])
                found.add((locale, label))
    assert len(found) == 4 * len(LOCALES)


def test_queries_judge_8_to_25_products_and_leave_some_unjudged(catalogue: Catalogue) -> None:
    for locale in LOCALES:
        counts = [len(query.judgements) for query in catalogue.queries[locale]]
        assert min(counts) >= 8
        assert max(counts) <= 25
        assert all(
            len({product_id for product_id, _ in query.judgements}) == len(query.judgements)
            for query in catalogue.queries[locale]
        )
        judged = {row["product_id"] for row in catalogue.judgements(locale)}
        assert {row["product_id"] for row in catalogue.rows(locale)} - judged


def test_some_products_that_satisfy_a_query_are_unjudged(
    catalogue: Catalogue, wordings: dict[str, Wording]
) -> None:
    for locale in LOCALES:
        holes = sum(
            expected_label(wordings[locale], query, product) == "E"
            for query in catalogue.queries[locale]
            for product in catalogue.drawn[locale]
            if product.product_id not in dict(query.judgements)
        )
        assert holes > 0


# -- planted trouble -------------------------------------------------------------------------------


@pytest.mark.slow
def test_nulls_fall_at_escis_shares(wordings: dict[str, Wording]) -> None:
    table = generate(wordings, Demo(products=3000, queries=20, seed=5))[1]
    for name, share in (
        ("product_description", 0.49),
        ("product_bullet_point", 0.13),
        ("product_brand", 0.07),
        ("product_color", 0.34),
    ):
        assert table[name].null_count / len(table) == pytest.approx(share, abs=0.05)
    assert table["product_title"].null_count == 0


def test_descriptions_hold_markup_and_entities_titles_entities_and_bullets_emoji(
    catalogue: Catalogue,
) -> None:
    for locale in LOCALES:
        rows = catalogue.rows(locale)
        texts = [str(row["product_description"]) for row in rows if row["product_description"]]
        marked_up = [text for text in texts if re.search(r"</?(p|br|b|ul|li|div)\b", text)]
        assert len(marked_up) / len(texts) == pytest.approx(0.29, abs=0.12)
        assert any(re.search(r"&(amp|nbsp|[a-z]+acute);", text) for text in marked_up)
        assert any("✅" in str(row["product_bullet_point"]) for row in rows)
    titles = [str(row["product_title"]) for row in catalogue.products]
    assert any(re.search(r"&[a-z]+;", title) for title in titles)
    assert any("&amp;amp;" in str(row["product_description"]) for row in catalogue.products)


def test_japanese_holds_full_width_and_half_width_forms(catalogue: Catalogue) -> None:
    titles = [str(row["product_title"]) for row in catalogue.rows("jp")]
    bullets = [str(row["product_bullet_point"]) for row in catalogue.rows("jp")]
    queries = [query.text for query in catalogue.queries["jp"]]
    assert any(re.search("[Ａ-Ｚ０-９]", title) for title in titles)
    assert any(re.search("[ｱ-ﾝ]ﾞ", text) for text in titles + bullets)
    assert any(re.search("[ａ-ｚ０-９\u3000ｱ-ﾝ]", text) for text in queries)


def test_some_products_have_no_text_at_all(catalogue: Catalogue) -> None:
    for locale in LOCALES:
        empty = {row["product_id"] for row in catalogue.rows(locale) if not any(text_of(row))}
        assert len(empty) == len(range(10, catalogue.size.products, 75))


def test_duplicate_texts_have_adjacent_ids_and_one_of_the_two_is_judged(
    catalogue: Catalogue,
) -> None:
    judged_first = set()
    for locale in LOCALES:
        judged = {row["product_id"] for row in catalogue.judgements(locale)}
        texts = {str(row["product_id"]): text_of(row) for row in catalogue.rows(locale)}
        pairs = [
            (first, second)
            for first, second in pairwise(sorted(texts))
            if texts[first] == texts[second] and any(texts[first])
        ]
        assert len(pairs) >= catalogue.size.products // 25
        for first, second in pairs:
            assert int(second[2:], 36) == int(first[2:], 36) + 1
            assert not {first, second} <= judged
            judged_first |= {first in judged} if {first, second} & judged else set()
    assert judged_first == {True, False}


def test_some_rows_of_both_files_are_repeated(catalogue: Catalogue) -> None:
    for locale in LOCALES:
        for rows in (catalogue.rows(locale), catalogue.judgements(locale)):
            distinct = {tuple(row.items()) for row in rows}
            assert len(rows) - len(distinct) == -(-len(distinct) // 200)


def test_products_of_another_locale_have_ids_that_locales_share(
    catalogue: Catalogue,
) -> None:
    locales: dict[object, dict[object, tuple[str, ...]]] = {}
    for row in catalogue.products:
        locales.setdefault(row["product_id"], {})[row["product_locale"]] = text_of(row)
    foreign = [names for names in locales.values() if FOREIGN_LOCALE in names]
    everywhere = [names for names in locales.values() if set(LOCALES) <= set(names)]
    assert foreign
    assert all(len(names) > 1 for names in foreign)
    assert len(everywhere) >= catalogue.size.products // 30
    assert all(len(set(names.values())) == len(names) for names in foreign + everywhere)
    assert FOREIGN_LOCALE not in {row["product_locale"] for row in catalogue.examples}


def test_some_judged_products_have_no_row_in_their_locale_but_one_in_another(
    catalogue: Catalogue,
) -> None:
    ids = {locale: {row["product_id"] for row in catalogue.rows(locale)} for locale in LOCALES}
    everywhere = set.union(*ids.values())
    missing = {
        locale: {row["product_id"] for row in catalogue.judgements(locale)} - ids[locale]
        for locale in LOCALES
    }
    assert all(missing.values())
    all_missing = set.union(*missing.values())
    assert all_missing & everywhere
    assert all_missing - everywhere


def test_some_queries_have_no_e_some_nothing_but_i_and_some_no_text(
    catalogue: Catalogue,
) -> None:
    every_label: list[set[object]] = []
    for locale in LOCALES:
        groups = catalogue.by_query(locale).values()
        labels: list[set[object]] = [{row["esci_label"] for row in rows} for rows in groups]
        every_label += labels
        assert {"I"} in labels
        blank = [rows for rows in groups if not normalise(str(rows[0]["query"]))]
        assert blank
        drawn = [rows for rows in groups if rows[0]["split"] == "test"]
        assert any("E" not in {row["esci_label"] for row in rows} for rows in drawn)
    assert any("E" not in each and "S" in each for each in every_label)


# -- language --------------------------------------------------------------------------------------


def values(model: object) -> Iterator[str]:
    """Every string anywhere in a model."""
    if isinstance(model, str):
        yield model
    elif isinstance(model, BaseModel):
        yield from values([getattr(model, name) for name in type(model).model_fields])
    elif isinstance(model, Mapping):
        yield from values([*model.keys(), *model.values()])
    elif isinstance(model, list | tuple):
        for each in model:
            yield from values(each)


@pytest.mark.parametrize("locale", LOCALES)
def test_words_refer_to_what_there_is(wordings: dict[str, Wording], locale: str) -> None:
    wording = wordings[locale]
    for type_name, kind in wording.types.items():
        attributes = wording.attributes[type_name]
        assert set(kind.complements) <= set(wording.types) - {type_name}
        assert len(set(kind.said)) == len(kind.said)
        for use in kind.uses:
            for name, wanted in use.needs.items():
                assert set(wanted) <= set(attributes[name])
        known = {*attributes, "name", "series", "model"}
        for template in (*kind.titles, *kind.description):
            assert set(re.findall(r"{(\w+)}", template)) <= known
        for noun in (*kind.said, *kind.asked):
            assert wording.form_of(noun) in FORMS


@pytest.mark.parametrize("locale", LOCALES)
def test_every_inflection_has_four_forms(wordings: dict[str, Wording], locale: str) -> None:
    found = [match for text in values(wordings[locale]) for match in re.findall("<(.*?)>", text)]
    assert all(match.count("|") == 3 for match in found)
    assert bool(found) == (locale == "es")


def test_adjectives_agree_with_the_noun() -> None:
    assert [inflect("roj<o|a|os|as>", form) for form in FORMS] == ["rojo", "roja", "rojos", "rojas"]


def test_no_placeholder_is_left_in_any_text(catalogue: Catalogue) -> None:
    texts = [query.text for locale in LOCALES for query in catalogue.queries[locale]]
    texts += [text for row in catalogue.products for text in text_of(row)]
    for text in texts:
        assert not re.search(r"[{}~<>]|None", unicodedata.normalize("NFKC", text))


def test_each_locale_is_written_in_its_own_script(catalogue: Catalogue) -> None:
    def share(locale: str, letters: str) -> float:
        titles = [text_of(row)[0] for row in catalogue.rows(locale) if row["product_title"]]
        return float(np.mean([bool(re.search(letters, title)) for title in titles]))

    assert share("jp", "[ぁ-んァ-ヶ一-龠]") == 1
    assert share("us", "[ぁ-んァ-ヶ一-龠]") == 0
    assert share("es", "[áéíóúñü]") > 0.5
    assert share("us", "[áéíóúñü]") == 0


def test_some_spanish_queries_lack_their_accents_and_some_have_them(
    catalogue: Catalogue,
) -> None:
    queries = [query.text for query in catalogue.queries["es"]]
    assert any(re.search("[áéíóú]", text) for text in queries)
    assert any(re.search(r"\b(sillon|cafe|sabanas|movil|jamon|lapices|sarten)\b", text)
               for text in queries) or len(queries) < 100  # fmt: skip
