"""Curves of a locale as flat tables, for the page and `dvc plots`: CSV, one row per mark."""

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path

RECALL = ("system", "k", "recall")
TRAINING = ("kind", "model", "epoch", "measure", "value", "kept")


def write_recall(path: Path, curves: Mapping[str, Mapping[str, float]]) -> None:
    """Write the mean recall by system and k."""
    rows = (
        (system, k, recall)
        for system, of_system in curves.items()
        for k, recall in of_system.items()
    )
    _write(path, RECALL, rows)


def write_training(path: Path, rows: Iterable[tuple[object, ...]]) -> None:
    """Write what `training.read_training` returns."""
    _write(path, TRAINING, rows)


def _write(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)
