"""The numbers of a locale as flat tables for `dvc plots`: CSV, one row per mark.

Names come from the source's texts. A spreadsheet takes a cell that begins with =, +, - or @ for a
formula, and some drop a tab or line break before it: an apostrophe goes before such a text, which
spreadsheets read as "this is text" (https://owasp.org/www-community/attacks/CSV_Injection).
"""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Means = Mapping[str, Mapping[str, float]]
ENDS = ("mean", "low", "high")

TRAINING = ("kind", "model", "epoch", "measure", "value", "kept")

FORMULAS = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""What a formula begins with, in either width."""


def write_recall(path: Path, curves: Means) -> None:
    """Write system,k,recall, from the mean recall by system and k."""
    _write(path, ("system", "k", "recall"), _flat(curves))


def write_labels(path: Path, top10: Means) -> None:
    """Write system,label,share, from the share of each label in the first places, by system."""
    _write(path, ("system", "label", "share"), _flat(top10))


def write_intervals(path: Path, intervals: Mapping[str, Means]) -> None:
    """Write system,measure,mean,low,high,queries, from intervals by system and measure."""
    columns = (*ENDS, "queries")
    rows = (
        (system, measure, *(each[name] for name in columns))
        for system, of_system in intervals.items()
        for measure, each in of_system.items()
    )
    _write(path, ("system", "measure", *columns), rows)


def write_slices(path: Path, slices: Iterable[Mapping[str, Any]]) -> None:
    """Write slice,value,system,queries,mean,low,high, from what `slices.measure` returns."""
    rows = (
        (each["slice"], each["value"], system, each["queries"], *(ends[name] for name in ENDS))
        for each in slices
        for system, ends in each["systems"].items()
    )
    _write(path, ("slice", "value", "system", "queries", *ENDS), rows)


def write_training(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Write kind,model,epoch,measure,value,kept, from what `training.read_training` returns."""
    _write(path, TRAINING, rows)


def _flat(numbers: Means) -> Iterable[tuple[str, str, float]]:
    return (
        (system, name, number)
        for system, of_system in numbers.items()
        for name, number in of_system.items()
    )


def _write(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows([as_text(cell) for cell in row] for row in rows)


def as_text(cell: object) -> object:
    """Return a cell of a CSV file; a text that could run as a formula gets an apostrophe."""
    if isinstance(cell, str) and (
        cell.startswith(("\t", "\r", "\n")) or cell.lstrip().startswith(FORMULAS)
    ):
        return f"'{cell}"
    return cell
