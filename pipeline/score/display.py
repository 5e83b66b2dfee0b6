"""Scored runs as text for a terminal, and as plain data for JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pipeline.compare.display import HEADER, NUMBERS
from pipeline.core import text_tables
from pipeline.core.text_tables import plain
from pipeline.evaluate.metrics import rounded_or_none
from pipeline.evaluate.uncertainty import Interval
from pipeline.score.results import Difference, Result

COMPARED = ("run", "measure", *HEADER[2:])


def terminal(results: Sequence[Result], differences: Sequence[Difference]) -> str:
    """Return the means of all runs, what explains them, and how the others differ from A."""
    names = [plain(result.name) for result in results]
    measures = dict.fromkeys(name for result in results for name in result.means)
    rows = [(name, *(_mean(result.means.get(name)) for result in results)) for name in measures]
    counts = [
        (name, *(f"{result.counts[name]:,}" for result in results)) for name in results[0].counts
    ]
    parts = [
        text_tables.aligned(("measure", *names), rows, names),
        text_tables.aligned(("count", *names), counts, names),
    ]
    if differences:
        cells = [_cells(difference) for difference in differences]
        table = text_tables.aligned(COMPARED, cells, NUMBERS)
        parts.append(f"A is {names[0]}, B the run of the line\n\n{table}")
    if notes := list(_notes(results, names)):
        parts.append("".join(f"{note}\n" for note in notes))
    return "\n".join(parts)


def as_json(results: Sequence[Result], differences: Sequence[Difference]) -> dict[str, Any]:
    """Return means, counts and differences as plain data, floats rounded to 5 digits."""
    first = results[0]
    return {
        "track": first.track,
        "cutoffs": first.cutoffs.model_dump(mode="json"),
        "draws": first.draws.model_dump(mode="json"),
        "judgements_sha256": first.judgements_sha256,
        "products_sha256": first.products_sha256,
        "runs": [
            {
                "name": result.name,
                "means": {name: _interval(each) for name, each in result.means.items()},
                "counts": result.counts,
                "notes": list(result.notes()),
            }
            for result in results
        ],
        "differences": [_difference(each) for each in differences],
    }


def _mean(interval: Interval | None) -> str:
    if interval is None:
        return ""
    return f"{interval.mean:.4f} [{interval.low:.4f}, {interval.high:.4f}]"


def _cells(found: Difference) -> tuple[str, ...]:
    mean, low, high, queries = found.difference
    return (
        plain(found.name), found.measure, f"{found.a:.4f}", f"{found.b:.4f}", f"{mean:+.4f}",
        f"[{low:+.4f}, {high:+.4f}]", f"{found.p:.4f}", f"{found.p_adjusted:.4f}", f"{queries:,}",
        f"{found.won:,}", f"{found.lost:,}", f"{found.tied:,}", found.verdict,
    )  # fmt: skip


def _notes(results: Sequence[Result], names: Sequence[str]) -> Iterator[str]:
    for result, name in zip(results, names, strict=True):
        yield from (f"{name}: {note}." for note in result.notes())


def _interval(interval: Interval) -> dict[str, float | int | None]:
    mean, low, high = (rounded_or_none(each) for each in interval[:3])
    return {"mean": mean, "low": low, "high": high, "queries": interval.queries}


def _difference(found: Difference) -> dict[str, Any]:
    data = {**asdict(found), **_interval(found.difference)}
    del data["difference"]
    return {
        key: rounded_or_none(value) if isinstance(value, float) else value
        for key, value in data.items()
    }
