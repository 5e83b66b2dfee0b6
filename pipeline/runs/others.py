"""The card of other engines' runs of a locale: which files they were, and what was counted."""

from pipeline.core import layout
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.param_types import Count, Name, Number, Sha256, Strict, Text
from pipeline.core.params import Params

OTHERS_SCHEMA = 1
"""Version of systems.json."""


class OtherRun(Strict):
    """A file and what was counted in it.

    `results` are kept; `results_cut` came after `retrieve.depth` of their query and are left out.
    `results_tied` have the score of the one before. `queries_without_results` of the sample score
    0. In `queries_against_rank` the ranks beside the scores give another order. `depth` is the most
    that a query has.
    """

    path: Text
    sha256: Sha256
    results: Count
    results_cut: Number
    results_tied: Number
    queries_without_results: Number
    queries_against_rank: Number
    depth: Count

    @property
    def of(self) -> dict[str, str]:
        """Return what the card of the run says that it was made of."""
        return {"path": self.path, "sha256": self.sha256}


class OtherRuns(Strict):
    """The runs of a locale, by the names of their engines."""

    systems_schema: int
    runs: dict[Name, OtherRun]


def read_others(params: Params, locale: str) -> dict[str, OtherRun]:
    """Read what was counted in the runs of other engines.

    Raises:
        PipelineError: the card is missing, is not of this form, names other engines or files than
            params.yaml does, or a run is not of the file that was counted.
    """
    if not params.systems[locale]:
        return {}
    # Here, because a card of runs needs Arrow, and the stage `systems` often writes none.
    from pipeline.runs.card import OTHERS, RUN_SCHEMA, RunCard

    path, remedy = layout.other_runs(locale).card, layout.rerun_hint(OTHERS, locale)
    found = read_model(path, OtherRuns, remedy, ("systems_schema", OTHERS_SCHEMA)).runs
    refuse_differences(
        path, {name: run.path for name, run in found.items()}, params.systems[locale],
        "the runs are of other files than params.yaml names", remedy,
    )  # fmt: skip
    for name, run in found.items():
        card = layout.runs(name, locale).card
        refuse_differences(
            card, read_model(card, RunCard, remedy, ("run_schema", RUN_SCHEMA)).of, run.of,
            "the run is of another file than the counts", remedy,
        )  # fmt: skip
    return found
