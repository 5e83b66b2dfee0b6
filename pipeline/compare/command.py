"""Compare two revisions, each a Git revision, a DVC experiment or `workspace`.

It reads params.yaml and reports/per_query of both, which are in Git, and needs no data. Titles come
from the workspace, or from DVC's cache or remote.

Exit status 3: a metric fell by more than params.yaml allows. 1: the revisions cannot be compared.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pipeline import git
from pipeline.compare import differences, display, plain_data
from pipeline.compare.display import Report, Titles
from pipeline.compare.revision import Revision, find_stale
from pipeline.compare.settings import ABSENT, Settings
from pipeline.compare.sides import Side
from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import SECTIONS_OF_A_LOCALE, Params
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS

REFUSED = 3

Sides = Mapping[str, Side]


def compare(
    params: Params, a: Revision, b: Revision, queries: int, with_titles: bool = True
) -> Report:
    """Compare two revisions by the metrics and thresholds of the workspace's params.yaml.

    A side's locales are those that its own params.yaml names: tables of a locale that it dropped
    may stay in Git for ever.

    Args:
        params: the workspace's parameters.
        a: the old side.
        b: the new one.
        queries: how many of the largest wins, and of the largest losses, are kept per metric.
        with_titles: whether the titles of what these queries find are looked up.

    Raises:
        PipelineError: the two cannot be compared.
    """
    before, after = a.settings(), b.settings()
    held = a.locales(params.locales), b.locales(params.locales)
    _check_none_vanished(held, after, str(b))
    one, other = (
        revision.sides([locale for locale in has if f"encoder.{locale}" in settings])
        for revision, has, settings in zip((a, b), held, (before, after), strict=True)
    )
    found = differences.compare(
        one, other, (str(a), str(b)), params.compare, params.uncertainty, queries,
        (_reordered(params, before), _reordered(params, after)),
    )  # fmt: skip
    titles, without = _titles(found, (a, one), (b, other)) if with_titles else ({}, [])
    changed = _changed(before, after)
    return Report(
        a=str(a),
        b=str(b),
        revisions=((a.name, a.commit), (b.name, b.commit)),
        found=found,
        thresholds=params.compare,
        confidence=params.uncertainty.confidence,
        chosen={
            locale: (one[locale].chosen, other[locale].chosen) for locale in one if locale in other
        },
        settings=changed,
        titles=titles,
        notes=(
            *found.notes,
            *_loosened(changed),
            *find_stale(a, one, before),
            *find_stale(b, other, after),
            *_unmeasured(a, held[0], before),
            *_unmeasured(b, held[1], after),
            *without,
        ),
    )


def _reordered(params: Params, settings: Settings) -> str:
    """Return the run that a revision's rerankers reorder: the workspace's if it names none."""
    said = settings.get("reranking.run")
    return said if said in FIRST_SYSTEMS else params.reranking.run


def _unmeasured(revision: Revision, held: Sequence[str], settings: Settings) -> Iterator[str]:
    """Say which locales a revision names and has no numbers of."""
    for key in settings:
        section, _, locale = key.partition(".")
        if section == "encoder" and locale not in held:
            yield (
                f"{revision} names {locale} under encoder, but has no numbers of it: run "
                "`dvc repro` there and commit reports/"
            )


def _check_none_vanished(held: tuple[list[str], list[str]], settings: Settings, name: str) -> None:
    """Raise a `PipelineError` if B lost the numbers of a locale that it still has.

    A fall of its metrics would go unnoticed. Dropping it from params.yaml is a decision.
    """
    gone = [
        locale for locale in held[0] if locale not in held[1] and f"encoder.{locale}" in settings
    ]
    if gone:
        listed, tables = ", ".join(gone), ", ".join(map(str, map(layout.per_query, gone)))
        raise PipelineError(
            f"{name} has no numbers of {listed}, though its params.yaml names {listed} under "
            f"encoder (missing: {tables}). Run `dvc repro` there and commit reports/, or drop "
            f"{listed} from {SECTIONS_OF_A_LOCALE}."
        )


def _changed(before: Settings, after: Settings) -> dict[str, tuple[str, str]]:
    """Return the values of every setting that differs, in order of A's keys, then of B's."""
    return {
        key: (before.get(key, ABSENT), after.get(key, ABSENT))
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    }


def _loosened(changed: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """Say how the rules of the comparison differ, which many other settings might hide."""
    for key, (old, new) in changed.items():
        if key.startswith(("compare.", "uncertainty.")):
            yield f"the comparison's own settings differ: {key} is {old} in A, {new} in B"


def _titles(
    found: differences.Comparison, *sides: tuple[Revision, Sides]
) -> tuple[Titles, list[str]]:
    """Return the products that changed queries find on either side, and a line for missing titles.

    A locale without changed queries is not looked up.
    """
    titles: Titles = {}
    absent = []
    for number, (revision, held) in enumerate(sides):
        for locale in dict.fromkeys(move.locale for move in found.moves):
            queries = {
                change.query_id
                for move in found.moves
                if move.locale == locale
                for change in (*move.wins, *move.losses)
            }
            top = revision.top(locale, queries, held[locale].card.top_sha256) if queries else {}
            if top is None:
                absent.append(f"{locale} of {revision}")
            else:
                titles[number, locale] = top
    if not absent:
        return titles, []
    return titles, [
        f"no titles for {', '.join(absent)}, or not those of these numbers (try `dvc pull`): "
        "labels are shown instead"
    ]


def main() -> int:
    """Compare, write what was asked for, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("a", help="the old side: a Git revision, an experiment, or workspace")
    parser.add_argument("b", help="the new side")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write it as markdown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write it as JSON")
    parser.add_argument(
        "--queries", type=_count, default=5, metavar="N",
        help="how many of the largest wins and losses are shown (default: 5)",
    )  # fmt: skip
    arguments = parser.parse_args()
    with stage.report_errors("compare") as outcome:
        named = {"--markdown": arguments.markdown, "--json": arguments.json}
        git.refuse_project_files(named)
        report = compare(
            load_params(), Revision(arguments.a), Revision(arguments.b), arguments.queries
        )
        if arguments.markdown:
            text = display.markdown(report)
            files.write_text(arguments.markdown, text, follow_links=True)
        if arguments.json:
            files.write_json(arguments.json, plain_data.as_json(report), follow_links=True)
        sys.stdout.write(display.terminal(report))
        if report.found.refused:
            log.error("refused: %s", display.refusal(report))
            outcome.status = REFUSED
    return outcome.status


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of queries")
    return int(text)
