"""The recipes of bench.training."""

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.training import (
    BASE,
    GUESSES,
    MEASURES,
    METRICS,
    RECIPES,
    Difference,
    Experiment,
    chosen,
    labels,
    table,
)  # fmt: skip
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import PARAMS_FILE, check_params
from pipeline.evaluate.uncertainty import Interval
from tests.helpers.artefacts import ROOT

pytestmark = pytest.mark.thorough


def load(path: Any) -> dict[str, Any]:
    data: dict[str, Any] = YAML(typ="safe", pure=True).load(path)
    return data


def test_every_recipe_and_experiment_is_legal_and_changes_something() -> None:
    recipes = load(RECIPES)
    data = load(ROOT / PARAMS_FILE)
    data["sample"]["splits"] = ["test"]
    data["trained"] = recipes["trained"]
    for name, experiment in chosen(recipes["experiments"], None).items():
        changed = json.loads(json.dumps(data))
        experiment.apply(changed)
        check_params(changed, name)
        assert (changed == data) == (name == BASE), name


def test_a_tuned_share_needs_no_training_of_its_own() -> None:
    recipes, data = load(RECIPES), load(ROOT / PARAMS_FILE)
    data["trained"] = recipes["trained"]
    plain = check_params(data, "").trained["us-even"]
    shares = []
    for experiment in chosen(recipes["experiments"], None).values():
        if experiment.tuned_share is not None:
            changed = json.loads(json.dumps(data))
            experiment.apply(changed)
            entry = check_params(changed, "").trained["us-even"]
            assert entry.of_training() == plain.of_training()
            shares.append(entry.of_weights().get("tuned_share"))
    assert shares == [0.5, 0.7]


def test_what_an_experiment_is_compared_with_is_run_too_and_first() -> None:
    given = {"a": {"locales": ["us"]}, "b": {"locales": ["us"], "against": "a"}}
    assert list(chosen(given, ["b"])) == [BASE, "a", "b"]


def test_an_unknown_experiment_is_refused() -> None:
    with pytest.raises(PipelineError, match="--only c: no such experiment"):
        chosen({"a": {"locales": ["us"]}}, ["c"])


def test_differences_of_one_table_are_adjusted_together() -> None:
    def of(row: str, p: float) -> Difference:
        return Difference(row, "us", MEASURES[0], 0.5, Interval(0.1, 0.05, 0.15, 9), p)

    sure = "| a | us | 9 | 0.5000, +0.1000 [+0.0500, +0.1500]* |"
    assert sure in table([of("a", 0.04)], 0.05)
    assert sure not in table([of("a", 0.04), of("b", 0.5)], 0.05)


def test_the_labels_of_a_reranker_are_a_row_for_each_guess(tmp_path: Path) -> None:
    scores = {
        f"{prefix}{kind}_f1": place / 10
        for place, prefix in enumerate(GUESSES.values())
        for kind in ("macro", "micro")
    }
    path = tmp_path / "results/mine" / METRICS / "us.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"labels": scores}))
    assert list(labels(tmp_path, "mine", "us")) == [
        ["mine", "us", guess, f"{place / 10:.4f}", f"{place / 10:.4f}"]
        for place, guess in enumerate(GUESSES)
    ]


def test_an_experiment_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="Extra inputs"):
        Experiment.model_validate({"locales": ["us"], "encoders": "x"})
