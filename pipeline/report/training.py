"""How the trained models in use were trained, as the tables of evaluate say it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv

from pipeline.core import files, layout
from pipeline.core.errors import PipelineError, one_line

LOSS = "loss"
_FORM = pa.schema(
    [("kind", pa.string()), ("model", pa.string()), ("epoch", pa.float64()),
     ("measure", pa.string()), ("value", pa.float64()), ("kept", pa.int64())]
)  # fmt: skip
_KINDS = ("encoder", "reranker")

Curve = tuple[tuple[float, float], ...]
"""Epochs and values, by epoch; the base is epoch 0."""


@dataclass(frozen=True)
class Training:
    """The curves of a trained model.

    Attributes:
        kind: encoder or reranker.
        model: its name.
        curves: loss and dev measures, the one that chose the epoch first among these.
        kept: the epoch whose weights are the model.
    """

    kind: str
    model: str
    curves: tuple[tuple[str, Curve], ...]
    kept: int

    @property
    def losses(self) -> Curve:
        """The mean loss since the point before."""
        return dict(self.curves).get(LOSS, ())

    @property
    def dev(self) -> Mapping[str, Mapping[int, float]]:
        """Each dev measure by epoch."""
        return {
            name: {round(epoch): value for epoch, value in curve}
            for name, curve in self.curves
            if name != LOSS
        }

    @property
    def chooses(self) -> str:
        """The dev measure that chose the epoch."""
        return next(iter(self.dev))


def read_training(locale: str, remedy: str) -> tuple[Training, ...]:
    """Read how the trained models of a locale were trained; nothing where it uses none.

    Raises:
        PipelineError: the table is missing, damaged or of another form.
    """
    path = layout.training_plot(locale)
    data = pa.BufferReader(files.read_bytes(path, remedy))
    try:
        options = pyarrow.csv.ConvertOptions(column_types=_FORM)
        table = pyarrow.csv.read_csv(data, convert_options=options).select(_FORM.names)
        rows = table.cast(_FORM).to_pylist()
        models = dict.fromkeys((row["kind"], row["model"]) for row in rows)
        return tuple(
            _training(*key, [row for row in rows if (row["kind"], row["model"]) == key])
            for key in models
        )
    except (pa.ArrowException, KeyError, ValueError, TypeError) as err:
        raise PipelineError(
            f"{path} is not a table of trainings ({one_line(err)}). {remedy}"
        ) from err


def _training(kind: str, model: str, rows: Sequence[Mapping[str, Any]]) -> Training:
    """Return the training that some rows are of; raise ValueError or TypeError where none is."""
    curves: dict[str, list[tuple[float, float]]] = {}
    kept = set()
    for row in rows:
        epoch, value, measure = float(row["epoch"]), float(row["value"]), str(row["measure"])
        dev = measure != LOSS
        if not (math.isfinite(epoch) and math.isfinite(value) and epoch >= 0):
            raise ValueError(f"epoch {epoch}, {measure} {value}")
        if dev and not (0 <= value <= 1 and epoch == round(epoch)):
            raise ValueError(f"{measure} {value} in epoch {epoch}")
        if dev and row["kept"]:
            kept.add(round(epoch))
        curves.setdefault(measure, []).append((epoch, value))
    measures = [name for name in curves if name != LOSS]
    epochs = {tuple(epoch for epoch, _ in curves[name]) for name in measures}
    if kind not in _KINDS:
        raise ValueError(f"{model} is of the kind {kind}")
    if len(kept - {0}) != 1 or not curves.get(LOSS):
        raise ValueError(f"{model} has no loss, or not one epoch that was kept")
    if len(epochs) != 1 or epochs != {tuple(map(float, range(len(curves[measures[0]]))))}:
        raise ValueError(f"{model} lacks a dev measure of an epoch")
    return Training(
        kind, model, tuple((name, tuple(sorted(curve))) for name, curve in curves.items()),
        kept.pop(),
    )  # fmt: skip


def users(trainings: Mapping[str, Sequence[Training]]) -> dict[Training, list[str]]:
    """Return each training once, with the locales that use its model."""
    found: dict[Training, list[str]] = {}
    for locale, of_locale in trainings.items():
        for each in of_locale:
            found.setdefault(each, []).append(locale)
    return found
