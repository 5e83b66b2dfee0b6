import dataclasses
import json
import re

import numpy as np
import pytest
from markdown_it import MarkdownIt

from pipeline.compare import display
from pipeline.compare.differences import compare
from pipeline.compare.display import HEADER, Report, markdown, terminal
from pipeline.compare.plain_data import as_json
from pipeline.core.files import canonical_json
from tests.helpers.comparisons import DRAWS, RUNS, SETTINGS, measures, noisy, side

HOSTILE = (
    "<script>alert(1)</script> 😀 \x1b[31m\u202e| `x` *y* [z](http://evil.invalid) @someone #1"
    "\n\n# big"
)


def report(queries: int = 4, text: str = HOSTILE, titles: bool = True) -> Report:
    """Return the comparison of two locales, one of them equal; texts and titles are `text`."""
    rng = np.random.default_rng(1)
    values = measures(rng, 40)
    locales = {"us": values, "es": values}
    a = {locale: side(each, locale, "labse") for locale, each in locales.items()}
    b = {**a, "es": side(noisy(rng, values, 0.3), "es", "minilm")}
    found = compare(a, b, ("main", "x"), SETTINGS, DRAWS, queries, RUNS)
    moves = tuple(
        dataclasses.replace(
            move,
            wins=tuple(dataclasses.replace(each, query=text) for each in move.wins),
            losses=tuple(dataclasses.replace(each, query=text) for each in move.losses),
        )
        for move in found.moves
    )
    hits = {
        (change.query_id, move.system): [("E", text), (None, text)]
        for move in moves
        for change in (*move.wins, *move.losses)
    }
    return Report(
        a="main`|<b>",
        b="x",
        revisions=(("main`|<b>", "a" * 40), ("x", None)),
        found=dataclasses.replace(found, moves=moves),
        thresholds=SETTINGS,
        confidence=0.95,
        chosen={"es": (a["es"].chosen, {**b["es"].chosen, "encoder": "mini|lm"})},
        settings={"clean.separator": (" | ", "`"), "encoder.es": ("labse", "mini|lm")},
        titles={(0, "es"): hits, (1, "es"): hits} if titles else {},
        notes=("a note with <i> and |",),
    )


def test_markdown_renders_as_its_tables_and_as_nothing_that_a_text_asks_for() -> None:
    rendered = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown(report()))

    for tag in ("<script", "<b>", "<i>", "<em>", "<a ", "<h1>", "http://evil.invalid)"):
        assert tag not in rendered.replace("[z](http://evil.invalid)", "")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in rendered
    tables = rendered.split("<table>")[1:]
    rows = [row.split("</tr>")[0] for row in tables[1].split("<tr>")[1:]]
    assert len(rows) == 1 + 6  # two locales, three metrics
    assert {row.count("<th") + row.count("<td") for row in rows} == {len(HEADER)}
    assert "mini|lm" in tables[0]
    assert rendered.count("<details>") == rendered.count("</table></details>") == 2


def test_markdown_too_long_for_a_comment_leaves_the_queries_out_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = markdown(report())
    monkeypatch.setattr(display, "MARKDOWN_LIMIT", len(whole))
    assert markdown(report()) == whole
    monkeypatch.setattr(display, "MARKDOWN_LIMIT", len(whole) - 1)
    short = markdown(report())
    assert "<details>" not in short
    assert short.endswith("The queries are left out: a comment cannot hold them.\n")
    assert all(line in short for line in whole.splitlines() if line.startswith("| es |"))


def test_the_most_that_is_shown_fits_a_comment_with_three_queries() -> None:
    assert len(markdown(report(3, "ケ" * 500))) * 3 < display.MARKDOWN_LIMIT


def test_the_terminal_is_given_no_control_characters_and_aligned_columns() -> None:
    text = terminal(report())
    assert not [c for c in text if not c.isprintable() and c != "\n"]
    assert "😀" in text
    rows = [line for line in text.splitlines() if re.match(r"(us|es)  +(dense|hybrid)\.", line)]
    assert len(rows) == 6
    assert len({re.search(r" \d+  +\d+  +\d+  +\d+ ", row + " ").end() for row in rows}) == 1  # type: ignore[union-attr]


def test_labels_stand_for_titles_that_are_not_there() -> None:
    assert re.search(r"^    A  ESC\?I$", terminal(report(titles=False)), re.MULTILINE)


def test_each_system_of_a_locale_shows_its_queries_once() -> None:
    text = terminal(report(queries=1))
    headings = re.findall(r"^es (\S+): the largest (wins|losses)$", text, re.MULTILINE)
    assert headings == [
        (metric, kind)
        for metric in ("dense.ndcg@10", "hybrid.ndcg@10")
        for kind in ("wins", "losses")
    ]
    assert "us dense.ndcg@10: the largest" not in text


def test_json_holds_every_text_whole_and_is_canonical() -> None:
    data = json.loads(canonical_json(as_json(report())))
    assert [(move["locale"], move["equal"]) for move in data["moves"]] == [
        (locale, locale == "us") for locale in ("us", "es") for _ in SETTINGS.metrics
    ]
    moved = data["moves"][3]
    assert len(moved["wins"]) == len(moved["losses"]) == 4
    change = moved["wins"][0]
    assert change["query"] == HOSTILE
    assert change["top"][1] == [{"label": "E", "title": HOSTILE}, {"label": None, "title": HOSTILE}]
    assert change["b"] > change["a"]
    assert moved["low"] <= moved["difference"] <= moved["high"]
    assert data["revisions"][0] == {"name": "main`|<b>", "commit": "a" * 40}


def test_of_many_settings_the_first_are_shown_and_the_others_counted() -> None:
    many = {f"evaluate.k{i}": ("1", "2") for i in range(display.SETTINGS + 5)}
    made = dataclasses.replace(report(), settings=many)
    for text in (terminal(made), markdown(made)):
        assert text.count("evaluate.k") == display.SETTINGS
        assert "and 5 more" in text
    assert len(as_json(made)["settings"]) == len(many)


def test_a_metric_defined_for_no_query_is_null_in_json_and_said_in_words() -> None:
    empty = {"dense.ndcg@10": np.full(20, np.nan)}
    settings = SETTINGS.model_copy(update={"metrics": ("dense.ndcg@10",)})
    sides = {"es": side(empty)}, {"es": side(empty)}
    found = compare(*sides, ("a", "b"), settings, DRAWS, 1, RUNS)
    made = dataclasses.replace(report(), found=found)
    move = as_json(made)["moves"][0]
    assert (move["a"], move["difference"], move["p"], move["queries"]) == (None, None, 1.0, 0)
    canonical_json(as_json(made))
    assert "defined for no query" in terminal(made)
    assert "nan" not in terminal(made)


def test_what_judged_products_alone_say_stands_beside_the_flag() -> None:
    names = ("dense.ndcg@10", "dense.judged@10", "dense.ndcg_judged_only@10")
    old, new = (dict.fromkeys(names, np.full(30, value)) for value in (0.5, 0.6))
    new["dense.ndcg_judged_only@10"] = np.full(30, 0.4998)
    settings = SETTINGS.model_copy(update={"metrics": ("dense.ndcg@10",)})
    sides = {"es": side(old)}, {"es": side(new)}
    found = compare(*sides, ("a", "b"), settings, DRAWS, 1, RUNS)
    made = dataclasses.replace(report(), found=found)
    flag = "better; holes? judged@10 0.5000 → 0.6000, judged only -0.0002"
    assert flag in terminal(made)
    assert flag.split("@")[1] in markdown(made)
    holes = as_json(made)["moves"][0]["holes"]
    assert (holes["judged_only"], holes["suspect"]) == (-0.0002, True)
    assert 0 < holes["judged_only_p"] < 0.05
