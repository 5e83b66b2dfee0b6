"""What a stage takes for its units: a start and a rate, corrected by the largest run here."""

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from pipeline.bm25 import postings
from pipeline.clean.products import BATCH_ROWS, WAITING_BATCHES
from pipeline.core.params import (
    FlatIndex,
    HnswIndex,
    Index,
    IvfFlatIndex,
    IvfPqIndex,
    Sq8Index,
)
from pipeline.core.timings import Record
from pipeline.index import size as index_size
from pipeline.plan.rates import MEASURED_PRODUCTS, RATES

Units = Mapping[str, int]

MOST_TIMES = 20
"""A cost is a guess if its stage has more work than this many times the largest run's."""

TELLING_SECONDS, TELLING_BYTES = 0.5, 100e6
"""How much a run's time and memory vary by themselves: one with less work says little of a rate."""

_SEARCHED_QUERIES = 1_024  # at a time, by retrieve, hybrid and evaluate
_STORE_ENTRY_BYTES = 20 + 24  # key and checksum; token counts


@dataclass(frozen=True)
class Cost:
    """Seconds and memory of a stage before its first unit and for its units; its disk."""

    start_seconds: float
    work_seconds: float
    start_bytes: float
    work_bytes: float
    disk_bytes: float
    known: str = "default rate"


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


def cost(
    stage: str, locale: str | None, kind: str | None, units: Units, records: Iterable[Record]
) -> Cost:
    """Return what a stage takes by the table of rates, corrected by the largest run here.

    A run with less than 1 / `MOST_TIMES` of the work gives way to a larger one of any locale; if
    all are that small, the cost is called a guess. Else the locale's own run counts first.
    """
    planned, runs = default_cost(stage, kind, units), []
    for record in records:
        if (record.stage, record.kind) == (stage, kind):
            with suppress(KeyError, ValidationError):  # of another version
                runs.append((default_cost(stage, kind, record.units), record))
    if not runs:
        guess = units.get("products", 0) > MOST_TIMES * MEASURED_PRODUCTS
        return replace(planned, known="guess: default rate") if guess else planned
    near = [each for each in runs if planned.work_seconds <= MOST_TIMES * each[0].work_seconds]
    own = [each for each in near if each[1].locale == locale]
    model, run = max(own or near or runs, key=lambda each: each[0].work_seconds)
    known = "measured here" + (f" of {run.locale}" if run.locale not in (None, locale) else "")
    if products := run.units.get("products"):
        known += f" on {products:,} products"
    if not near:
        times = planned.work_seconds / max(model.work_seconds, 1e-9)
        known = f"guess: {times:,.0f} times what was {known}"
    start, rate = fit(model.start_seconds, model.work_seconds, run.seconds, TELLING_SECONDS)
    base, room = fit(model.start_bytes, model.work_bytes, run.peak_bytes, TELLING_BYTES)
    # Memory is never less than by the table: a short run fills less of it than a long one.
    return Cost(
        start, rate * planned.work_seconds, max(base, model.start_bytes),
        max(room, 1.0) * planned.work_bytes, planned.disk_bytes, known,
    )  # fmt: skip


def fit(start: float, work: float, measured: float, telling: float) -> tuple[float, float]:
    """Split what a run took into a start and a rate: measured = start + rate * work.

    The rate is that of ridge regression: 1 for a run without work, measured for one with much more
    work than `telling`. The rest of what was measured is the start.

    All are seconds or bytes; `start` and `work` are those of the table.
    """
    took = max(measured - start, 0.0)
    rate = (telling**2 + work * took) / (telling**2 + work**2)
    return max(measured - rate * work, start / 2), rate


def _amounts(stage: str, kind: str, units: Units) -> Mapping[str, float]:
    """Return how many units of each kind in `RATES` a stage has."""
    products = 0 if stage == "report" else units["products"]
    queries = units.get("queries", 0)
    dimension, depth = units.get("dimension", 0), min(units.get("depth", 0), products)
    encoded, texts = units.get("encoded", 0), products + queries
    # Batches being cleaned or waiting, of which each thread has its own, and those read ahead.
    cleaned_at_once = BATCH_ROWS * (units.get("threads", 1) + WAITING_BATCHES + 3)
    found = {
        **units, "start": 1.0, "texts": texts, "texts at once": min(texts, cleaned_at_once),
        "products at once": min(products, 50_000), "loaded": encoded > 0,
        "vector bytes": 4 * dimension * texts,
        "store bytes": (4 * dimension + _STORE_ENTRY_BYTES) * encoded,
        "components": products * dimension, "query components": queries * dimension,
        "scores": queries * products, "results": queries * depth,
        "results at once": min(queries, _SEARCHED_QUERIES) * depth,
    }  # fmt: skip
    if stage in ("index", "retrieve"):
        found |= _index_amounts(kind.removesuffix("-ray"), units)
    if stage == "bm25":
        japanese = kind.startswith("sudachi")
        # A product's terms, different ones and one by one; new ones become rare.
        different, terms, vocabulary = (300, 460, 2_300) if japanese else (126, 190, 800)
        piece = min(products, postings.PIECE_PRODUCTS)
        found["japanese products"] = products * japanese
        found["memory bytes"] = postings.memory_bytes(
            kind, products, postings=different * products, terms=round(vocabulary * products**0.5),
            piece_terms=terms * piece, piece_postings=different * piece,
            found=min(queries, 256) * depth,
        )  # fmt: skip
    return found


def _index_amounts(kind: str, units: Units) -> dict[str, float]:
    """Return what building and searching an index take; of vectors, in multiplications."""
    products, dimension, queries = units["products"], units["dimension"], units.get("queries", 0)
    names = {"m", "ef_construction", "ef_search", "lists", "probes", "subvectors", "bits"}
    settings: Index = TypeAdapter(Index).validate_python(
        {"kind": kind, **{name: units[name] for name in names & units.keys()}}
    )
    # What another index than flat finds is compared with exact search, for some queries.
    exact = queries if isinstance(settings, FlatIndex) else min(queries, 1_000)
    found = {
        "index bytes": index_size.disk_bytes(settings, products, dimension),
        "memory bytes": index_size.memory_bytes(settings, products, dimension),
        "exact": exact * products * dimension,
        "quantised": queries * products * dimension * isinstance(settings, Sq8Index),
        "links": 0.0, "walked": 0.0, "probed": 0.0, "distances": 0.0,
    }  # fmt: skip
    if isinstance(settings, HnswIndex):
        steps = settings.m * dimension * math.log2(products + 2)
        found["links"] = products * steps * settings.ef_construction / (32 * 200)
        found["walked"] = queries * steps * settings.ef_search / 14
    if isinstance(settings, IvfFlatIndex | IvfPqIndex):
        lists = settings.lists
        found["probed"] = queries * dimension * (products * settings.probes / lists + lists)
        # k-means on at most 256 vectors per list, ten times; then all products go into their lists.
        found["distances"] = lists * dimension * (10 * min(products, 256 * lists) + products)
    if isinstance(settings, IvfPqIndex):
        codes = 2**settings.bits
        found["distances"] += codes * dimension * (25 * min(products, 256 * codes) + products)
    return found
