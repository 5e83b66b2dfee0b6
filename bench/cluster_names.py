"""Sheets to judge the names of clusters by, and the result.

    python -m bench.cluster_names [--groups 50] [--seed 17] [--before FOLDER]
    python -m bench.cluster_names --judged SHEET

The first prints groups with titles and names, for a reader, and the second counts his verdicts. A
group is a cluster, or a leaf of a cluster with several. The seed draws as many in each locale under
`explore`, and seven random titles of each. `--before` is a folder with earlier reports of the
same clusters, named <locale>.json: then each group has both names, in an order that the seed draws
and the sheet does not say.

The reader writes a verdict after each name: y if the name says what most of the titles are (each
word may name a part of them), n if it does not. A group without a name has `-`, which is counted
apart. With the same seed and folder, the second command knows whose name is which.
"""

import argparse
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.clusters.form import CLUSTERS
from pipeline.core import layout, stage, tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.evaluate.product_fields import iter_fields

TITLES, CHARACTERS = 7, 110
COLUMNS = ("locale", "names", "groups", "without a name", "right", "wrong", "right of named")
_VERDICT = re.compile(r"^name (\d+)([ab]): .*\[([yn-])\]$")


@dataclass(frozen=True)
class Item:
    """A group on the sheet: its titles, and its names by who gave them, in the order shown."""

    locale: str
    titles: list[str]
    names: list[tuple[str, str]]


def main() -> int:
    """Print a sheet, or count a judged one; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.cluster_names",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--groups", type=int, default=50, help="how many (50)")
    parser.add_argument("--seed", type=int, default=17, help="decides the groups and titles (17)")
    parser.add_argument("--before", type=Path, help="a folder of earlier reports")
    parser.add_argument("--judged", type=Path, help="a sheet with verdicts")
    asked = parser.parse_args()
    with stage.report_errors("cluster_names") as outcome:
        params = load_params()
        if not params.explore:
            raise PipelineError("explore: lists no locale. Name some, and run `make repro`.")
        items = draw_items(params, asked.groups, asked.seed, asked.before)
        sys.stdout.write(count(items, asked.judged) if asked.judged else sheet(items))
    return outcome.status


def draw_items(params: Params, groups: int, seed: int, before: Path | None) -> list[Item]:
    """Return the groups of a sheet."""
    rng = np.random.default_rng(seed)
    drawn = []
    for number, locale in enumerate(params.explore):
        found = _groups(params, locale, before, rng)
        wanted = len(range(number, groups, len(params.explore)))
        places = rng.choice(len(found), min(wanted, len(found)), replace=False)
        drawn += [found[place] for place in np.sort(places).tolist()]
    return drawn


def _groups(
    params: Params, locale: str, before: Path | None, rng: np.random.Generator
) -> list[Item]:
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    batches = iter_fields(path, params.clean, [], remedy, title_characters=CHARACTERS)
    titles = [title for batch in batches for title in batch.titles]
    path, remedy = layout.clusters(locale).clusters, layout.rerun_hint("clusters", locale)
    table = tables.read_table(path, CLUSTERS, remedy)
    sources = {"now": layout.clusters_report(locale)}
    if before is not None:
        sources["before"] = before / f"{locale}.json"
    named = {source: _names(path) for source, path in sources.items()}
    items = []
    for level, number in named["now"]:
        rows: Ints = np.flatnonzero(table[level].to_numpy() == number)
        shown = [titles[row] for row in rng.permutation(rows)[:TITLES].tolist()]
        order = rng.permutation(list(named))
        items.append(
            Item(locale, shown, [(source, named[source][level, number]) for source in order])
        )
    return items


def _names(path: Path) -> dict[tuple[str, int], str]:
    """Return the name of each cluster, and of each leaf of a cluster with several."""
    found = {}
    for group in json.loads(path.read_text(encoding="utf-8"))["groups"]:
        found["cluster", group["cluster"]] = " · ".join(group["name"])
        if len(group["leaves"]) > 1:
            found |= {("leaf", leaf["leaf"]): " · ".join(leaf["name"]) for leaf in group["leaves"]}
    return found


def sheet(items: Sequence[Item]) -> str:
    """Return the sheet: titles, then a line for each name with a place for the verdict."""
    lines = []
    for number, item in enumerate(items, start=1):
        lines += [f"## {number} {item.locale}", *(f"  {title}" for title in item.titles)]
        for letter, (_, name) in zip("ab", item.names, strict=False):
            lines.append(f"name {number}{letter}: {name} [{'' if name else '-'}]")
    return "\n".join(lines) + "\n"


def count(items: Sequence[Item], path: Path) -> str:
    """Return the table of the verdicts on a sheet.

    Raises:
        PipelineError: a name has no verdict, or is another name.
    """
    verdicts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if found := _VERDICT.match(line):
            verdicts[found[1] + found[2]] = line.split(": ", 1)[1].rsplit(" [", 1)[0], found[3]
    counted: Counter[tuple[str, str, str]] = Counter()
    for number, item in enumerate(items, start=1):
        for letter, (source, name) in zip("ab", item.names, strict=False):
            said, verdict = verdicts.get(f"{number}{letter}", (None, ""))
            if said != name:
                raise PipelineError(
                    f"{path}: name {number}{letter} must be {name!r} with a verdict y, n or - "
                    f"(found {said!r}). Judge every name of a sheet of the same settings."
                )
            for locale in (item.locale, "all"):
                counted[source, locale, verdict] += 1
    rows = []
    for source, locale in sorted({key[:2] for key in counted}):
        right, wrong, none = (counted[source, locale, verdict] for verdict in "yn-")
        share = f"{right / (right + wrong):.2f}" if right + wrong else ""
        groups = f"{right + wrong + none}"
        rows.append([locale, source, groups, f"{none}", f"{right}", f"{wrong}", share])
    return markdown(COLUMNS, rows, COLUMNS[2:])


if __name__ == "__main__":
    sys.exit(main())
