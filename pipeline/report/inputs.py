"""What the page shows of a locale, read from the artefacts of other stages and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.csv
from pydantic import BaseModel, ConfigDict

from pipeline.core import files, layout, tables
from pipeline.core.cards import check_model, read_model
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Params, System
from pipeline.evaluate.top import TOP
from pipeline.runs.card import RANDOM
from pipeline.tradeoff.figures import TradeOff
from pipeline.vectors.manifest import Manifest, read_manifest

RUNS: tuple[System, ...] = ("bm25", "dense", "hybrid")
"""The systems that have runs, as the page orders them: each beside what it should beat."""
SHOWN = (RANDOM, *RUNS)
"""All that is compared."""

UNJUDGED = "unjudged"

_CURVE = pa.schema([("system", pa.string()), ("k", pa.int64()), ("recall", pa.float64())])


class Part(BaseModel):
    """Part of an artefact: its other keys are other readers' business."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


class Estimate(Part):
    """A mean over queries with the ends of its interval; nothing where no query has a value."""

    mean: float | None
    low: float | None = None
    high: float | None = None


class Interval(Estimate):
    """An estimate over `queries` queries."""

    queries: int


class Slice(Part):
    """The queries of which `slice` is `value`; `small` where they are too few to conclude from."""

    slice: str
    value: str
    queries: int
    small: bool
    systems: dict[str, Estimate]


class Slices(Part):
    """One measure on all slices, and what fills the top 10 of each system, in shares."""

    measure: str
    small_below: int
    top10: dict[str, dict[str, float]]
    slices: tuple[Slice, ...]


class Scores(Part):
    """The part of a locale's metrics that says what they are of."""

    encoder: str
    index: str
    queries: int
    products: int


@dataclass(frozen=True)
class Numbers:
    """A locale's means by system and measure, what they are of, and their intervals."""

    locale: str
    scores: Scores
    means: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]

    def estimate(self, system: str, measure: str) -> Interval | None:
        """Return a measure of a system with its interval, or without where none was computed.

        None where the measure is undefined for every query.
        """
        interval = self.intervals.get(system, {}).get(measure)
        if interval is not None and interval.mean is not None:
            return interval
        if (mean := self.means.get(system, {}).get(measure)) is not None:
            return Interval(mean=mean, queries=self.scores.queries)
        return None


@dataclass(frozen=True)
class LocaleResults(Numbers):
    """All that the page tells of a locale.

    `per_query` has query_id, query and a column `system.measure` for each of `measures`; `top` is
    of the form `TOP`. `tradeoff` is why there is none where nothing was measured on these vectors.
    """

    language: str
    slices: Slices
    recall: Mapping[str, list[tuple[int, float]]]
    measures: tuple[str, ...]
    per_query: pa.Table
    top: pa.Table
    counts: Mapping[str, Mapping[str, Any]]
    manifest: Manifest
    tradeoff: TradeOff | str


M = TypeVar("M")


def read_numbers(locale: str) -> Numbers:
    """Read a locale's metrics and intervals.

    Raises:
        PipelineError: one is missing or of another form, or a system is.
    """
    remedy = _remedy(locale)
    path = layout.metrics(locale)
    found = files.read_json(path, remedy)
    scores = check_model(path, Scores, found, remedy)
    groups = {name: found[name] for name in SHOWN if name in found}
    for missing in [name for name in SHOWN if name not in groups]:
        raise PipelineError(f"{path} has no results of {missing}. {remedy}")
    means = check_model(path, dict[str, dict[str, float]], groups, remedy)
    intervals = read_model(layout.intervals(locale), dict[str, dict[str, Interval]], remedy)
    return Numbers(locale, scores, means, intervals)


def read_locale(params: Params, locale: str) -> LocaleResults:
    """Read what the page tells of a locale.

    Raises:
        PipelineError: an artefact is missing, of another form, or of other queries than the
            metrics.
    """
    remedy = _remedy(locale)
    numbers = read_numbers(locale)
    measures = _measures(params)
    results = LocaleResults(
        locale=locale,
        language=params.language[locale],
        scores=numbers.scores,
        means=numbers.means,
        intervals=numbers.intervals,
        slices=read_model(layout.slices(locale), Slices, remedy),
        recall=_read_curve(layout.recall_curve(locale), remedy),
        measures=measures,
        per_query=_read_per_query(layout.per_query(locale), measures, remedy),
        top=tables.read_table(layout.top(locale), TOP, remedy),
        counts=read_model(
            layout.clean(locale).counts,
            dict[str, dict[str, Any]],
            layout.rerun_hint("clean", locale),
        ),
        manifest=(manifest := read_manifest(params, locale)),
        tradeoff=read_tradeoff(locale, manifest),
    )
    if results.per_query.num_rows != numbers.scores.queries:
        raise PipelineError(
            f"{layout.per_query(locale)} has {results.per_query.num_rows} queries, but "
            f"{layout.metrics(locale)} tells of {numbers.scores.queries}. {remedy}"
        )
    # Told here, where it is of any query: the page may show only some.
    tables.rows_of(
        results.per_query["query_id"], results.top["query_id"], layout.top(locale), remedy
    )
    unknown = set(results.top["system"].unique().to_pylist()) - set(RUNS)
    if unknown:
        raise PipelineError(f"{layout.top(locale)}: no system is called {min(unknown)!r}. {remedy}")
    return results


def read_tradeoff(locale: str, manifest: Manifest) -> TradeOff | str:
    """Return what was measured of the indexes on these vectors, or why that is not there."""
    path = layout.tradeoff(locale)
    if not path.exists():
        return f"Not measured: {path} is missing. Run make tradeoff."
    measured = read_model(path, TradeOff, "Run `make tradeoff`.")
    products, queries = manifest.products, manifest.queries
    for told, now in (
        (measured.encoder, manifest.encoder),
        (measured.weights_sha256, manifest.weights_sha256),
        (measured.product_ids_sha256, products.ids_sha256),
        (measured.product_vectors_sha256, products.sha256()),
        (measured.query_vectors_sha256, queries.sha256()),
    ):
        if told != now:
            return (
                f"Left out: {path} was measured on other vectors ({told[:12]}, now {now[:12]}). "
                "Run make tradeoff."
            )
    return measured


def _measures(params: Params) -> tuple[str, ...]:
    """Return the headline measures that the page shows query by query: nDCG, MRR and a recall."""
    ndcg, mrr, *others = params.evaluate.headline()
    return ndcg, mrr, next(name for name in others if name.startswith("recall@"))


def _remedy(locale: str) -> str:
    return layout.rerun_hint("evaluate", locale)


def _read_curve(path: Path, remedy: str) -> dict[str, list[tuple[int, float]]]:
    try:
        table = pyarrow.csv.read_csv(path).select(_CURVE.names).cast(_CURVE)
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing. {remedy}") from err
    except (pa.ArrowException, KeyError) as err:
        raise PipelineError(
            f"{path} is not a table of system, k and recall ({one_line(err)}). {remedy}"
        ) from err
    curves: dict[str, list[tuple[int, float]]] = {}
    for system, k, recall in zip(*(column.to_pylist() for column in table.columns), strict=True):
        curves.setdefault(system, []).append((k, recall))
    return {system: sorted(curves[system]) for system in SHOWN if system in curves}


def _read_per_query(path: Path, measures: tuple[str, ...], remedy: str) -> pa.Table:
    columns = [pa.field(f"{s}.{m}", pa.float64()) for s in RUNS for m in measures]
    schema = pa.schema([("query_id", pa.int64()), ("query", pa.string()), *columns])
    return tables.read_columns(path, schema, remedy)
