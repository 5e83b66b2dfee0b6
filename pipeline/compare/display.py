"""A comparison as text for a terminal, and as Markdown for a pull request.

Texts come from revisions that anyone may have written: none may steer a terminal, be read as
Markdown, or start a line that a CI runner takes for a command.
"""

import html
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pipeline.compare.differences import Change, Comparison, Move
from pipeline.compare.sides import Hit, Top
from pipeline.core import text_tables
from pipeline.core.params import Compare
from pipeline.core.text_tables import four_digits, inline, plain

HITS = 3
"""How many of a query's first products are shown; JSON holds all."""

SETTINGS = 30
"""How many settings that differ are shown; JSON holds all."""

MARKDOWN_LIMIT = 60_000
"""GitHub takes comments of 65,536 characters; a longer one loses its queries."""

HEADER = (
    "locale", "metric", "A", "B", "difference", "interval", "p", "adjusted p", "queries",
    "won", "lost", "tied", "",
)  # fmt: skip
NUMBERS = HEADER[2:-1]

Titles = dict[tuple[int, str], Top]
"""The first products by side (0: A, 1: B) and locale."""


@dataclass(frozen=True)
class Report:
    """A comparison and what a reader must know beside it.

    `revisions` holds the name and the commit of either side (None: the workspace), `a` and `b` what
    they are called, `chosen` the encoder and index of each side by locale, `settings` the settings
    that differ, as they are written, `titles` the products of changed queries, where they can be
    read.
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

    def hits(self, side: int, move: Move, change: Change) -> list[Hit]:
        """Return the first products of a query on a side; none where they cannot be read."""
        top = self.titles.get((side, move.locale), {})
        return top.get((change.query_id, move.systems[side]), [])


def terminal(report: Report) -> str:
    """Return the comparison as text."""
    lines = [f"A  {plain(report.a)}", f"B  {plain(report.b)}", ""]
    lines += [f"{locale}  {_choices(chosen)}" for locale, chosen in report.chosen.items()]
    if report.settings:
        lines += ["", "settings that differ"]
        lines += [f"  {plain(key)}: {plain(a)} → {plain(b)}" for key, a, b in _settings(report)]
    moves = text_tables.aligned(HEADER, [cells(move) for move in report.found.moves], NUMBERS)
    lines += ["", *moves.splitlines()]
    for move in with_queries(report.found.moves):
        for kind, changes in (("wins", move.wins), ("losses", move.losses)):
            if changes:
                lines += ["", f"{move.locale} {move.name}: the largest {kind}"]
            for change in changes:
                lines.append(f"  {change.query_id}  {plain(change.query)}  {_values(change)}")
                for name, hits in _results(report, move, change):
                    lines.append(f"    {name}  {' | '.join(hits)}")
    lines += ["", *closing(report), *report.notes]
    return "\n".join(lines) + "\n"


def markdown(report: Report) -> str:
    """Return the comparison as Markdown: tables, and the queries folded away."""
    chosen = [(locale, _code(_choices(both))) for locale, both in report.chosen.items()]
    parts = [
        f"## Metrics\n\nA: {_code(report.a)}, B: {_code(report.b)}\n",
        text_tables.markdown(("locale", "chosen"), chosen),
        text_tables.markdown(HEADER, [cells(move) for move in report.found.moves], NUMBERS),
        "".join(f"{inline(line)}  \n" for line in (*closing(report), *report.notes)),
    ]
    if report.settings:
        rows = [tuple(map(_code, row)) for row in _settings(report)]
        parts.append(text_tables.markdown(("setting", "A", "B"), rows))
    folded = [_folded(report, move) for move in with_queries(report.found.moves)]
    whole = "\n".join([*parts, *folded])
    if len(whole) <= MARKDOWN_LIMIT:
        return whole
    return "\n".join([*parts, "The queries are left out: a comment cannot hold them.\n"])


def refusal(report: Report) -> str:
    """Return in one line what the thresholds refuse."""
    return "; ".join(
        f"{move.locale} {move.name} falls by {-move.difference.mean:.4f} "
        f"(adjusted p {move.p_adjusted:.4f})"
        for move in report.found.refused
    ) + (
        f"; compare.max_drop is {report.thresholds.max_drop:g}, "
        f"compare.alpha {report.thresholds.alpha:g}"
    )


def _settings(report: Report) -> Iterator[tuple[str, str, str]]:
    """Yield the first settings that differ, and how many more there are."""
    for key, (a, b) in list(report.settings.items())[:SETTINGS]:
        yield key, a, b
    if (more := len(report.settings) - SETTINGS) > 0:
        yield f"and {more} more", "…", "…"


def closing(report: Report) -> Iterator[str]:
    """Say how many metrics moved, by which rules, and what is refused."""
    moves = report.found.moves
    significant = sum(move.significant for move in moves)
    yield (
        f"{significant} of {len(moves)} moved significantly (adjusted p below "
        f"{report.thresholds.alpha:g}; {report.confidence:.0%} intervals)."
    )
    if any(move.holes and move.holes.suspect for move in moves):
        yield (
            "holes?: judged@k moved with the metric (and, for nDCG, judged products alone do not "
            "confirm it): part of the move may come from unjudged products. Look at the queries."
        )
    if report.found.refused:
        yield f"Refused: {refusal(report)}."


def with_queries(moves: Iterable[Move]) -> list[Move]:
    """Return the first move of each locale and system that has queries to show."""
    first: dict[tuple[str, str], Move] = {}
    for move in moves:
        if move.wins or move.losses:
            first.setdefault((move.locale, move.system), move)
    return list(first.values())


def cells(move: Move) -> tuple[str, ...]:
    """Return a move as a row of a table with `HEADER`."""
    mean, low, high, queries = move.difference
    return (
        move.locale, move.name, four_digits(move.a), four_digits(move.b),
        "" if move.equal else f"{mean:+.4f}", "" if move.equal else f"[{low:+.4f}, {high:+.4f}]",
        f"{move.p:.4f}", f"{move.p_adjusted:.4f}", f"{queries:,}",
        f"{move.won:,}", f"{move.lost:,}", f"{move.tied:,}", verdict(move),
    )  # fmt: skip


def verdict(move: Move) -> str:
    """Return in a few words how a metric moved, and what to doubt."""
    if not move.difference.queries:
        return "defined for no query"
    if move.equal:
        return "equal"
    said = "not significant"
    if move.significant:
        said = "better" if move.difference.mean > 0 else "worse"
    if move.refused:
        said += ", refused"
    if (holes := move.holes) and holes.suspect:
        measure = holes.metric.partition(".")[2]
        said += f"; holes? {measure} {holes.a:.4f} → {holes.b:.4f}"
        if holes.judged_only is not None:
            said += f", judged only {holes.judged_only:+.4f}"
    return said


def _choices(chosen: tuple[Mapping[str, str], Mapping[str, str]]) -> str:
    a, b = chosen
    return ", ".join(f"{name} {_arrow(a[name], b[name])}" for name in a)


def _arrow(a: str, b: str) -> str:
    return a if a == b else f"{a} → {b}"


def _values(change: Change) -> str:
    return f"{change.a:.4f} → {change.b:.4f}"


def _results(report: Report, move: Move, change: Change) -> Iterator[tuple[str, list[str]]]:
    """Yield for each side its name and the query's first products there, or only their labels."""
    for number, (name, labels) in enumerate((("A", change.labels_a), ("B", change.labels_b))):
        hits = report.hits(number, move, change)[:HITS]
        shown = [f"{label or '?'} {plain(title)}" for label, title in hits]
        yield name, shown or [labels or "nothing"]


def _folded(report: Report, move: Move) -> str:
    """Return a block of HTML: without an empty line inside, nothing in it is read as Markdown."""
    lines = [
        f"<details><summary>{move.locale} {move.name}: the largest wins and losses</summary>",
        "<table><tr><th>query</th><th>A → B</th><th>A</th><th>B</th></tr>",
    ]
    for change in (*move.wins, *move.losses):
        a, b = (
            "<br>".join(f"<code>{html.escape(hit)}</code>" for hit in hits)
            for _, hits in _results(report, move, change)
        )
        lines.append(
            f"<tr><td>{change.query_id} <code>{html.escape(plain(change.query))}</code></td>"
            f"<td>{_values(change)}</td><td>{a}</td><td>{b}</td></tr>"
        )
    return "\n".join([*lines, "</table></details>\n"])


def _code(text: str) -> str:
    return f"<code>{inline(text)}</code>"
