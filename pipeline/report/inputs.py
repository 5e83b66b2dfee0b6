"""What the page shows of a locale, read from the artefacts of other stages."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import pyarrow as pa
import pyarrow.csv
from pydantic import Field, model_validator

from pipeline.core import files, layout, tables
from pipeline.core.cards import brief, check_model, read_model, refuse_differences
from pipeline.core.clean_counts import CleanCounts, read_counts
from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.param_types import Name, Number, Part
from pipeline.core.params import Params
from pipeline.core.systems import System
from pipeline.evaluate.per_query import (
    Card,
    contents_sha256,
    json_sha256,
    judgements_sha256,
)
from pipeline.evaluate.per_query_reader import read_per_query
from pipeline.evaluate.top_products import TOP
from pipeline.report.basis import data_sha256
from pipeline.report.expected import read_exact, read_kinds
from pipeline.report.tradeoff import TRADEOFF_SCHEMA, TradeOff, hash_judgements
from pipeline.report.training import Training, read_training
from pipeline.runs.card import RANDOM
from pipeline.runs.inputs import read_judgements
from pipeline.runs.others import OtherRun
from pipeline.vectors.manifest import Manifest, check_ids, read_manifest

RUNS: tuple[System, ...] = ("bm25", "dense", "hybrid", "rerank")
"""The systems that may have runs, as the page orders them: each beside what it should beat."""
SHOWN = (RANDOM, *RUNS)
"""All that may be compared of the pipeline's own."""
OPTIONAL = ("rerank",)
"""The systems that a locale may lack."""

UNJUDGED = "unjudged"

Mark = Annotated[str, Field(pattern=f"^({'|'.join([*tables.LABELS, UNJUDGED])})$")]

_CURVE = pa.schema([("system", pa.string()), ("k", pa.int64()), ("recall", pa.float64())])

Mean = Annotated[float, Field(ge=0, le=1)]


class Estimate(Part):
    """A mean over queries with the ends of its interval; nothing where no query has a value."""

    mean: Mean | None
    low: Mean | None = None
    high: Mean | None = None

    @model_validator(mode="after")
    def _ends_are_in_order(self) -> Self:
        ends = [self.low, self.high]
        if (self.low is None) != (self.high is None) or (self.mean is None and ends != [None] * 2):
            raise ValueError("an interval needs a mean and both ends")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ValueError("low is above high")
        return self


class Interval(Estimate):
    """An estimate over `queries` queries."""

    queries: Number


class Slice(Part):
    """The queries of which `slice` is `value`; `small` where they are too few to conclude from."""

    slice: str
    value: str
    queries: Number
    small: bool
    systems: dict[Name, Estimate]


class Slices(Part):
    """One measure on all slices, and what fills the top 10 of each system, in shares."""

    measure: str
    small_below: Number
    top10: dict[Name, dict[Mark, Mean]]
    slices: tuple[Slice, ...]


class Scores(Part):
    """The part of a locale's metrics that says what they are of.

    `systems` are other engines, with what was counted in their runs. Only metrics of before the
    index's settings were recorded have none.
    """

    encoder: str
    index: str
    index_settings: dict[str, str] | None = None
    queries: Number
    products: Number
    systems: dict[Name, OtherRun] = Field(default_factory=dict)


@dataclass(frozen=True)
class Numbers:
    """A locale's means by system and measure, what they are of, and their intervals.

    `intervals_sha256` is the hash of the file of the intervals, as a card may have it.
    """

    locale: str
    scores: Scores
    means: Mapping[str, Mapping[str, float]]
    intervals: Mapping[str, Mapping[str, Interval]]
    intervals_sha256: str

    @property
    def runs(self) -> tuple[str, ...]:
        """The systems of this locale that have runs: those of `RUNS`, then other engines."""
        own = (system for system in RUNS if system in self.means)
        return (*own, *sorted(self.scores.systems))

    @property
    def shown(self) -> tuple[str, ...]:
        """All that is compared of this locale, in the order of `SHOWN`, then other engines."""
        return (RANDOM, *self.runs)

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
    """All that the page shows of a locale, except what its encoder is worth by itself.

    `per_query` has query_id, query and a column `system.measure` for each of `measures`, and `card`
    is its card; `top` is of the form `TOP`, of the same runs, which are `depth` deep. `exact` and
    `kinds` are what `expected` reads.
    `tradeoff` says why there is none where nothing was measured on these data.
    `others` are the other engines of all locales: a chart draws each with the same mark everywhere.
    """

    card: Card
    language: str
    slices: Slices
    recall: Mapping[str, list[tuple[int, float]]]
    measures: tuple[str, ...]
    depth: int
    per_query: pa.Table
    top: pa.Table
    exact: pa.Table
    kinds: pa.Table
    counts: CleanCounts
    manifest: Manifest
    tradeoff: TradeOff | str
    data_sha256: str
    trainings: tuple[Training, ...]
    others: tuple[str, ...]

    @property
    def mixes(self) -> dict[str, Mapping[str, float]]:
        """The share of each label in the first ten places, by system in the order of `shown`."""
        top10 = self.slices.top10
        return {system: top10[system] for system in self.shown if system in top10}

    @property
    def cutoffs(self) -> list[int]:
        """Each k of a recall curve, ascending."""
        return sorted({k for curve in self.recall.values() for k, _ in curve})


def read_numbers(locale: str) -> Numbers:
    """Read a locale's metrics and intervals.

    Raises:
        PipelineError: one is missing or of another form, or a system is.
    """
    remedy = evaluate_again(locale)
    path = layout.metrics(locale)
    found = files.read_json(path, remedy)
    scores = check_model(path, Scores, found, remedy)
    expected = (*SHOWN, *scores.systems)
    groups = {name: found[name] for name in expected if name in found}
    for missing in [name for name in expected if name not in (*groups, *OPTIONAL)]:
        raise PipelineError(f"{path} has no results of {missing}. {remedy}")
    means = check_model(path, dict[str, dict[str, float]], groups, remedy)
    path = layout.intervals(locale)
    found = files.read_json(path, remedy)
    intervals = check_model(path, dict[Name, dict[str, Interval]], found, remedy)
    numbers = Numbers(locale, scores, means, intervals, json_sha256(found))
    refuse_strangers(numbers, path, intervals)
    return numbers


def refuse_strangers(numbers: Numbers, path: Path, systems: Iterable[str]) -> None:
    """Raise a `PipelineError` if a file has numbers of a system that the metrics lack."""
    for system in systems:
        if system not in numbers.shown:
            raise PipelineError(
                f"{path}: {shorten(system)} is no system of {layout.metrics(numbers.locale)} (it "
                f"has: {', '.join(numbers.shown)}). {evaluate_again(numbers.locale)}"
            )


def read_locale(params: Params, locale: str) -> LocaleResults:
    """Read what the page shows of a locale.

    Raises:
        PipelineError: an artefact is missing or of another form, or the vectors or the numbers by
            query are of other tables than the clean ones.
    """
    remedy = evaluate_again(locale)
    numbers = read_numbers(locale)
    measures = _measures(params)
    ids, judgements, pairs = read_judgements(locale)
    manifest = read_manifest(params, locale)
    check_ids(manifest, "queries", ids.queries, locale)
    check_ids(manifest, "products", ids.products, locale)
    per_query, card = _read_per_query(numbers, measures, remedy)
    of = {
        "query_ids_sha256": manifest.queries.ids_sha256,
        "product_ids_sha256": manifest.products.ids_sha256,
        "judgements_sha256": judgements_sha256(judgements),
    }
    found = card.sample.model_dump(include=set(of))
    path, why = layout.per_query(locale), "the numbers are of other tables"
    refuse_differences(path, found, of, why, remedy)
    if vectors := card.vectors_sha256():
        why = "the numbers are of other vectors"
        refuse_differences(path, vectors, manifest.vectors_sha256(), why, remedy)
    path, expected = layout.intervals(locale), card.intervals_sha256
    _refuse_edited(path, numbers.intervals_sha256, expected, remedy)
    return LocaleResults(
        **vars(numbers),
        card=card,
        language=params.language[locale],
        slices=_read_slices(numbers, card.slices_sha256, remedy),
        recall=_read_curve(layout.recall_curve(locale), numbers.shown, remedy),
        measures=measures,
        depth=card.sample.depth,
        per_query=per_query,
        exact=read_exact(locale, numbers.runs, judgements, remedy),
        kinds=read_kinds(locale, per_query["query_id"], remedy),
        top=_read_top(layout.top(locale), card, remedy),
        counts=read_counts(locale),
        manifest=manifest,
        tradeoff=read_tradeoff(params, locale, manifest, hash_judgements(pairs)),
        data_sha256=data_sha256(locale),
        trainings=read_training(locale, remedy),
        others=tuple(sorted({name for named in params.systems.values() for name in named})),
    )


def read_tradeoff(
    params: Params, locale: str, manifest: Manifest, judgements_sha256: str
) -> TradeOff | str:
    """Return what was measured of the indexes on these data, or why that is not there.

    The index in use is left out if it had other settings: its name marks it on the page.
    """
    path = layout.tradeoff(locale)
    if not path.exists():
        return f"Not measured: {path} is missing. Run make tradeoff."
    form = ("tradeoff_schema", TRADEOFF_SCHEMA)
    measured = read_model(path, TradeOff, "Run `make tradeoff`.", form)
    for key, now in {
        "locale": locale,
        "encoder": manifest.encoder,
        "weights_sha256": manifest.weights_sha256,
        "similarity": manifest.contract["similarity"],
        "product_ids_sha256": manifest.products.ids_sha256,
        **manifest.vectors_sha256(),
        "judgements_sha256": judgements_sha256,
    }.items():
        if (was := getattr(measured, key)) != now:
            return (
                f"Left out: {path} was measured on other data ({brief(was)}, now "
                f"{brief(now)}). Run make tradeoff."
            )
    chosen, settings = params.index[locale], params.index_of(locale)
    indexes = tuple(e for e in measured.indexes if e.index != chosen or e.settings == settings)
    if len(indexes) == len(measured.indexes):
        return measured
    left_out = measured.left_out | {chosen: "it had other settings. Run make tradeoff."}
    return measured.model_copy(update={"indexes": indexes, "left_out": left_out})


def evaluate_again(locale: str) -> str:
    """Return what brings the numbers of a locale back, as messages say it."""
    return layout.rerun_hint("evaluate", locale)


def _measures(params: Params) -> tuple[str, ...]:
    """Return the headline measures that the page shows query by query: nDCG, MRR and a recall."""
    ndcg, mrr, *others = params.evaluate.headline()
    return ndcg, mrr, next(name for name in others if name.startswith("recall@"))


def _read_slices(numbers: Numbers, sha256: str | None, remedy: str) -> Slices:
    path = layout.slices(numbers.locale)
    data = files.read_json(path, remedy)
    found = check_model(path, Slices, data, remedy)
    refuse_strangers(numbers, path, found.top10)
    for each in found.slices:
        refuse_strangers(numbers, path, each.systems)
    _refuse_edited(path, json_sha256(data), sha256, remedy)
    return found


def _read_curve(
    path: Path, shown: tuple[str, ...], remedy: str
) -> dict[str, list[tuple[int, float]]]:
    """Return recall by system, in the order of `shown`, and k, ascending."""
    data = pa.BufferReader(files.read_bytes(path, remedy))
    try:
        table = pyarrow.csv.read_csv(data).select(_CURVE.names).cast(_CURVE)
    except (pa.ArrowException, KeyError, UnicodeDecodeError) as err:
        raise PipelineError(
            f"{path} is not a table of system, k and recall ({one_line(err)}). {remedy}"
        ) from err
    curves: dict[str, list[tuple[int, float]]] = {system: [] for system in shown}
    for system, k, recall in zip(*(column.to_pylist() for column in table.columns), strict=True):
        if system not in curves or k is None or recall is None or not 0 <= recall <= 1:
            raise PipelineError(f"{path}: the row {system}, {k}, {recall} is impossible. {remedy}")
        curves[system].append((k, recall))
    return {system: sorted(curve) for system, curve in curves.items()}


def _read_per_query(
    numbers: Numbers, measures: tuple[str, ...], remedy: str
) -> tuple[pa.Table, Card]:
    """Return the columns that the page shows, measures as float64, and the table's card."""
    locale, path = numbers.locale, layout.per_query(numbers.locale)
    rows, card = read_per_query(files.read_bytes(path, remedy), str(path), locale, remedy)
    columns = [pa.field(f"{s}.{m}", pa.float64()) for s in numbers.runs for m in measures]
    schema = pa.schema([("query_id", pa.int64()), ("query", pa.string()), *columns])
    for name in schema.names:
        if name not in rows.column_names:
            raise PipelineError(f"{path} has no column {name}. {remedy}")
    return rows.select(schema.names).replace_schema_metadata().cast(schema), card


def _refuse_edited(path: Path, found: str, sha256: str | None, remedy: str) -> None:
    """Raise a `PipelineError` unless a file has the hash that the card says, if it says one."""
    if sha256 is not None and found != sha256:
        raise PipelineError(
            f"{path}: the contents must have the hash {sha256[:12]}, as the card of the table by "
            f"query says (found {found[:12]}): it is of other runs, or was edited. {remedy}"
        )


def _read_top(path: Path, card: Card, remedy: str) -> pa.Table:
    """Return the first products; they must be those of the runs that the card is of."""
    top = tables.read_table(path, TOP, remedy)
    _refuse_edited(path, contents_sha256(top), card.top_sha256, remedy)
    return top
