"""Models that were trained here: whether they are those of params.yaml, and their curves."""

import shutil
from pathlib import Path
from typing import Any

from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.param_types import Part
from pipeline.core.params import Params


class _Card(Part):
    """The part of a trained model's card that is compared."""

    settings: dict[str, Any]


def refuse_other_settings(params: Params, name: str) -> None:
    """Check that a model under `trained`, and its bases, were trained with these settings.

    `dimension` and `precision` may be others: they change no weights. A name that is not under
    `trained` passes.

    Raises:
        PipelineError: a card is missing or damaged, or a setting differs.
    """
    for each in params.trained_for([name]):
        trained = params.trained[each]
        path = layout.model(trained.kind, each).card
        remedy = layout.train_hint(each)
        found = read_model(path, _Card, remedy).settings
        why = "the model was trained with other settings"
        refuse_differences(path, found, trained.of_weights(), why, remedy)


def copy_curve(params: Params, name: str, path: Path) -> None:
    """Copy the curve of a model under `trained` to `path`; of another model there is none."""
    if name in params.trained:
        curve = layout.model(params.trained[name].kind, name).curve
        if curve.is_file():
            shutil.copyfile(curve, path)
