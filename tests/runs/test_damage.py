# ruff: noqa: S311 - damage needs no cryptography
"""Runs and cards that are damaged at random: the same rankings, or one message with the command."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs
from tests.helpers.artefacts import LOCALE, write_clean
from tests.helpers.damage import cut, flip, overwrite
from tests.helpers.run_files import random_run, write_given_runs

TRIES = 20
HINT = "Run `dvc repro retrieve@es`."
RUNS = layout.runs("dense", LOCALE)
STRANGE: tuple[Any, ...] = (None, True, -1, 0, 1.5, "", "x", [], {}, 10**18, "0" * 64)


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Clean tables and runs in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(2), 50, 30)
    found = read_inputs(LOCALE)
    write_given_runs("dense", found, random_run(np.random.default_rng(3), 30, 50, most=12))
    return found


def read_runs(inputs: Inputs, card: bool) -> Any:
    """Read both runs, with their card or without; the message where that fails."""
    try:
        read: list[Any] = []
        if card:
            found = run_card.read_card(RUNS, "dense", inputs.queries, inputs.products, HINT)
            read.append(found.model_dump(exclude={"of", "depth", "index_overlap"}))
        for track in ("catalogue", "pool"):
            pieces = run_files.iter_run(RUNS.track(track), inputs, 7, HINT)
            read += [[column.tolist() for column in piece] for _, piece in pieces]
    except PipelineError as err:
        message = str(err)
        assert "\n" not in message
        assert message.endswith(HINT), message
        return message
    return read


@pytest.mark.parametrize("card", [True, False])
@pytest.mark.parametrize("damage", [flip, cut, overwrite])
@pytest.mark.parametrize("path", [RUNS.catalogue, RUNS.pool, RUNS.card], ids=str)
def test_damaged_bytes_change_no_ranking_and_a_message_names_the_damaged_run(
    inputs: Inputs, path: Path, damage: Callable[[bytes, random.Random], bytes], card: bool
) -> None:
    whole, data = read_runs(inputs, card), path.read_bytes()
    for seed in range(TRIES):
        path.write_bytes(damage(data, random.Random(seed)))
        found = read_runs(inputs, card)
        assert isinstance(found, str) or found == whole, seed
        if path != RUNS.card and (card or isinstance(found, str)):
            assert found.startswith(str(path)), (seed, found)


def test_a_strange_value_in_a_card_is_refused(inputs: Inputs) -> None:
    whole, data = read_runs(inputs, card=True), json.loads(RUNS.card.read_text())
    for key in data:
        without = {name: value for name, value in data.items() if name != key}
        for changed in (without, *({**data, key: value} for value in STRANGE)):
            RUNS.card.write_text(json.dumps(changed))
            found = read_runs(inputs, card=True)
            assert isinstance(found, str) or found == whole, (key, changed.get(key))
