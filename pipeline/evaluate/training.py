"""How the trained models that a locale uses were trained: their curves as one table."""

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path

from pipeline.core import files, layout
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Params

Row = tuple[str, str, float, str, float, int]
"""Kind and name of the model, epoch, measure, its value, 1 where the epoch was kept (else 0)."""

EPOCH_DECIMALS = 4
_PLACES = ("epoch", "step", "loss", "kept")  # the other columns are dev measures


def read_training(params: Params, locale: str) -> list[Row]:
    """Return the curves of a locale's encoder and of its reranker, where they were trained here.

    The curve of an encoder is beside its weights; that of a reranker, beside the runs it made. One
    that is not there gives no rows.

    Raises:
        PipelineError: a curve is damaged, or is of an older version.
    """
    encoder, reranker = params.encoder[locale], params.rerank[locale]
    found = (
        ("encoder", encoder, layout.model("encoder", encoder).curve,
         layout.train_hint(encoder)),
        ("reranker", reranker, layout.runs("rerank", locale).curve,
         layout.rerun_hint("rerank", locale)),
    )  # fmt: skip
    return [
        row
        for kind, name, path, remedy in found
        if name in params.trained and path.is_file()
        for row in _rows_of(kind, name, path, remedy)
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
