"""Whether the page's numbers can be right: each in its range, and equal where two files have it.

A JSON or CSV file has no checksum. But evaluate writes most means to two files, and a damaged file
differs from the other.
"""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout
from pipeline.core.cards import refuse_differences
from pipeline.core.clean_counts import CleanCounts
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Params
from pipeline.core.tables import LABELS
from pipeline.encoder_scores.form import ROUNDED
from pipeline.evaluate.per_query import exact_sha256
from pipeline.evaluate.top_products import PLACES
from pipeline.report.inputs import LocaleResults, Scores, evaluate_again
from pipeline.runs.card import INDEX_OVERLAP, RANDOM, index_settings, of_index, other_setting
from pipeline.vectors.manifest import Manifest

HALF = 0.51e-5
"""How far a mean may be from the same mean rounded to 5 digits."""


def check_results(results: LocaleResults, params: Params) -> None:
    """Check that the artefacts of a locale belong together and hold possible numbers.

    Raises:
        PipelineError: they do not; the message names the file and what is wrong in it.
    """
    check_scores(results.locale, results.scores, results.manifest, results.counts, params)
    _check_means(results)
    _check_per_query(results)
    _check_top(results)
    _check_exact(results)
    _check_kinds(results)
    _check_curve(results)


def _refuse(results: LocaleResults, path: Path, what: str) -> PipelineError:
    return PipelineError(f"{path}: {what}. {evaluate_again(results.locale)}")


def check_scores(
    locale: str, scores: Scores, manifest: Manifest, counts: CleanCounts, params: Params
) -> None:
    """Check what the metrics are of: the locale's encoder and index, and the clean tables.

    Raises:
        PipelineError: they are of others.
    """
    for key, found, expected in (
        ("encoder", scores.encoder, params.encoder[locale]),
        ("index", scores.index, params.index[locale]),
        ("queries", scores.queries, manifest.queries.rows),
        ("products", scores.products, manifest.products.rows),
    ):
        if found != expected:
            raise PipelineError(
                f"{layout.metrics(locale)}: {key} must be {expected} (found {shorten(found)}). "
                f"{evaluate_again(locale)}"
            )
    wanted = index_settings(of_index(scores.index, params.index_of(locale)))
    measured = scores.index_settings
    if measured is not None and (differs := other_setting(measured, wanted)):
        raise PipelineError(f"{layout.metrics(locale)}: {differs}. {evaluate_again(locale)}")
    refuse_differences(
        layout.metrics(locale), {name: run.path for name, run in scores.systems.items()},
        params.systems[locale], "the numbers are of other runs than params.yaml names",
        evaluate_again(locale),
    )  # fmt: skip
    for kind, found, rows in (
        ("queries", counts.queries.kept, scores.queries),
        ("products", counts.products.kept, scores.products),
    ):
        if found != rows:
            raise PipelineError(
                f"{layout.clean(locale).counts}: {kind}.out must be {rows} (found {found}). "
                f"{layout.rerun_hint('clean', locale)}"
            )


def _check_means(results: LocaleResults) -> None:
    """Check that means are in their range, and those of metrics and intervals equal."""
    path = layout.metrics(results.locale)
    for system, of_system in results.means.items():
        for measure in of_system.keys() - results.means[RANDOM].keys():
            # Only an index has an overlap; what else is defined depends on the query alone.
            if not measure.startswith(INDEX_OVERLAP):
                raise _refuse(
                    results, path, f"{system} has {shorten(measure)}, which random has not"
                )
        for measure, mean in of_system.items():
            # How many products a query has; and a skill, which is below 0 for worse than random.
            least = -math.inf if "skill" in measure else 0.0
            most = math.inf if measure == "retrieved" else 1.0
            if not (math.isfinite(mean) and least <= mean <= most):
                raise _refuse(results, path, f"{system}.{measure} cannot be {mean}")
    for system, intervals in results.intervals.items():
        for measure, interval in intervals.items():
            found = results.means.get(system, {}).get(measure)
            if found != interval.mean:
                raise _refuse(
                    results, path, f"{system}.{measure} must be {interval.mean}, as in "
                    f"{layout.intervals(results.locale)} (found {found})",
                )  # fmt: skip


def _check_per_query(results: LocaleResults) -> None:
    """Check that the table by query has the queries and the means of the metrics."""
    path, table = layout.per_query(results.locale), results.per_query
    ids = table["query_id"].to_numpy()
    if len(ids) != results.scores.queries:
        raise _refuse(
            results, path, f"it has {len(ids)} queries, but {layout.metrics(results.locale)} says "
            f"{results.scores.queries}",
        )  # fmt: skip
    if table["query_id"].null_count or (np.diff(ids) <= 0).any():
        raise _refuse(results, path, "it is not sorted by query_id")
    for name in table.column_names[2:]:
        system, _, measure = name.partition(".")
        values = pc.drop_null(table[name]).to_numpy()
        if not ((values >= 0) & (values <= 1)).all():
            raise _refuse(results, path, f"{name} has a value that is not from 0 to 1")
        mean = results.means[system].get(measure)
        if (mean is None) != (len(values) == 0) or (
            mean is not None and abs(float(values.mean()) - mean) > ROUNDED
        ):
            raise _refuse(
                results, path, f"the mean of {name} differs from "
                f"{layout.metrics(results.locale)}, which says {mean}",
            )  # fmt: skip


def _check_top(results: LocaleResults) -> None:
    """Check that the first products are of known queries, systems, ranks and labels."""
    path, top = layout.top(results.locale), results.top
    for name, known in (
        ("query_id", results.per_query["query_id"].combine_chunks()),
        ("system", pa.array(results.runs)),
        ("rank", pa.array(range(1, PLACES + 1), pa.int32())),
        ("label", pa.array([*LABELS, None])),
    ):
        strange = top[name].filter(pc.invert(pc.is_in(top[name], value_set=known)))
        if len(strange):
            raise _refuse(results, path, f"{name} cannot be {shorten(strange[0].as_py())}")


def _check_exact(results: LocaleResults) -> None:
    """Check that the Exact products have possible ranks, and those that evaluate wrote."""
    path, exact, depth = layout.exact(results.locale), results.exact, results.depth
    columns = ("query_id", "rank", "product_id")
    order = [(name, "ascending") for name in columns]
    for system in results.runs:
        ranks = exact[system]
        beyond = pc.or_(pc.less(ranks, 1), pc.greater(ranks, depth))
        if pc.any(pc.or_(beyond, exact["title"].is_null())).as_py():
            raise _refuse(results, path, f"{system} has a rank that no product can have")
        of_system = pc.equal(results.top["system"], system)
        first = results.top.filter(pc.and_(of_system, pc.equal(results.top["label"], "E")))
        ours = exact.filter(pc.less_equal(ranks, PLACES)).rename_columns({system: "rank"})
        one, other = ours.sort_by(order), first.sort_by(order)
        if any(not one[name].equals(other[name]) for name in columns):
            raise _refuse(
                results, path, f"the ranks of {system} up to {PLACES} are not those of "
                f"{layout.top(results.locale)}",
            )  # fmt: skip
        _check_recall(results, system)
    if exact_sha256(exact) != results.card.exact_sha256:
        # No measure differs for two ranks between the same cutoffs.
        raise _refuse(
            results, path, f"the card of {layout.per_query(results.locale)} does not have the hash "
            "of its contents: it is of other runs, or was edited",
        )  # fmt: skip


def _check_recall(results: LocaleResults, system: str) -> None:
    """Check that the ranks of the Exact products give the means of recall."""
    of_query = results.exact["query_id"].to_numpy()
    _, rows, numbers = np.unique(of_query, return_inverse=True, return_counts=True)
    ranks = results.exact[system].fill_null(results.depth + 1).to_numpy()
    for measure, mean in results.means[system].items():
        name, _, k = measure.partition("@")
        if name != "recall":
            continue
        # The ranks are whole, so only the mean that was kept is rounded.
        recall = np.bincount(rows, ranks <= int(k)) / numbers
        if abs(float(recall.mean()) - mean) > HALF:
            raise _refuse(
                results, layout.exact(results.locale), f"the ranks of {system} do not give the "
                f"{measure} of {layout.metrics(results.locale)}",
            )  # fmt: skip


def _check_kinds(results: LocaleResults) -> None:
    """Check that the queries of each slice have the number and the means that the slices say."""
    path, kinds = layout.kinds(results.locale), results.kinds
    if (measure := results.slices.measure) != results.measures[0]:
        raise _refuse(
            results, layout.slices(results.locale), f"measure must be {results.measures[0]} (found "
            f"{shorten(measure)})",
        )  # fmt: skip
    for each in results.slices.slices:
        if each.slice not in kinds.column_names:
            raise _refuse(results, path, f"it has no column {shorten(each.slice)}")
        members = results.per_query.filter(pc.equal(kinds[each.slice], each.value))
        for system in results.runs:
            values = pc.drop_null(members[f"{system}.{results.measures[0]}"]).to_numpy()
            mean = each.systems[system].mean if system in each.systems else None
            if len(values) != each.queries or (
                mean is not None and len(values) and abs(float(values.mean()) - mean) > ROUNDED
            ):
                raise _refuse(
                    results, path, f"its queries of {shorten(each.slice)} {shorten(each.value)} "
                    f"are not those of {layout.slices(results.locale)}",
                )  # fmt: skip


def _check_curve(results: LocaleResults) -> None:
    """Check that recall rises with k and is what the metrics say."""
    path = layout.recall_curve(results.locale)
    if len({tuple(k for k, _ in curve) for curve in results.recall.values()}) > 1:
        raise _refuse(results, path, "the systems must have the same values of k")
    for system, curve in results.recall.items():
        if not curve:
            raise _refuse(results, path, f"it has no row for {system}")
        cutoffs, recalls = zip(*curve, strict=True)
        if cutoffs[0] < 1 or any(np.diff(cutoffs) <= 0):
            raise _refuse(results, path, f"{system} has a k that is below 1 or repeated")
        if any(np.diff(recalls) < 0):
            raise _refuse(results, path, f"recall of {system} must not fall with k")
        for k, recall in curve:
            mean = results.means[system].get(f"recall@{k}", recall)
            if mean != recall:
                raise _refuse(
                    results, path, f"recall@{k} of {system} must be {mean}, as in "
                    f"{layout.metrics(results.locale)} (found {recall})",
                )  # fmt: skip
