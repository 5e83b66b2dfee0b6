"""A comparison shown: as text for a terminal, as markdown for a pull request, as JSON."""

import html
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.compare.differences import Change, Comparison, Move
from pipeline.compare.sides import Hit, Top
from pipeline.core.params import Compare

HITS = 3
"""How many of a query's first products are shown; JSON holds all."""

TITLE = 70
"""How many characters of a title are shown; JSON holds all."""

SETTINGS = 30
"""How many settings that differ are shown; JSON holds all."""

MARKDOWN_LIMIT = 60_000
"""GitHub takes comments of 65,536 characters; in what would be longer the queries are left out."""

HEADER = (
    "locale", "metric", "A", "B", "difference", "interval", "p", "adjusted p", "queries",
    "won", "lost", "tied", "",
)  # fmt: skip

Titles = dict[tuple[int, str], Top]
"""The first products by side (0: A, 1: B) and locale."""


@dataclass(frozen=True)
class Report:
    """A comparison and what a reader must know beside it.

    `revisions` holds the name and the commit of either side (None: the workspace), `a` and `b` what
    they are called, `chosen` what each side chose (encoder, index) in a locale, `settings` the
    settings that differ, as they are written, `titles` what could be had of the products of changed
    queries.
    """

    a: str
    b: str
    revisions: tuple[tuple[str, str | None], tuple[str, str | None]]
    found: Comparison
    thresholds: Compare
    confidence: float
    chosen: Mapping[str, tuple[Mapping[str, str], Mapping[str, str]]]
    settings: Mapping[str, tuple[str, str]]
    titles: Titles
    notes: tuple[str, ...]


def terminal(report: Report) -> str:
    """Return the comparison as text."""
    lines = [f"A  {report.a}", f"B  {report.b}", ""]
    for locale, chosen in report.chosen.items():
        lines.append(f"{locale}  {_choices(chosen)}")
    if report.settings:
        lines += ["", "settings that differ"]
        lines += [f"  {key}: {_plain(a)} → {_plain(b)}" for key, a, b in _settings(report)]
    lines += ["", *_padded([HEADER, *(_cells(move) for move in report.found.moves)])]
    for move in _shown(report.found.moves):
        for kind, changes in (("wins", move.wins), ("losses", move.losses)):
            if changes:
                lines += ["", f"{move.locale} {move.metric}: the largest {kind}"]
            for change in changes:
                lines.append(f"  {change.query_id}  {_plain(change.query)}  {_values(change)}")
                for name, hits in _results(report, move, change):
                    lines.append(f"    {name}  {' | '.join(hits)}")
    lines += ["", *_closing(report), *report.notes]
    return "\n".join(lines) + "\n"


def markdown(report: Report) -> str:
    """Return the comparison as markdown: tables, and the queries folded away."""
    lines = ["## Metrics", "", f"A: {_code(report.a)}, B: {_code(report.b)}", ""]
    lines += ["| locale | chosen |", "|---|---|"]
    lines += [f"| {locale} | {_code(_choices(both))} |" for locale, both in report.chosen.items()]
    lines += ["", f"| {' | '.join(HEADER)} |", "|---|---|" + "---:|" * (len(HEADER) - 3) + "---|"]
    lines += [f"| {' | '.join(_cells(move))} |" for move in report.found.moves]
    lines += ["", *(f"{_inline(line)}  " for line in (*_closing(report), *report.notes))]
    if report.settings:
        lines += ["", "| setting | A | B |", "|---|---|---|"]
        lines += [f"| {_code(k)} | {_code(a)} | {_code(b)} |" for k, a, b in _settings(report)]
    queries = [line for move in _shown(report.found.moves) for line in _folded(report, move)]
    whole = "\n".join([*lines, *queries]) + "\n"
    if len(whole) <= MARKDOWN_LIMIT:
        return whole
    return (
        "\n".join([*lines, "", "The queries are left out: a comment would not hold them."]) + "\n"
    )


def as_json(report: Report) -> dict[str, Any]:
    """Return the comparison as plain data, all of it; NaN as null."""
    return {
        "revisions": [{"name": name, "commit": commit} for name, commit in report.revisions],
        "thresholds": report.thresholds.model_dump(mode="json"),
        "confidence": report.confidence,
        "chosen": {
            locale: {name: [a[name], b[name]] for name in a}
            for locale, (a, b) in report.chosen.items()
        },
        "settings": {key: list(both) for key, both in report.settings.items()},
        "refused": bool(report.found.refused),
        "moves": [_move_as_json(report, move) for move in report.found.moves],
        "notes": list(report.notes),
    }


def refusal(report: Report) -> str:
    """Return in one line what the thresholds refuse."""
    return "; ".join(
        f"{move.locale} {move.metric} falls by {-move.difference.mean:.4f} "
        f"(adjusted p {move.p_adjusted:.4f})"
        for move in report.found.refused
    ) + (
        f"; compare.max_drop is {report.thresholds.max_drop:g}, "
        f"compare.alpha {report.thresholds.alpha:g}"
    )


def _settings(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield the settings that differ, as many as are shown, and how many more there are."""
    for key, (a, b) in list(report.settings.items())[:SETTINGS]:
        yield key, a, b
    if (more := len(report.settings) - SETTINGS) > 0:
        yield f"and {more} more", "…", "…"


def _closing(report: Report) -> Iterator[str]:
    """Say what was asked and what came of it."""
    moves = report.found.moves
    sure = sum(move.significant for move in moves)
    yield (
        f"{sure} of {len(moves)} moved for sure (adjusted p below {report.thresholds.alpha:g}; "
        f"intervals hold {report.confidence:.0%})."
    )
    if any(move.holes and move.holes.suspect for move in moves):
        yield (
            "holes?: judged@k moved with the metric (for nDCG: and judged products alone do not "
            "bear it out): part of the move may be unjudged products; look at the queries."
        )
    if report.found.refused:
        yield f"Refused: {refusal(report)}."


def _shown(moves: Iterable[Move]) -> list[Move]:
    """Return the first move of each locale and system that has queries to show."""
    first: dict[tuple[str, str], Move] = {}
    for move in moves:
        if move.wins or move.losses:
            first.setdefault((move.locale, move.system), move)
    return list(first.values())


def _cells(move: Move) -> tuple[str, ...]:
    mean, low, high, queries = move.difference
    return (
        move.locale, move.metric, _number(move.a), _number(move.b),
        "" if move.equal else f"{mean:+.4f}", "" if move.equal else f"[{low:+.4f}, {high:+.4f}]",
        f"{move.p:.4f}", f"{move.p_adjusted:.4f}", f"{queries:,}",
        f"{move.won:,}", f"{move.lost:,}", f"{move.tied:,}", _verdict(move),
    )  # fmt: skip


def _verdict(move: Move) -> str:
    if not move.difference.queries:
        return "defined for no query"
    if move.equal:
        return "equal"
    verdict = "not sure"
    if move.significant:
        verdict = "better" if move.difference.mean > 0 else "worse"
    if move.refused:
        verdict += ", refused"
    if (holes := move.holes) and holes.suspect:
        measure = holes.metric.partition(".")[2]
        verdict += f"; holes? {measure} {holes.a:.4f} → {holes.b:.4f}"
        if holes.judged_only is not None:
            verdict += f", judged only {holes.judged_only:+.4f}"
    return verdict


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"


def _choices(chosen: tuple[Mapping[str, str], Mapping[str, str]]) -> str:
    a, b = chosen
    return ", ".join(f"{name} {_arrow(a[name], b[name])}" for name in a)


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _values(change: Change) -> str:
    return f"{change.a:.4f} → {change.b:.4f}"


def _results(report: Report, move: Move, change: Change) -> Iterator[tuple[str, list[str]]]:
    """Yield for each side its name and the query's first products there, or their labels alone."""
    for number, (name, labels) in enumerate((("A", change.labels_a), ("B", change.labels_b))):
        hits = _hits(report, number, move, change)[:HITS]
        told = [f"{label or '?'} {_plain(title)}" for label, title in hits]
        yield name, told or [labels or "nothing"]


def _hits(report: Report, number: int, move: Move, change: Change) -> list[Hit]:
    top = report.titles.get((number, move.locale), {})
    return top.get((change.query_id, move.system), [])


def _plain(text: str) -> str:
    """Return text on one line, shortened, without what could steer a terminal or turn its order."""
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= TITLE else text[: TITLE - 1] + "…"


def _padded(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    words = (0, 1, len(HEADER) - 1)
    return [
        "  ".join(
            cell.ljust(width) if place in words else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def _folded(report: Report, move: Move) -> Iterator[str]:
    """Yield a block of HTML: without an empty line inside, nothing in it is read as markdown."""
    yield ""
    yield f"<details><summary>{move.locale} {move.metric}: the largest wins and losses</summary>"
    yield "<table><tr><th>query</th><th>A → B</th><th>A</th><th>B</th></tr>"
    for change in (*move.wins, *move.losses):
        a, b = (
            "<br>".join(f"<code>{html.escape(hit)}</code>" for hit in hits)
            for _, hits in _results(report, move, change)
        )
        yield (
            f"<tr><td>{change.query_id} <code>{html.escape(_plain(change.query))}</code></td>"
            f"<td>{_values(change)}</td><td>{a}</td><td>{b}</td></tr>"
        )
    yield "</table></details>"


def _code(text: str) -> str:
    return f"<code>{_inline(text)}</code>"


def _inline(text: str) -> str:
    """Return text with all that markdown would read as more than text written as entities."""
    escaped = html.escape(text, quote=False)
    return "".join(f"&#{ord(c)};" if c in "\\`*_[]|~!@#:" else c for c in escaped)


def _move_as_json(report: Report, move: Move) -> dict[str, Any]:
    mean, low, high, queries = move.difference
    return {
        "locale": move.locale,
        "metric": move.metric,
        "a": _rounded(move.a),
        "b": _rounded(move.b),
        "difference": _rounded(mean),
        "low": _rounded(low),
        "high": _rounded(high),
        "p": _rounded(move.p),
        "p_adjusted": _rounded(move.p_adjusted),
        "queries": queries,
        "won": move.won,
        "lost": move.lost,
        "tied": move.tied,
        "equal": move.equal,
        "significant": move.significant,
        "refused": move.refused,
        "holes": move.holes
        and {
            "metric": move.holes.metric,
            "a": _rounded(move.holes.a),
            "b": _rounded(move.holes.b),
            "p": _rounded(move.holes.p),
            "judged_only": _rounded(move.holes.judged_only),
            "judged_only_p": _rounded(move.holes.judged_only_p),
            "suspect": move.holes.suspect,
        },
        "wins": [_change_as_json(report, move, change) for change in move.wins],
        "losses": [_change_as_json(report, move, change) for change in move.losses],
    }


def _change_as_json(report: Report, move: Move, change: Change) -> dict[str, Any]:
    return {
        "query_id": change.query_id,
        "query": change.query,
        "a": _rounded(change.a),
        "b": _rounded(change.b),
        "labels": [change.labels_a, change.labels_b],
        "top": [
            [
                {"label": label, "title": title}
                for label, title in _hits(report, number, move, change)
            ]
            for number in (0, 1)
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(value, 5)
