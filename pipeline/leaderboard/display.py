"""A leaderboard as text for a terminal, Markdown, CSV and JSON.

Names come from revisions that anyone may have written; `core.text_tables` says how they are
kept from steering a terminal or a page.
"""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.core import text_tables
from pipeline.core.params import ENCODER_MEASURES
from pipeline.core.text_tables import four_digits, inline, printable
from pipeline.evaluate.metrics import rounded_or_none
from pipeline.leaderboard.board import BASELINE, Board, Placed

OTHERS = ("mrr@10", "recall@100")
OTHERS_OF_ENCODER = ("ap_e_vs_sci", "query_spearman", "map")
"""Measures beside the one that ranks, where they are kept per query."""

NAMES_SHOWN = 3


@dataclass(frozen=True)
class Shown:
    """The boards, lines on what is not on one, what ranks them, and the intervals' confidence."""

    boards: Sequence[Board]
    notes: Sequence[str]
    measure: str
    confidence: float

    @property
    def others(self) -> list[str]:
        """The measures beside the one that ranks."""
        names = OTHERS_OF_ENCODER if self.measure in ENCODER_MEASURES else OTHERS
        return [name for name in names if name != self.measure]


def terminal(shown: Shown) -> str:
    """Return the boards as text."""
    parts = []
    for each in shown.boards:
        header, rows = _table(each, shown)
        table = text_tables.aligned(
            header, [list(map(printable, row)) for row in rows], _numbers(shown)
        )
        parts.append(f"{_title(each)}\n{table}")
    return "\n".join([*parts, "\n".join([_legend(shown), *map(printable, shown.notes)]) + "\n"])


def markdown(shown: Shown) -> str:
    """Return the boards as Markdown."""
    parts = ["## Leaderboard\n"]
    for each in shown.boards:
        header, rows = _table(each, shown)
        escaped = [list(map(inline, row)) for row in rows]
        parts += [f"### {_title(each)}\n", text_tables.markdown(header, escaped, _numbers(shown))]
    notes = [f"- {inline(line)}\n" for line in (_legend(shown), *shown.notes)]
    return "\n".join([*parts, "".join(notes)])


def csv_text(shown: Shown) -> str:
    """Return the boards as one CSV table, a row per entry; numbers in 5 digits."""
    rows = [_record(each, placed, shown) for each in shown.boards for placed in each.placed]
    with io.StringIO(newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]) if rows else [], lineterminator="\n")
        writer.writeheader()
        for row in rows:
            joined = {"revisions": " ".join(row["revisions"])}
            settings = " ".join(f"{key}={value}" for key, value in row["settings"].items())
            writer.writerow({**row, **joined, "settings": settings})
        return out.getvalue()


def as_json(shown: Shown) -> dict[str, Any]:
    """Return the boards as plain data."""
    return {
        "measure": shown.measure,
        "confidence": shown.confidence,
        "boards": [
            {
                "locale": each.locale,
                "sample": each.sample.model_dump(),
                "entries": [_record(each, placed, shown) for placed in each.placed],
            }
            for each in shown.boards
        ],
        "notes": list(shown.notes),
    }


def _table(each: Board, shown: Shown) -> tuple[list[str], list[list[str]]]:
    header = [
        "rank", "system", "encoder", "index", shown.measure, "interval", "p", *shown.others,
        "tokens/s", "bytes/vector", "p50 ms", "settings", "revisions",
    ]  # fmt: skip
    rows = []
    for placed in each.placed:
        entry, interval = placed.entry, placed.interval
        rows.append(
            [
                "–" if entry.system == BASELINE else str(placed.rank),
                entry.system, entry.encoder, entry.index, four_digits(entry.mean(shown.measure)),
                f"[{four_digits(interval.low)}, {four_digits(interval.high)}]",
                four_digits(placed.p),
                *(four_digits(entry.mean(name)) for name in shown.others),
                *(
                    "" if value is None else f"{value:,.{digits}f}"
                    for value, digits in zip(asdict(entry.speed).values(), (0, 0, 3), strict=True)
                ),
                ", ".join(f"{key}={value}" for key, value in entry.settings.items()),
                list_revisions(entry.revisions),
            ]
        )  # fmt: skip
    return header, rows


def _numbers(shown: Shown) -> tuple[str, ...]:
    return (
        "rank",
        shown.measure,
        "interval",
        "p",
        *shown.others,
        "tokens/s",
        "bytes/vector",
        "p50 ms",
    )


def _record(each: Board, placed: Placed, shown: Shown) -> dict[str, Any]:
    entry = placed.entry
    return {
        "locale": each.locale,
        "sample": each.sample.judgements_sha256[:12],
        "queries": placed.interval.queries,
        "rank": None if entry.system == BASELINE else placed.rank,
        "system": entry.system,
        "encoder": entry.encoder or None,
        "index": entry.index or None,
        shown.measure: rounded_or_none(entry.recorded[shown.measure]),
        "low": rounded_or_none(placed.interval.low),
        "high": rounded_or_none(placed.interval.high),
        "p_adjusted": rounded_or_none(placed.p),
        "surely_worse": placed.worse,
        **{name: rounded_or_none(entry.recorded.get(name, math.nan)) for name in shown.others},
        **asdict(entry.speed),
        "settings": dict(entry.settings),
        "revisions": list(entry.revisions),
    }


def _title(each: Board) -> str:
    return (
        f"{each.locale}: {each.queries:,} queries, {each.sample.products:,} products "
        f"(judgements {each.sample.judgements_sha256[:7]})"
    )


def _legend(shown: Shown) -> str:
    return (
        f"rank 1: the best by {shown.measure}, and all that are not surely worse by a paired test "
        f"(p, adjusted by Holm over all pairs). {shown.confidence:.0%} intervals over queries."
    )


def list_revisions(revisions: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(revisions) - NAMES_SHOWN
    listed = ", ".join(revisions[:NAMES_SHOWN])
    return f"{listed} and {more} more" if more > 0 else listed
