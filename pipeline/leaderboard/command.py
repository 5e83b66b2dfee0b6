"""Rank all encoders and systems that the branches, tags and experiments here were evaluated with.

It reads params.yaml and reports/ of each revision, which are in Git, and needs no data. Each sample
has a table of its own.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline import git
from pipeline.compare.revision import WORKSPACE, Revision, find_stale
from pipeline.compare.settings import ABSENT, Settings
from pipeline.compare.sides import Side
from pipeline.core import files, layout, options, stage
from pipeline.core.errors import PipelineError
from pipeline.core.params import ENCODER, ENCODER_MEASURES, Params
from pipeline.core.params_file import load_params
from pipeline.evaluate.per_query import Sample
from pipeline.leaderboard import board, display
from pipeline.leaderboard.board import Board
from pipeline.leaderboard.recorded import read_means
from pipeline.leaderboard.speed import TIMED, Speed, network_of, read_machines, read_speed


@dataclass(frozen=True)
class Held:
    """What one revision holds; `machines` is what `read_machines` returns, by locale."""

    name: str
    sides: Mapping[str, Side]
    settings: Settings
    speeds: Mapping[str, Speed]
    machines: Mapping[str, Mapping[str, str]]
    means: Mapping[str, Mapping[str, float]]


def rank_revisions(
    params: Params, names: Sequence[str], measure: str, samples: int | None = None
) -> tuple[list[Board], list[str]]:
    """Return a board per locale and sample, and a line for all that is not on one.

    Args:
        params: the workspace's parameters: draws, level and order of locales.
        names: revisions; empty: the workspace and all branches, tags and experiments.
        measure: what ranks the entries, such as ndcg@10.
        samples: how many draws; None: those of `params`, or as many as so many entries need.

    Raises:
        PipelineError: a named revision cannot be read, none has the measure, or `samples` are too
            few draws for so many entries.
    """
    held, notes = _read_all(params, names)
    held, elsewhere = on_one_machine(held)
    notes += elsewhere
    shown = _differing([each.settings for each in held])
    entries = board.merge_equal(
        entry
        for each in held
        for entry in board.entries_of(
            each.name,
            each.sides,
            dict.fromkeys(shown, ABSENT) | each.settings,
            each.speeds,
            each.means,
        )
    )
    entries = board.show_settings(entries, shown)
    known = sorted({name for entry in entries for name in entry.measures})
    if measure not in known:
        raise PipelineError(
            f"--measure {measure}: no revision has it for each query (they have: "
            f"{', '.join(known) or 'none'}). Name one of these, or run `dvc repro`."
        )
    draws, alpha = params.uncertainty, params.compare.alpha
    if samples is None:
        # Twice what is needed: an entry that one draw of chance matches may still be surely worse.
        pairs = board.most_pairs(entries, measure)
        samples = max(draws.samples, math.ceil(2 * pairs / alpha))
        if samples > draws.samples:
            notes.append(f"{samples:,} draws, since the largest table has {pairs:,} pairs")
    draws = draws.model_copy(update={"samples": samples})
    boards = board.rank_entries(entries, measure, draws, alpha)
    if measure not in ENCODER_MEASURES and any(each.system == ENCODER for each in entries):
        notes.append("the encoders by themselves: --measure map, spearman or ap_e_vs_sci")
    return boards, notes


def _read_all(params: Params, names: Sequence[str]) -> tuple[list[Held], list[str]]:
    """Read the revisions; those that were found and not named are skipped with a note if unfit."""
    found, notes, without = [], [], []
    for spec, name in _revisions(names):
        try:
            revision = Revision(spec)
            one = _read(params, revision, name)
        except PipelineError as err:
            if names:
                raise
            without.append(name)
            notes.append(f"left out: {err}")
            continue
        found.append(one)
        notes += find_stale(revision, one.sides, one.settings)
    if len(without) > 3:  # such as all commits before the first run
        notes = [note for note in notes if not note.startswith("left out: ")]
        notes.append(
            f"left out: {len(without)} revisions without numbers that can be read here, such as "
            f"{', '.join(without[:3])}; name one to see why"
        )
    return found, notes


def _revisions(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield what each revision is found by, and what it is called."""
    if names:
        yield from ((name, name) for name in dict.fromkeys(names))
        return
    Revision(WORKSPACE)  # outside a repository, its message says what to do
    yield WORKSPACE, WORKSPACE
    for commit, called in git.list_commits().items():
        yield commit, called[-1] if called[0] == "HEAD" else called[0]


def _read(params: Params, revision: Revision, name: str) -> Held:
    settings = revision.settings()
    locales = [each for each in revision.locales(params.locales) if f"encoder.{each}" in settings]
    sides = revision.sides(locales)
    bench = revision.find(layout.ENCODE_BENCH)
    tradeoffs = {locale: revision.find(layout.tradeoff(locale)) for locale in sides}
    speeds = {
        locale: read_speed(
            bench, tradeoffs[locale], side.card, network_of(settings, side.card.encoder), settings
        )
        for locale, side in sides.items()
    }
    machines = {locale: read_machines(bench, each) for locale, each in tradeoffs.items()}
    means = {
        locale: read_means(
            side,
            revision.find(layout.metrics(locale)),
            revision.find(layout.encoder_scores(locale)),
        )
        for locale, side in sides.items()
    }
    return Held(name, sides, settings, speeds, machines, means)


def on_one_machine(held: Sequence[Held]) -> tuple[list[Held], list[str]]:
    """Leave out the times of other machines than a board's first: one column is of one machine.

    Returns:
        The revisions, and lines that say whose times are left out.
    """
    first: dict[tuple[Sample, str], str] = {}
    elsewhere: dict[tuple[Sample, str, str], list[str]] = {}
    kept = []
    for each in held:
        speeds = dict(each.speeds)
        for locale, name in itertools.product(each.speeds, TIMED):
            machine, sample = each.machines[locale][name], each.sides[locale].card.sample
            if getattr(speeds[locale], name) is None:
                continue
            if machine != first.setdefault((sample, name), machine):
                speeds[locale] = replace(speeds[locale], **{name: None})
                elsewhere.setdefault((sample, name, machine), []).append(each.name)
        kept.append(replace(each, speeds=speeds))
    lines = (
        f"{TIMED[name]} of {display.list_revisions(names)} is left out: measured on {machine}, but "
        f"that of other rows on {first[sample, name]}"
        for (sample, name, machine), names in elsewhere.items()
    )
    return kept, list(dict.fromkeys(lines))


def _differing(settings: Sequence[Settings]) -> list[str]:
    """Return the keys that not all revisions set alike."""
    keys = dict.fromkeys(key for each in settings for key in each)
    return [key for key in keys if len({each.get(key) for each in settings}) > 1]


def main() -> int:
    """Rank, write what was asked for, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.leaderboard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "revisions", nargs="*", metavar="REVISION",
        help="Git revisions, experiments or workspace (default: workspace and all there are)",
    )  # fmt: skip
    parser.add_argument(
        "--measure", default="ndcg@10", help="what ranks the entries (default: ndcg@10)"
    )
    parser.add_argument(
        "--samples", type=options.number_of_draws, metavar="N",
        help="draws of intervals and tests (default: uncertainty.samples of params.yaml, or more "
        "where so many entries need them)",
    )  # fmt: skip
    for kind in ("markdown", "csv", "json"):
        parser.add_argument(f"--{kind}", type=Path, metavar="FILE", help=f"write it as {kind} too")
    arguments = parser.parse_args()
    with stage.report_errors("leaderboard") as outcome:
        named = {f"--{kind}": getattr(arguments, kind) for kind in ("markdown", "csv", "json")}
        git.refuse_project_files(named)
        params = load_params()
        boards, notes = rank_revisions(
            params, arguments.revisions, arguments.measure, arguments.samples
        )
        shown = display.Shown(boards, notes, arguments.measure, params.uncertainty.confidence)
        for kind, write in (("markdown", display.markdown), ("csv", display.csv_text)):
            if path := getattr(arguments, kind):
                files.write_text(path, write(shown), follow_links=True)
        if arguments.json:
            files.write_json(arguments.json, display.as_json(shown), follow_links=True)
        sys.stdout.write(display.terminal(shown))
    return outcome.status
