"""A reranker in one locale is seen in the comparison that people are told to run."""

import re
from pathlib import Path

import numpy as np
import pytest

from pipeline.compare import command, differences
from pipeline.compare.differences import Comparison
from pipeline.compare.display import Report, markdown, terminal
from pipeline.compare.plain_data import as_json
from pipeline.compare.revision import Revision
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError
from pipeline.core.params import Compare
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT, params
from tests.helpers.comparisons import DRAWS, SETTINGS

Values = dict[str, Floats]


def reranked(values: Values, by: Floats | float, run: str = "hybrid") -> Values:
    """Return values with those of a reranker: of each measure, those of a run and `by` more."""
    own = {
        f"rerank.{name.partition('.')[2]}": np.minimum(np.round(each + by, 5), 1)
        for name, each in values.items()
        if name.startswith(f"{run}.")
    }
    return values | own


def compared(
    a: dict[str, Values],
    b: dict[str, Values],
    settings: Compare = SETTINGS,
    runs: tuple[str, str] = ("hybrid", "hybrid"),
) -> Comparison:
    old, new = (
        {locale: comparisons.side(values, locale) for locale, values in each.items()}
        for each in (a, b)
    )
    return differences.compare(old, new, ("main", "branch"), settings, DRAWS, 2, runs)


def asking(*metrics: str) -> Compare:
    return SETTINGS.model_copy(update={"metrics": metrics})


@pytest.fixture
def without() -> dict[str, Values]:
    rng = np.random.default_rng(1)
    return {locale: comparisons.measures(rng, 60) for locale in ("us", "es")}


@pytest.fixture
def with_one(without: dict[str, Values]) -> dict[str, Values]:
    by = np.random.default_rng(2).uniform(0, 0.2, 60)
    return without | {"us": reranked(without["us"], by)}


def test_a_reranker_on_one_side_alone_is_compared_with_the_run_that_it_reorders(
    without: dict[str, Values], with_one: dict[str, Values]
) -> None:
    gain = np.nanmean(with_one["us"]["rerank.ndcg@10"] - without["us"]["hybrid.ndcg@10"])
    for a, b, systems, sign in (
        (without, with_one, ("hybrid", "rerank"), 1),
        (with_one, without, ("rerank", "hybrid"), -1),
    ):
        found = compared(a, b)
        assert len(found.moves) == 1 + 2 * len(SETTINGS.metrics)
        (move,) = (move for move in found.moves if not move.equal)
        assert (move.locale, move.systems) == ("us", systems)
        assert move.name == f"{systems[0]} → {systems[1]}.ndcg@10"
        assert move.difference.mean == pytest.approx(sign * gain)
        assert move.significant
        assert move.refused is (sign < 0)
        assert move.holes is not None
        (change, *_) = move.wins if sign > 0 else move.losses
        labels = change.labels_a if systems[0] == "hybrid" else change.labels_b
        assert labels == "ESC?I", "those of hybrid"
        assert found.notes == ()


def test_rerankers_on_both_sides_are_compared_with_each_other(with_one: dict[str, Values]) -> None:
    better = {**with_one, "us": reranked(with_one["us"], 0.3)}
    (move,) = (move for move in compared(with_one, better).moves if not move.equal)
    assert (move.name, move.systems) == ("rerank.ndcg@10", ("rerank", "rerank"))
    assert move.difference.mean < 0.3, "hybrid is not what is compared with"


def test_a_reranker_that_is_dropped_is_compared_with_what_it_reordered(
    without: dict[str, Values], with_one: dict[str, Values]
) -> None:
    found = compared(with_one, without, runs=("hybrid", "bm25"))
    (move,) = (move for move in found.moves if not move.equal)
    assert (move.systems, move.refused) == (("rerank", "hybrid"), True)


def test_the_measures_are_those_that_compare_metrics_names_of_the_run(
    without: dict[str, Values],
) -> None:
    new = without | {"us": reranked(without["us"], 0.1, "dense")}
    found = compared(without, new, runs=("hybrid", "dense"))
    assert [move.name for move in found.moves if not move.equal] == [
        "dense → rerank.ndcg@10", "dense → rerank.recall@100",
    ]  # fmt: skip
    found = compared(without, new, asking("hybrid.ndcg@10"), runs=("dense", "dense"))
    assert all(move.equal for move in found.moves)
    assert found.notes == (
        "us: rerank is not compared, since compare.metrics has no measure of dense, which it "
        "reorders",
    )


def test_a_measure_of_rerank_in_compare_metrics_is_compared_once(
    without: dict[str, Values], with_one: dict[str, Values]
) -> None:
    a, b = ({"us": each["us"]} for each in (without, with_one))
    for metrics in (("rerank.ndcg@10",), ("hybrid.ndcg@10", "rerank.ndcg@10")):
        found = compared(a, b, asking(*metrics))
        assert [move.metric for move in found.moves] == list(metrics)
        assert found.notes == ()
    with pytest.raises(PipelineError, match=r"us of branch has no 'rerank\.ndcg@10'"):
        compared(a, a, asking("rerank.ndcg@10"))


def test_what_either_side_found_is_shown_of_its_own_system(
    without: dict[str, Values], with_one: dict[str, Values]
) -> None:
    found = compared(without, with_one)
    (move,) = (move for move in found.moves if not move.equal)
    report = Report(
        a="main",
        b="branch",
        revisions=(("main", None), ("branch", None)),
        found=found,
        thresholds=SETTINGS,
        confidence=0.95,
        chosen={},
        settings={},
        titles={
            (side, "us"): {
                (change.query_id, system): [("E", f"{name} by {system}")]
                for change in move.wins
                for system in ("hybrid", "rerank")
            }
            for side, name in enumerate(("old", "new"))
        },
        notes=(),
    )
    shown = terminal(report)
    assert "us hybrid → rerank.ndcg@10: the largest wins" in shown
    assert re.search(r"A  E old by hybrid\n    B  E new by rerank\n", shown)
    assert "| us | hybrid → rerank.ndcg@10 |" in markdown(report)
    assert as_json(report)["moves"][3]["systems"] == ("hybrid", "rerank")


@pytest.mark.parametrize(("said", "run"), [("dense", "dense"), ("bm26", "hybrid")])
def test_the_run_is_the_one_that_the_new_side_names_or_that_of_params_yaml(
    tmp_path: Path, said: str, run: str
) -> None:
    values = comparisons.measures(np.random.default_rng(3), 60)
    settings = (ROOT / "params.yaml").read_text(encoding="utf-8")
    for name, of_side in (("a", values), ("b", reranked(values, 0.1, run))):
        rows = comparisons.table(of_side, "es", "e5-small-q4")
        comparisons.write_reports(tmp_path / name, "es", rows)
        text = settings.replace("  run: hybrid\n", f"  run: {said if name == 'b' else 'bm25'}\n")
        (tmp_path / name / "params.yaml").write_text(text, encoding="utf-8")
    given = params({"compare.metrics": ["dense.ndcg@10", "hybrid.ndcg@10"]})
    a, b = (Revision(name, tmp_path / name) for name in ("a", "b"))
    found = command.compare(given, a, b, queries=0).found
    assert [move.name for move in found.moves][2:] == [f"{run} → rerank.ndcg@10"]
