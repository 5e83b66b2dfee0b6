"""What bench.spelling measures: its typos, its groups of queries, its tables."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rapidfuzz.distance import OSA

from bench import spelling
from bench.spelling_report import (
    MEASURES,
    Sides,
    cell,
    choose,
    list_corrections,
    misspelled,
    mistyped,
    moves_table,
    outcomes_table,
    spelled,
)  # fmt: skip
from bench.typos import edit, mistype, with_typo
from pipeline.compare.differences import measure_moves
from pipeline.compare.pairs import pair
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.systems import FIRST_SYSTEMS
from tests.helpers.artefacts import params

pytestmark = pytest.mark.thorough

TYPED = ["runing shoes", "desk lamp", "velora desk lampe", "earbudz", "grey sneakers"]
CORRECTED = ["running shoes", "desk lamp", "velora desk lamp", "earbuds", "gray sneakers"]


def table(texts: list[str], value: float = 0.5) -> pa.Table:
    measures = {
        f"{system}.{measure}": np.full(len(texts), value)
        for system in FIRST_SYSTEMS
        for measure in (*MEASURES, "ndcg_judged_only@10")
    }
    return pa.table({"query_id": np.arange(len(texts)), "query": texts, **measures})


def test_a_folder_of_anybody_else_is_never_replaced(tmp_path: Path) -> None:
    own, other = tmp_path / "esci", tmp_path / "demo"
    own.mkdir()
    (own / spelling.MARK).touch()
    spelling.check_folder(tmp_path)
    other.mkdir()
    with pytest.raises(PipelineError, match=r"demo would be replaced, and was not made by this"):
        spelling.check_folder(tmp_path)


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


def test_a_letter_may_be_inserted_anywhere_the_end_included() -> None:
    rng = np.random.default_rng(4)
    typos = [edit(rng, "aaaa") for _ in range(1000)]
    inserted = {typo.index(typo.strip("a")) for typo in typos if len(typo) == 5 != typo.count("a")}
    assert inserted == {0, 1, 2, 3, 4}


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
    wrong = Sides(table(TYPED), table([*TYPED[:3], "earbird", CORRECTED[4]]))
    header, _, row = outcomes_table({"us": wrong}, "known", misspelled, spelled).splitlines()
    assert header.split(" | ")[2:4] == ["known", "otherwise changed"]
    assert row == "| us | 3 | 0% | 33% | 67% | 2 | 1 |"  # grey became gray


def test_a_typo_is_restored_where_the_words_are_those_that_were_meant() -> None:
    meant = ["Zapatillas niño", "bolsos", "sin typo", "caña larga"]
    typed = ["Zapatilas niño", "bolsosx", "sin typo", "cana larga"]  # an accent is no other word
    corrected = ["zapatillas nino", "bolsos grandes", "sin typo", "cana larga"]
    found = {"es": Sides(table(typed), table(corrected))}
    right = Sides(table(meant), table(["zapatillas niño", "bolso", "sin tipo", "cana larga"]))
    for order in ([0, 1, 2, 3], [2, 0, 3, 1]):  # queries are joined by their ids
        plain = {"es": Sides(right.typed.take(order), right.corrected)}
        cases = mistyped(plain)
        text = outcomes_table(found, "restored", cases, lambda *_: right.texts())
        assert text.endswith("| es | 2 | 50% | 50% | 0% | 4 | 2 |\n")
    with pytest.raises(PipelineError, match="others"):
        list(mistyped({"es": Sides(right.typed[:3], right.corrected)})("es", found["es"]))


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
        one, other = (line.strip("| ").split(" | ") for line in (every, some))
        assert [one[1], other[1]] == ["all, 24", "corrected, 12"]
        assert one[2] == other[2]
        for left, right in zip(one[3:], other[3:], strict=True):
            (p, n), (same, fewer) = (each.split("p ")[1].split(", n ") for each in (left, right))
            assert p == same
            assert int(n) - int(fewer) == 12
            assert right.startswith("0.5000, +0.")


def test_a_cell_counts_the_queries_of_its_measure_and_marks_the_least_p_of_its_draws() -> None:
    values = np.r_[np.full(30, 0.25), np.full(10, np.nan)]
    measure, draws = "dense.recall@100", params().uncertainty
    typed, corrected = (pa.table({measure: each}) for each in (values, values + 0.5))
    bound = 1 / (draws.samples + 1)
    for old, new, cells in (
        (typed, corrected, "0.2500, +0.5000 [+0.5000, +0.5000], p ≤ 0.001, n 30"),
        (typed, typed, "0.2500, +0.0000 [+0.0000, +0.0000], p 1.000, n 30"),
        (typed[30:], corrected[30:], "none"),
        (typed[:0], corrected[:0], "none"),
    ):
        (move,) = measure_moves([pair("us", measure, old, new)], 0.05, 0, draws, 0)
        assert cell(move, bound) == cells


def test_every_p_that_holm_raises_to_that_of_the_least_p_is_an_upper_bound() -> None:
    typed, corrected = table(["x"] * 40, 0.0), table(["y"] * 40, 0.0)
    for number, column in enumerate(typed.column_names[2:]):
        wins = {6: 31, 7: 22}.get(number, 40)  # of these 31 give a p above the least, times 2
        place = typed.schema.get_field_index(column)
        values = pa.array(np.where(np.arange(40) < wins, 0.5, -0.5))
        corrected = corrected.set_column(place, column, values)
    text = moves_table(params(), "esci", {"us": Sides(typed, corrected)})
    moved = [pair("us", typed.column_names[8], typed, corrected)]
    (alone,) = measure_moves(moved, 0.05, 0, params().uncertainty, 0)
    assert 0.0005 < alone.p < 0.0015
    cells = [each for line in text.splitlines()[2:5] for each in line.strip("| ").split(" | ")[3:]]
    assert [" p ≤ 0.003" in each for each in cells] == [True] * 5 + [False]


def test_a_source_without_esci_s_files_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad, folder = tmp_path / "bad", tmp_path / "made"
    bad.mkdir()
    examples = bad / layout.EXAMPLES_FILE

    def refused(source: Path) -> str:
        argv = ["spelling", "--source", str(source), "--folder", str(folder)]
        monkeypatch.setattr("sys.argv", argv)
        assert spelling.main() == 1
        assert not folder.exists()
        return capsys.readouterr().err

    assert "is missing" in refused(tmp_path / "none")
    assert "is missing" in refused(bad)
    examples.write_text("version https://git-lfs")
    assert "is not readable as parquet" in refused(bad)
    pq.write_table(pa.table({"query": ["shoes"]}), examples)
    assert "lacks example_id, query_id" in refused(bad)
    assert "Name another --folder" in refused(folder / "esci")


def test_each_corrected_word_is_listed_once_without_the_rest_of_its_query() -> None:
    sides = Sides(table([*TYPED, "Runing men"]), table([*CORRECTED, "running men"]))
    assert list_corrections("us", sides) == (
        "us, 3 of 4 corrections: grey → gray, lampe → lamp, runing → running.\n"
    )  # earbudz is a whole query
