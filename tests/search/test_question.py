"""What cannot be searched for has one message, which names the value."""

import re

import pytest

from pipeline.core.errors import PipelineError
from pipeline.search.facets import NO_VALUE, Facet, FacetBuilder
from pipeline.search.question import Question, check_k, read_filters, read_systems
from pipeline.text.normalise import normalise


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "query: must have text"),
        (" \t\u200b\x00\x07", "query: must have text"),
        ("<script>alert(1)</script>", "query: must have text"),
        ("x" * 10_000, "query: must have at most 1,000 characters (found 10,000)"),
        ("caf\udce9", "query: must be Unicode"),
    ],
)
def test_a_query_without_a_text_is_refused(query: str, message: str) -> None:
    with pytest.raises(PipelineError, match=re.escape(message)) as refused:
        Question(query).text()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("query", ["zapatos\x00 <b>rojos</b>", " zapatos  rojos "])
def test_a_query_is_searched_as_clean_would_write_it(query: str) -> None:
    assert Question(query).text() == "zapatos rojos"


def test_a_known_query_is_searched_as_it_is_however_much_it_looks_like_markup() -> None:
    known = {"<b>Acme</b>": 0, "<b>": 1}  # what `clean` makes of full-width brackets
    for query in known:
        assert Question(query).text(known) == query
    assert Question("<b>Acme</b> 2").text(known) == "Acme 2"


@pytest.mark.parametrize("k", [0, -1, 1_001, 1_000_000])
def test_k_is_within_a_ranking(k: int) -> None:
    with pytest.raises(PipelineError, match=rf"k: must be from 1 to 1000.*\(found {k}\)"):
        check_k(k, 1_000)


def test_systems_are_known_and_each_is_asked_once() -> None:
    assert read_systems(["bm25", " dense", "bm25"]) == ("bm25", "dense")
    for names, found in (["bm52"], "'bm52'; did you mean 'bm25'"), ([""], "''"):
        with pytest.raises(PipelineError, match=re.escape(f"(found {found}")):
            read_systems(names)


@pytest.mark.parametrize("facet", ["brand", "color"])
def test_filters_are_unicode_text(facet: str) -> None:
    assert read_filters(**{facet: "Ácme"}) == {facet: "Ácme"}
    with pytest.raises(PipelineError, match=rf"{facet}: must be Unicode \(found '\\ud800'\)"):
        read_filters(**{facet: "\ud800"})


def _facet(values: list[str]) -> Facet:
    import numpy as np

    builder = FacetBuilder()
    codes = np.array([builder.add(value) for value in values], dtype=np.int32)
    table = builder.table()
    return Facet("brand", codes, table["key"], table["shown"])


def test_values_that_differ_in_case_are_one_and_look_as_most_products_write_them() -> None:
    facet = _facet(["NIKE", "Nike", "", "Nike", "nike", "Adidas"])
    assert facet.codes.tolist() == [0, 0, NO_VALUE, 0, 0, 1]
    assert [facet.value(row) for row in range(6)] == ["Nike", "Nike", "", "Nike", "Nike", "Adidas"]
    assert facet.code_of("nIkE", "es") == 0
    assert facet.count(facet.codes.astype(int) * 0 + [0, 1, 2, 3, 4, 5], 5) == [
        ("Nike", 4), ("Adidas", 1),
    ]  # fmt: skip


def test_every_value_that_is_shown_finds_its_own_products() -> None:
    facet = _facet(["ブラック", normalise("＜B＞ブラック"), "<b>", "Café"])
    shown = facet.shown.to_pylist()
    assert shown[1] == "<B>ブラック"
    assert [facet.code_of(value, "jp") for value in shown] == [0, 1, 2, 3]
    for written, code in (("<i>ブラック</i>", 0), ("<b>ブラック", 1), ("ＣＡＦÉ ", 3)):
        assert facet.code_of(written, "jp") == code


def test_a_value_that_no_product_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(PipelineError, match=r"brand: no es product has 'Nikee'.*'nike'"):
        _facet(["Nike"]).code_of("Nikee", "es")
    with pytest.raises(PipelineError, match="no es product has ''"):
        _facet(["Nike", ""]).code_of("", "es")
