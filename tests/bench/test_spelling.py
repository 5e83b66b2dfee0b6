"""What bench.spelling measures: its typos, its groups of queries, its tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rapidfuzz.distance import OSA

from bench.spelling import (
    MEASURES,
    Sides,
    choose,
    list_corrections,
    misspelled,
    mistyped,
    moves_table,
    outcomes_table,
)  # fmt: skip
from bench.typos import mistype, with_typo
from pipeline.core import layout
from pipeline.core.params import FIRST_SYSTEMS
from tests.helpers.artefacts import params

TYPED = ["runing shoes", "desk lamp", "velora desk lampe", "earbudz", "grey sneakers"]
CORRECTED = ["running shoes", "desk lamp", "velora desk lamp", "earbuds", "gray sneakers"]


def table(texts: list[str], value: float = 0.5) -> pa.Table:
    measures = {
        f"{system}.{measure}": np.full(len(texts), value)
        for system in FIRST_SYSTEMS
        for measure in (*MEASURES, "ndcg_judged_only@10")
    }
    return pa.table({"query_id": np.arange(len(texts)), "query": texts, **measures})


def test_a_typo_is_one_edit_of_a_word_of_four_letters_or_more() -> None:
    rng = np.random.default_rng(1)
    texts = ["red usb shoes", "zapatillas niño", "a1234", "USB 3.0", "スニーカーズ", "aaaa"]
    lengths = set()
    for text in texts * 40:
        typo = with_typo(rng, text)
        kept = text in ("a1234", "USB 3.0", "スニーカーズ")
        assert OSA.distance(text, typo) == (not kept), (text, typo)
        assert typo.startswith("red usb ") == text.startswith("red usb ")
        lengths.add(len(typo) - len(text))
    assert lengths == {-1, 0, 1}


def test_a_query_has_the_same_typo_in_all_its_rows_and_other_locales_have_none(
    tmp_path: Path,
) -> None:
    rows = {
        "query": ["shoes", "shoes", "lampe"],
        "product_locale": ["us", "us", "jp"],
        "n": [1, 2, 3],
    }
    pq.write_table(pa.table(rows), tmp_path / layout.EXAMPLES_FILE)
    (tmp_path / layout.PRODUCTS_FILE).write_text("products")
    found = []
    for name in "ab":
        folder = mistype(tmp_path, tmp_path / name, ["us"], seed=3)
        assert (folder / layout.PRODUCTS_FILE).read_text() == "products"
        found.append(pq.read_table(folder / layout.EXAMPLES_FILE).to_pydict())
    one, other = found
    assert one == other
    first, second, third = one.pop("query")
    assert first == second != "shoes"
    assert third == "lampe"
    assert one == {name: rows[name] for name in one}


def test_queries_of_the_demo_with_a_word_that_it_has_only_misspelled_are_apart() -> None:
    sides = Sides(table(TYPED), table(CORRECTED))
    chosen = choose("misspelled", "us", sides)
    assert chosen.typed["query"].to_pylist() == [TYPED[0], TYPED[2], TYPED[3]]
    assert chosen.corrected["query"].to_pylist() == [CORRECTED[0], CORRECTED[2], CORRECTED[3]]
    assert [right for *_, right in misspelled("us", sides)] == [True, True, True]
    wrong = Sides(table(TYPED), table([*TYPED[:3], "earbird", TYPED[4]]))
    (row,) = outcomes_table({"us": wrong}, misspelled).splitlines()[2:]
    assert row == "| us | 3 | 0% | 33% | 67% |"


def test_a_typo_is_restored_where_the_words_are_those_that_were_meant() -> None:
    meant = ["Zapatillas niño", "bolsos", "sin typo"]
    typed = ["Zapatilas niño", "bolsosx", "sin typo"]
    found = {"es": Sides(table(typed), table(["zapatillas nino", "bolsos grandes", "sin typo"]))}
    right = {"es": Sides(table(meant), table(meant))}
    assert outcomes_table(found, mistyped(right)).endswith("| es | 2 | 50% | 50% | 0% |\n")


def test_the_corrected_queries_have_the_p_of_all_queries_and_their_own_means() -> None:
    rng = np.random.default_rng(2)
    typed, corrected = table(["x"] * 12 + ["y"] * 12), table(["x"] * 12 + ["z"] * 12)
    for each in typed.column_names[2:]:
        values = np.concatenate([rng.random(12), rng.random(12) / 4 + 0.7])
        place = corrected.schema.get_field_index(each)
        corrected = corrected.set_column(place, each, pa.array(values.round(5)))
        values[12:] = 0.5
        typed = typed.set_column(place, each, pa.array(values.round(5)))
    lines = moves_table(params(), "esci", {"us": Sides(typed, corrected)}).splitlines()[2:]
    assert len(lines) == 2 * len(FIRST_SYSTEMS)
    for every, some in zip(lines[:3], lines[3:], strict=True):
        one, other = (line.split(" | ") for line in (every, some))
        assert [one[1], other[1]] == ["all, 24", "corrected, 12"]
        assert one[2] == other[2]
        for left, right in zip(one[3:], other[3:], strict=True):
            assert left.split("p ")[1] == right.split("p ")[1]
            assert right.startswith("0.5000, +0.")


def test_each_corrected_word_is_listed_once_without_the_rest_of_its_query() -> None:
    sides = Sides(table([*TYPED, "Runing men"]), table([*CORRECTED, "running men"]))
    assert list_corrections("us", sides) == (
        "us, 4 of 4 corrections: earbudz → earbuds, grey → gray, lampe → lamp, runing → running.\n"
    )
