"""How the trained models that a locale uses were trained: their curves as one table."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.core import files, layout
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.systems import System
from pipeline.runs.card import rerun_hint

Row = tuple[str, str, float, str, float, int]
"""Kind and name of the model, epoch, measure, its value, 1 where the epoch was kept (else 0)."""

EPOCH_DECIMALS = 4
_PLACES = ("epoch", "step", "loss", "kept")  # the other columns are dev measures


def read_training(locale: str, encoder: str, reranker: str | None) -> list[Row]:
    """Return the curves of a locale's encoder and of its reranker, where they were trained here.

    Each is beside the runs that the model made. One that is not there gives no rows.

    Args:
        locale: the locale of the runs.
        encoder: the name of the encoder of the dense runs.
        reranker: that of the reranked runs; None without such runs.

    Raises:
        PipelineError: a curve is damaged, or is of an older version.
    """
    models: tuple[tuple[str, str | None, System], ...] = (
        ("encoder", encoder, "dense"),
        ("reranker", reranker, "rerank"),
    )
    return [
        row
        for kind, name, system in models
        if name is not None and (path := layout.runs(system, locale).curve).is_file()
        for row in _rows_of(kind, name, path, rerun_hint(system, locale))
    ]


def _rows_of(kind: str, name: str, path: Path, remedy: str) -> Iterator[Row]:
    """Yield the rows of a curve; its epochs as numbers that grow with the steps."""
    try:
        text = files.read_bytes(path, remedy).decode()
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
        measures = [column for column in rows[0] if column not in _PLACES]
        ends = {int(row["epoch"]): int(row["step"]) for row in rows if row[measures[0]]}
        for row in rows:
            last, step, kept = int(row["epoch"]), int(row["step"]), int(row["kept"])
            epoch = 0.0
            if last:
                epoch = last - (ends[last] - step) / (ends[last] - ends[last - 1])
            for measure in ("loss", *measures):
                if row[measure]:
                    value = float(row[measure])
                    if not math.isfinite(value):
                        raise ValueError(f"{measure} is {value}")
                    yield kind, name, round(epoch, EPOCH_DECIMALS), measure, value, kept
    except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError, csv.Error) as err:
        raise PipelineError(
            f"{path} is not the curve of a training ({type(err).__name__}: {one_line(err)}). "
            f"{remedy}"
        ) from err
