"""A terminal's lines: never wider than it, whatever the titles are."""

import random

import pytest

from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.search.answer import Answer, Hit, Product
from pipeline.search.display import columns, draw, fit, list_hits

TITLES = ("Zapatillas rojas", "スニーカー レディース 軽量", "ｶﾞ é e\u0301 👩‍💻", "", "x" * 300)


def answer(hits: int, *, judged: bool) -> Answer:
    """Return an answer with titles of many kinds."""
    draw_from = random.Random(hits)  # noqa: S311
    found = [
        Hit(
            rank, 12.5, Product(f"B{rank:09d}", draw_from.choice(TITLES), "Marca", ""),
            draw_from.choice("ESCI") if judged else None,
        )
        for rank in range(1, hits + 1)
    ]  # fmt: skip
    return Answer(
        "es", "q", "una consulta", 7 if judged else None, {}, dict.fromkeys(FIRST_SYSTEMS, found),
        dict.fromkeys(FIRST_SYSTEMS, hits), {},
    )  # fmt: skip


@pytest.mark.parametrize("width", [20, 40, 80, 117, 200])
@pytest.mark.parametrize("judged", [False, True])
def test_no_line_is_wider_than_the_terminal(width: int, judged: bool) -> None:
    drawn = draw(answer(12, judged=judged), width)
    assert max(map(columns, drawn.splitlines())) <= width
    assert "\x1b" not in drawn
    for system in FIRST_SYSTEMS:
        assert system in drawn


def test_an_id_cannot_steer_the_terminal() -> None:
    hit = Hit(1, 0.5, Product("B\x1b[2J\n1", "Zapatillas", "Marca", ""))
    drawn = draw(Answer("es", "q", "q", None, {}, {"dense": [hit]}, {"dense": 1}, {}), 80)
    assert "\x1b" not in drawn
    assert drawn.splitlines()[3:] == ["1  0.5000  Marca · B [2J 1", "   Zapatillas"]


def test_a_line_per_product_has_the_whole_id_on_one_line() -> None:
    hit = Hit(1, 0.5, Product(f"B\t{'0' * 300}", "Zapatillas", "Marca", ""))
    line = list_hits(Answer("es", "q", "q", None, {}, {"dense": [hit]}, {"dense": 1}, {}))
    assert line == f"q\tdense\t1\t0.500000\t\tB {'0' * 300}\tMarca\t\tZapatillas\n"


def test_three_systems_are_side_by_side_in_80_columns() -> None:
    heads = draw(answer(2, judged=True), 80).splitlines()[2]
    assert heads.split() == list(FIRST_SYSTEMS)


@pytest.mark.parametrize("text", TITLES)
def test_a_text_is_filled_or_cut_to_its_width(text: str) -> None:
    for width in range(1, 30):
        assert columns(fit(text, width)) == width


def test_a_system_that_found_nothing_says_so() -> None:
    assert "no term matches" in draw(answer(0, judged=False), 80)
