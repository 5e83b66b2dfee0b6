"""What the docs say of explored locales: the tables of docs/similar.md and docs/clusters.md.

    python -m bench.explored [--locale us]

It reads the reports of similar, duplicates and clusters in the working folder, and prints their
tables. Only the agreement of labels by cosine is computed here: of the pairs of products that one
query judges, how many have the same label. It is for the locales under `explore`.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.catalogue.page import format_figure
from pipeline.clusters.form import read_report
from pipeline.core import files, layout, stage
from pipeline.core.arrays import Ints
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.duplicates.stage import cosines_of
from pipeline.duplicates.texts import find_equal
from pipeline.similar.stage import open_catalogue, read_pool

MEASURES = ("concordance", "e_over_s", "e_over_ci", "precision@10", "judged@10")
COSINES = (0.90, 0.98, 0.995)


def main() -> int:
    """Print the tables of one locale or of all; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.explored",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--locale", help="one of `explore`; all of them by default")
    asked = parser.parse_args()
    with stage.report_errors("explored") as outcome:
        params = load_params()
        for locale in params.explore if asked.locale is None else (asked.locale,):
            stage.check_locale(params, locale)
            for table in tables_of(params, locale):
                sys.stdout.write(f"{table}\n")
    return outcome.status


def tables_of(params: Params, locale: str) -> Iterator[str]:
    """Yield the tables of a locale."""
    name = params.encoder[locale]
    similar = _read(layout.similar_report(locale), "similar", locale)
    yield f"{locale}: {similar['queries']} queries, {similar['anchors']} anchors"
    systems = {"random": "random", "bm25": "bm25", "dense": name}
    rows = [
        [said, *(_interval(similar[system], measure) for measure in MEASURES)]
        for system, said in systems.items()
        if system in similar
    ]
    yield markdown(("system", *MEASURES), rows, MEASURES)
    header = ("pairs of products that one query judges", "pairs", "agree")
    yield markdown(header, list(agreement_rows(params, locale)), header[1:])
    duplicates = _read(layout.duplicates_report(locale), "duplicates", locale)
    yield markdown(*_groups(name, duplicates))
    columns = ("system", "ndcg@10", "collapsed", "labels collapsed too")
    rows = [
        [system, *(f"{value:.3f}" for value in values.values())]
        for system, values in duplicates.get("runs", {}).items()
    ]
    yield markdown(columns, rows, columns[1:])
    yield clusters_table(locale)


def agreement_rows(params: Params, locale: str) -> Iterator[list[str]]:
    """Yield how often two products that one query judges have the same label, by their cosine."""
    _, catalogue = open_catalogue(params, locale)
    _, pool = read_pool(locale)
    order = np.argsort(pool.positions(), kind="stable")
    codes, labels, query = pool.codes[order], pool.labels[order], pool.positions()[order]
    first, second = pairs_within(query)
    same = labels[first] == labels[second]
    cosines = cosines_of(catalogue.vectors, codes[first], codes[second])
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    speaker = find_equal(path, remedy).first
    chosen: dict[str, NDArray[np.bool_]] = {"all": np.ones(len(same), dtype=np.bool_)}
    chosen |= {f"cosine at least {least}": cosines >= least for least in COSINES}
    chosen["equal texts"] = speaker[codes[first]] == speaker[codes[second]]
    for said, which in chosen.items():
        share = f"{same[which].mean():.3f}" if which.any() else ""
        yield [said, f"{which.sum():,}", share]


def pairs_within(group: Ints) -> tuple[Ints, Ints]:
    """Return the places of all pairs whose groups are equal; equal groups are in a row."""
    bounds = np.flatnonzero(np.diff(group, prepend=-1, append=-1))
    parts = [
        np.stack(np.triu_indices(stop - start, 1)) + start
        for start, stop in pairwise(bounds.tolist())
    ]
    first, second = np.concatenate([np.empty((2, 0), dtype=np.int64), *parts], axis=1)
    return first, second


def clusters_table(locale: str) -> str:
    """Return how often judged pairs share a cluster and a leaf, and the stability."""
    report = read_report(locale)
    pairs = (report.measures.clusters, report.measures.leaves)
    header = ("two products of a query share", "a cluster", "a leaf")
    rows = [
        [said, *(format_figure(getattr(each, key), decimals) if each else "" for each in pairs)]
        for said, key, decimals in (
            ("Exact and Exact", "exact", 3),
            ("Exact and Irrelevant", "exact_irrelevant", 3),
            ("lift of Exact and Exact", "lift", 1),
        )
    ]
    rows.append(["drawn at random", *(f"{each.chance:.3f}" if each else "" for each in pairs)])
    named = sum(bool(group.name) for group in report.groups)
    return (
        f"{locale}: {report.clusters} clusters, {named} with a name; {report.leaves} leaves; "
        f"stability {report.measures.stability}\n{markdown(header, rows, header[1:])}"
    )


def _groups(
    name: str, report: Mapping[str, Any]
) -> tuple[tuple[str, ...], list[list[str]], tuple[str, ...]]:
    header = ("", "groups", "duplicates", "cosine", "labels agree in groups", "all pairs")
    agree = report.get("labels", {}).get("groups", {"pairs": 0})
    share = f"{report['duplicates']} ({report['duplicates_share']:.1%})"
    labels = (
        [_interval(agree, "agreement"), f"{agree['agreement_of_all_pairs']:.3f}"]
        if agree["pairs"]
        else ["", ""]
    )
    cosine = report["threshold"]["cosine"]
    row = [name, f"{report['groups']}", share, "" if cosine is None else f"{cosine:.3f}", *labels]
    return header, [row], header[1:]


def _interval(values: Mapping[str, float], name: str) -> str:
    """Return "0.588 [0.570, 0.606]", or the value alone where it has no interval."""
    if name not in values:
        return ""
    low, high = (values.get(f"{name}_{end}") for end in ("low", "high"))
    return f"{values[name]:.3f}" + ("" if low is None else f" [{low:.3f}, {high:.3f}]")


def _read(path: Any, name: str, locale: str) -> dict[str, Any]:
    found: dict[str, Any] = files.read_json(path, layout.rerun_hint(name, locale))
    return found


if __name__ == "__main__":
    sys.exit(main())
