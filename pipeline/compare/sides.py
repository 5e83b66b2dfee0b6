"""The two sides of a comparison: what a revision says of a locale, and whether two of them fit."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt

from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.tables import SAMPLE_KEY

Names = tuple[str, str]

Hit = tuple[str | None, str]
"""Label (None: unjudged) and title of a product."""

Top = dict[tuple[int, str], list[Hit]]
"""The first products for each query_id and system, in rank order."""


@dataclass(frozen=True)
class Side:
    """One locale at one revision: measures a query, what they are of, what was chosen."""

    table: pa.Table
    sample: Mapping[str, str | int]
    chosen: Mapping[str, str]


def side(table: pa.Table, metrics: Mapping[str, Any], where: str) -> Side:
    """Return a locale's side of a comparison.

    Args:
        table: its per-query table.
        metrics: its metrics file.
        where: what the two are called in messages, such as "es of HEAD".

    Raises:
        PipelineError: table or metrics are not what `evaluate` writes now.
    """
    try:
        sample = json.loads(table.schema.metadata[SAMPLE_KEY])
        queries = int(sample["queries"])
        chosen = {name: str(metrics[name]) for name in ("encoder", "index")}
        steps = np.diff(table["query_id"].to_numpy())
    except (KeyError, TypeError, ValueError) as err:
        raise PipelineError(
            f"{where}: the per-query table or the metrics are of an older form ({err!r}); compare "
            "with a newer revision, or run `dvc repro` there and commit"
        ) from err
    if len(table) != queries or (steps <= 0).any():
        raise PipelineError(
            f"{where}: the per-query table has {len(table):,} rows for the {queries:,} queries of "
            "its sample, or not in order of query_id; it was edited: take the committed one, or "
            "run `dvc repro evaluate`"
        )
    return Side(table, sample, chosen)


def metrics(table: pa.Table) -> list[str]:
    """Return the columns of a per-query table that hold measures, such as dense.ndcg@10."""
    return [field.name for field in table.schema if pt.is_floating(field.type)]


def check_metric(new: Side, metric: str, where: str) -> None:
    """Raise a `PipelineError` if the new side lacks a metric: nothing could keep watch on it."""
    known = metrics(new.table)
    if metric not in known:
        raise PipelineError(
            f"compare.metrics: {where} has no {metric!r}{did_you_mean(metric, known)} "
            f"(it has: {', '.join(known)})"
        )


def in_one_alone(a: Mapping[str, Side], b: Mapping[str, Side], names: Names) -> Iterator[str]:
    """Say which locales are on one side alone."""
    for one, other, name in ((a, b, names[0]), (b, a, names[1])):
        for locale in one:
            if locale not in other:
                yield f"{locale} is in {name} alone: not compared"


def comparable(a: Mapping[str, Side], b: Mapping[str, Side], names: Names) -> list[str]:
    """Return the locales that both sides have.

    Raises:
        PipelineError: there are none, or the sides are of different samples in one of them.
    """
    shared = [locale for locale in a if locale in b]
    if not shared:
        raise PipelineError(
            f"{names[0]} has the locales {', '.join(a) or 'none'}, {names[1]} has "
            f"{', '.join(b) or 'none'}: none is on both sides, so there is nothing to compare"
        )
    unlike = [
        f"{locale}: {'; '.join(found)}"
        for locale in shared
        if (found := list(_unlike(a[locale], b[locale], names)))
    ]
    if unlike:
        raise PipelineError(
            f"{names[0]} and {names[1]} are of different samples, their numbers do not compare:\n"
            + "\n".join(f"  {line}" for line in unlike)
        )
    return shared


def _unlike(a: Side, b: Side, names: Names) -> Iterator[str]:
    """Say in what two samples differ, the value of each side in turn."""
    for key in dict.fromkeys((*a.sample, *b.sample)):
        one, other = a.sample.get(key), b.sample.get(key)
        if one != other:
            yield f"{key.removesuffix('_sha256').replace('_', ' ')} {_told(one)} and {_told(other)}"
    ids = [set(each.table["query_id"].to_pylist()) for each in (a, b)]
    for only, name in ((ids[0] - ids[1], names[0]), (ids[1] - ids[0], names[1])):
        if only:
            yield f"{len(only):,} queries in {name} alone, such as {min(only)}"


def _told(value: str | int | None) -> str:
    match value:
        case int():
            return f"{value:,}"
        case None:
            return "none"
    return value[:12]
