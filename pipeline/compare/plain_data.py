"""A comparison as plain data for JSON: all of it, floats rounded to 5 digits, NaN as null."""

from dataclasses import asdict
from typing import Any

from pipeline.compare.differences import Change, Move
from pipeline.compare.display import Report
from pipeline.evaluate.metrics import rounded_or_none


def as_json(report: Report) -> dict[str, Any]:
    """Return the comparison as plain data."""
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
        "moves": [_move(report, move) for move in report.found.moves],
        "notes": list(report.notes),
    }


def _move(report: Report, move: Move) -> dict[str, Any]:
    mean, low, high, queries = move.difference
    data: dict[str, Any] = _rounded(
        {
            **asdict(move),
            "difference": mean,
            "low": low,
            "high": high,
            "queries": queries,
            "wins": [_change(report, move, change) for change in move.wins],
            "losses": [_change(report, move, change) for change in move.losses],
        }
    )
    return data


def _change(report: Report, move: Move, change: Change) -> dict[str, Any]:
    return {
        "query_id": change.query_id,
        "query": change.query,
        "a": change.a,
        "b": change.b,
        "labels": [change.labels_a, change.labels_b],
        "top": [
            [{"label": label, "title": title} for label, title in report.hits(side, move, change)]
            for side in (0, 1)
        ],
    }


def _rounded(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _rounded(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_rounded(value) for value in data]
    if isinstance(data, float):
        return rounded_or_none(data)
    return data
