"""What a stage takes for its units: a start and a rate, corrected by the largest run here."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import TypeAdapter, ValidationError

from pipeline.bm25 import postings
from pipeline.bm25.search import BATCH_QUERIES
from pipeline.bm25.texts import PIECE_PRODUCTS
from pipeline.clean.products import BATCH_ROWS, WAITING_BATCHES
from pipeline.clusters.form import LANDMARKS
from pipeline.core.param_types import Name, Number, Strict
from pipeline.core.params import Index
from pipeline.core.timings import NOT_NEGATIVE, Record
from pipeline.duplicates.calibrate import CALIBRATED
from pipeline.index import size as index_size
from pipeline.plan.rates import MEASURED_PRODUCTS, RATES
from pipeline.runs.card import OVERLAP_QUERIES
from pipeline.runs.files import QUERIES_A_PIECE
from pipeline.sample.buckets import BUCKET_ROWS

Units = Mapping[str, int]
Amount = Annotated[float, NOT_NEGATIVE]

MOST_TIMES = 20
"""A cost is a guess if its stage has more work than this many times the largest run's."""

SCANS = {"sq8": 1.0, "rabitq": 2.0, "eden": 4.0, "pq-fastscan": 0.3}
"""How long comparing a query with a vector's codes takes, over that of sq8."""

PROBES = {"ivf-pq-fastscan": 0.2}
"""How long the same takes in inverted lists, over that of the other kinds with lists."""

GATHERED_BYTES, MOST_GATHERED = 28, 600e6
"""Bytes of a product that a cluster found for a query, among the best and in a range's part; and of
all of them at once (`retrieve.ranges`)."""

TELLING_SECONDS, TELLING_BYTES = 0.5, 100e6
"""How much a run's time and memory vary by themselves: one with less work says little of a rate."""


class Row(Strict):
    """What one stage takes for one locale, or for all locales where `locale` is None.

    `units` and `kind` are those of `stage.Done`; `seconds` are of the stage's own work,
    `disk_bytes` what it leaves; `known` says how all this is known.
    """

    stage: str
    locale: Name | None
    kind: Name | None
    units: dict[str, Number]
    seconds: Amount
    peak_bytes: Amount
    disk_bytes: Amount
    known: str


@dataclass(frozen=True)
class Cost:
    """Seconds and memory of a stage before its first unit and for its units; its disk."""

    start_seconds: float
    work_seconds: float
    start_bytes: float
    work_bytes: float
    disk_bytes: float


def default_cost(stage: str, kind: str | None, units: Units) -> Cost:
    """Return what a stage takes by the table of rates; it rises with every unit.

    Raises:
        KeyError: a unit is missing, or the stage is unknown.
    """
    rates, amounts = RATES[stage], _amounts(stage, kind or "", units)
    seconds, memory, disk = (
        sum(rate[i] * amounts[unit] for unit, rate in rates.items()) for i in range(3)
    )
    start_seconds, start_bytes, _ = rates["start"]
    return Cost(start_seconds, seconds - start_seconds, start_bytes, memory - start_bytes, disk)


def row(
    records: Iterable[Record], stage: str, locale: str | None, units: Units,
    kind: str | None = None,
) -> Row:  # fmt: skip
    """Return what a stage takes by the table of rates, corrected by the largest run here.

    A run with less than 1 / `MOST_TIMES` of the work gives way to a larger one of any locale; if
    all are that small, the cost is called a guess. Else the locale's own run counts first.
    """
    planned, runs = default_cost(stage, kind, units), []
    for record in records:
        if (record.stage, record.kind) == (stage, kind):
            with suppress(KeyError, ValidationError):  # of another version
                model = default_cost(stage, kind, record.units)
                near = planned.work_seconds <= MOST_TIMES * model.work_seconds
                rank = near, near and record.locale == locale, model.work_seconds
                runs.append((rank, model, record))
    seconds = planned.start_seconds + planned.work_seconds
    peak = planned.start_bytes + planned.work_bytes
    guess = units.get("products", 0) > MOST_TIMES * MEASURED_PRODUCTS
    known = "guess: default rate" if guess else "default rate"
    if runs:
        (near, *_), model, run = max(runs, key=lambda each: each[0])
        known = "measured here"
        known += f" of {run.locale}" if run.locale not in (None, locale) else ""
        known += f" on {run.units['products']:,} products" if "products" in run.units else ""
        if not near:
            times = planned.work_seconds / max(model.work_seconds, 1e-9)
            known = f"guess: {times:,.0f} times what was {known}"
        start, rate = fit(model.start_seconds, model.work_seconds, run.seconds, TELLING_SECONDS)
        seconds = start + rate * planned.work_seconds
        # Memory is never less than by the table: a short run fills less of it than a long one.
        start, rate = fit(model.start_bytes, model.work_bytes, run.peak_bytes, TELLING_BYTES)
        peak = max(start, model.start_bytes) + max(rate, 1.0) * planned.work_bytes
    return Row(
        stage=stage, locale=locale, kind=kind, units=dict(units), seconds=seconds, peak_bytes=peak,
        disk_bytes=planned.disk_bytes, known=known,
    )  # fmt: skip


def fit(start: float, work: float, measured: float, telling: float) -> tuple[float, float]:
    """Split what a run took, in seconds or bytes: measured = start + rate * work.

    The given `start` and `work` are the table's. The rate is that of ridge regression: 1 for a run
    without work, measured for one with much more work than `telling`. The rest is the start.
    """
    took = max(measured - start, 0.0)
    rate = (telling**2 + work * took) / (telling**2 + work**2)
    return max(measured - rate * work, start / 2), rate


def _amounts(stage: str, kind: str, units: Units) -> Mapping[str, float]:
    """Return how many units of each kind in `RATES` a stage has."""
    products = 0 if stage in ("report", "train") else units["products"]
    if stage == "similar":
        units = {**units, "queries": products}  # each product is searched for
    queries = units.get("queries", 0)
    dimension, depth = units.get("dimension", 0), min(units.get("depth", 0), products)
    encoded, texts = units.get("encoded", 0), products + queries
    # Batches being cleaned or waiting, of which each thread has its own, and those read ahead.
    cleaned_at_once = BATCH_ROWS * (units.get("threads", 1) + WAITING_BATCHES + 3)
    found = {
        **units, "start": 1.0, "texts": texts, "texts at once": min(texts, cleaned_at_once),
        "products at once": min(products, BUCKET_ROWS), "loaded": encoded > 0,
        "vector bytes": 4 * dimension * texts,
        "store bytes": (4 * dimension + 20 + 24) * encoded,  # key and checksum; token counts
        "components": products * dimension, "query components": queries * dimension,
        "scores": queries * products, "results": queries * depth,
        "results at once": min(queries, QUERIES_A_PIECE) * depth,
        "given": units.get("engines", 0) * queries * depth,
        "pairs": products * units.get("neighbours", 0),
        "calibrated": min(products, CALIBRATED), "placed": min(products, LANDMARKS),
    }  # fmt: skip
    if stage == "train":
        found["tokens of a thread"] = units["tokens"] / units["threads"]
    if stage in ("index", "retrieve", "similar"):
        found |= _index_amounts(kind.removesuffix("-ray"), units)
        asked = max(units.get("rescore", 0), 1) * depth + 100
        gathered = min(GATHERED_BYTES * queries * asked, MOST_GATHERED)
        found["gathered bytes"] = gathered if kind.endswith("-ray") else 0
    if stage == "bm25":
        found |= _bm25_amounts(kind, units, queries * products, min(queries, BATCH_QUERIES) * depth)
    return found


def terms_of(analyser: str) -> tuple[int, int, int]:
    """Return a product's terms: different ones, and one by one; and all, per root of the products.

    New ones become rare. `analyser` is its name.
    """
    return (300, 460, 2_300) if analyser.startswith("sudachi") else (126, 190, 800)


def _bm25_amounts(kind: str, units: Units, scores: int, found: int) -> dict[str, float]:
    """Return what counting terms and searching by them take.

    Args:
        kind: the analyser.
        units: those of the stage.
        scores: how many pairs of a query and a product there are.
        found: how many products are found for the queries searched at once.
    """
    products, threads = units["products"], units.get("threads", 1)
    japanese = kind.startswith("sudachi")
    different, terms, vocabulary = terms_of(kind)
    piece = min(products, PIECE_PRODUCTS)
    counted = units["counted"]  # terms that were made before are kept, and none are counted
    return {
        "counted": counted, "japanese counted": counted * japanese,
        "counted of a thread": counted / threads,
        "japanese counted of a thread": counted * japanese / threads,
        "scores of a thread": scores / threads,
        "memory bytes": postings.memory_bytes(
            kind, products,
            postings=different * products, terms=round(vocabulary * products**0.5),
            piece_terms=terms * piece, piece_postings=different * piece,
            found=found, threads=threads, workers=units.get("workers", 0),
        ),
    }  # fmt: skip


def _index_amounts(kind: str, units: Units) -> dict[str, float]:
    """Return what building and searching an index take; of vectors, in multiplications."""
    products, dimension, queries = units["products"], units["dimension"], units.get("queries", 0)
    names = (
        "m", "ef_construction", "ef_search", "lists", "probes", "subvectors", "bits", "rescore"
    )  # fmt: skip
    settings = {name: units[name] for name in names if name in units}
    index: Index = TypeAdapter(Index).validate_python({"kind": kind, **settings})
    m, built, searched, lists, probes, _, bits, found = (settings.get(name, 0) for name in names)
    steps = m * dimension * math.log2(products + 2)
    centroids = 2**bits if kind == "ivf-pq" else 0
    if isinstance(index, index_size.FastScan):
        centroids = index_size.FAST_SCAN_CENTROIDS
    rotated = 2 * products * dimension if kind in ("rabitq", "eden") else 0  # to learn, to add
    # What another index than flat finds is compared with exact search, for some queries.
    exact = queries if kind == "flat" else min(queries, OVERLAP_QUERIES)
    return {
        "index bytes": index_size.disk_bytes(index, products, dimension),
        "memory bytes": index_size.memory_bytes(
            index, products, dimension, int(units.get("threads", 1))
        ),
        "exact": exact * products * dimension,
        "quantised": queries * products * dimension * SCANS.get(kind, 0),
        "rescored": queries * min(units.get("depth", 0), products) * found * dimension,
        "links": products * steps * built / (32 * 200),
        "walked": queries * steps * searched / 14,
        "probed": queries * dimension * (
            PROBES.get(kind, 1) * products * probes / max(lists, 1) + lists
        ),
        # k-means on a sample, ten times for the lists and 25 times for the codes; then all products
        # get theirs.
        "distances": dimension * (
            rotated
            + lists * (10 * min(products, index_size.POINTS_A_CENTROID * lists) + products)
            + centroids * (25 * min(products, index_size.POINTS_A_CENTROID * centroids) + products)
        ),
    }  # fmt: skip
