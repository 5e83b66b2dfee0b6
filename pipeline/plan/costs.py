"""What a stage takes for so many units: seconds, peak memory, disk. A model, scaled by records.

The constants were measured on two cores of an x86-64 server with AVX-512, on the demo at 60,000
products and on ESCI's shape at 100,000 and 400,000; `python -m pipeline.plan --json` tells
by which factor a machine's own records differ from them. Every cost rises with every unit.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from pipeline.bm25 import postings
from pipeline.clean.products import BATCH_ROWS, WAITING_BATCHES
from pipeline.core.params import Index
from pipeline.core.timings import Kept, Record
from pipeline.index import size as index_size

Units = Mapping[str, int]

DEFAULT_CHARACTERS_A_SECOND = 11_000.0
"""What an encoder of 12 layers and 384 components reads on two cores, in float32."""

START_SECONDS = 1.0
"""What DVC and Python take for a stage before and behind its own work: 24 stages of the demo took
26 seconds, 4 of them for their own work."""

LOAD_SECONDS = 6.0
"""What an encoder takes to be loaded."""

_MB = 1e6
_SEARCHED_QUERIES = 1_024  # at a time, by retrieve, hybrid and evaluate
_STORE_ENTRY_BYTES = 20 + 24  # key and checksum; token counts


@dataclass(frozen=True)
class Cost:
    """Seconds of work, the highest resident memory, and what is left on the disk, in bytes."""

    seconds: float
    peak_bytes: float
    disk_bytes: float


@dataclass(frozen=True)
class Scale:
    """How a machine differs from the model: factors of time and memory, and how that is known."""

    time: float = 1.0
    memory: float = 1.0
    known: str = "default rate"


def cost(stage: str, kind: str | None, units: Units) -> Cost:
    """Return what a stage takes by the model.

    Args:
        stage: its module.
        kind: what of several ways it goes, as `stage.Done` has it.
        units: how much it works on, as `stage.Done` has it.

    Raises:
        KeyError: a unit is missing, or the stage is unknown.
    """
    return _MODELS[stage](kind or "", units)


def scale(
    stage: str, locale: str | None, kind: str | None, kept: Iterable[Kept], threads: int
) -> Scale:
    """Return how this machine's records of a stage differ from the model.

    What ran with other than `threads` is named, and not scaled: what a thread is worth differs.
    The locale's own record counts, else that of the locale where it worked for longest. Memory is
    never scaled down: a short run fills less of it than a long one. Encoding has rates of its own.
    """
    records = [
        each.telling
        for each in kept
        if each.telling is not None and (each.telling.stage, each.telling.kind) == (stage, kind)
    ]
    records.sort(key=lambda one: (one.locale == locale, one.seconds), reverse=True)
    for record in records:
        try:
            model = cost(stage, kind, record.units)
        except (KeyError, ValidationError):  # of another version
            continue
        time = 1.0 if stage == "embed" else record.seconds / model.seconds
        memory = max(1.0, record.peak_bytes / model.peak_bytes)
        return Scale(time, memory, _where(record, locale, threads))
    return Scale()


def _settings(kind: str, units: Units) -> Index:
    """Return the index that units of `index` or `retrieve` tell of."""
    names = {"m", "ef_construction", "ef_search", "lists", "probes", "subvectors", "bits"}
    found: Index = TypeAdapter(Index).validate_python(
        {"kind": kind, **{name: units[name] for name in names & units.keys()}}
    )
    return found


def threads_told(count: int) -> str:
    """Return a number of threads as it is told."""
    return "1 thread" if count == 1 else f"{count} threads"


def _where(record: Record, locale: str | None, threads: int) -> str:
    of = "" if record.locale in (None, locale) else f" of {record.locale}"
    products = record.units.get("products", 0)
    on = f" on {products:,} products" if products else ""
    by = f" with {threads_told(record.threads)}" if record.threads != threads else ""
    return f"measured here{of}{on}{by}"


def _demo(_: str, units: Units) -> Cost:
    products = units["products"] + units["queries"]
    return Cost(0.1 + 180e-6 * products, 180 * _MB + 2_500 * products, 80 * products)


def _sample(_: str, units: Units) -> Cost:
    rows, products = units["rows"], units["products"]
    return Cost(
        0.1 + 2e-6 * rows + 5e-6 * products,
        280 * _MB + 200 * rows + 250 * products + 5_500 * min(products, 50_000),
        470 * products + 25 * units["judgements"],
    )


def _clean(_: str, units: Units) -> Cost:
    products = units["products"] + units["queries"]
    # Batches being cleaned or waiting, of which each thread has its own, and those read ahead.
    at_once = BATCH_ROWS * (units["threads"] + WAITING_BATCHES + 3)
    return Cost(
        0.05 + 12e-6 * products + 2e-6 * units["judgements"],
        300 * _MB + 4_500 * min(products, at_once) + 800 * products + 300 * units["judgements"],
        470 * products + 8 * units["judgements"],
    )


def _embed(_: str, units: Units) -> Cost:
    vectors, dimension = units["products"] + units["queries"], units["dimension"]
    encoded = units["encoded"]
    seconds = 0.5 + 90e-6 * vectors + units["characters"] / DEFAULT_CHARACTERS_A_SECOND
    return Cost(
        seconds + (LOAD_SECONDS if encoded else 0.0),
        (1_200 if encoded else 170) * _MB + 300 * vectors,
        4 * dimension * vectors + (4 * dimension + _STORE_ENTRY_BYTES) * encoded,
    )


def _index(way: str, units: Units) -> Cost:
    kind = way.removesuffix("-ray")
    products, dimension = units["products"], units["dimension"]
    lists = units.get("lists", 0)
    settings = _settings(kind, units)
    size = index_size.disk_bytes(settings, products, dimension)
    work = products * dimension
    seconds = 20e-9 * work + 1e-9 * size
    if kind == "hnsw":
        links = units["m"] / 32 * units["ef_construction"] / 200
        seconds += 40e-9 * work * links * math.log2(products + 2)
    if lists:
        # k-means on at most 256 vectors a list, ten times, and then all into their lists.
        trained = min(products, 256 * lists)
        seconds += lists * dimension * (10 * trained + products) / 50e9
    if kind == "ivf-pq":
        codes = 2 ** units["bits"] * dimension
        seconds += codes * (25 * min(products, 256 * 2 ** units["bits"]) + products) / 50e9
    return Cost(0.05 + seconds, index_size.memory_bytes(settings, products, dimension), size)


def _retrieve(kind: str, units: Units) -> Cost:
    queries, products, dimension = units["queries"], units["products"], units["dimension"]
    depth = min(units["depth"], products)
    scan = queries * products * dimension
    exact = min(queries, 1_000) * products * dimension / 20e9  # what the index finds, is held to
    match kind:
        case "flat":
            seconds = scan / 20e9
        case "sq8":
            seconds = scan / 6.5e9 + exact
        case "hnsw":
            walked = units["ef_search"] * units["m"] * dimension * math.log2(products + 2) / 14
            seconds = queries * walked / 40e9 + exact
        case _:
            probed = products * units["probes"] / units["lists"] + units["lists"]
            seconds = queries * probed * dimension / 5e9 + exact
    size = index_size.disk_bytes(_settings(kind, units), products, dimension)
    ranked = 330 * min(queries, _SEARCHED_QUERIES) * depth
    return Cost(
        0.1 + seconds + 0.3e-6 * queries * depth + 60e-9 * products * dimension / 100,
        230 * _MB + size + 12 * dimension * queries + 100 * products + ranked,
        _run_bytes(queries, depth),
    )


def _bm25(kind: str, units: Units) -> Cost:
    queries, products = units["queries"], units["products"]
    depth = min(units["depth"], products)
    japanese = kind.startswith("sudachi")
    a_product = 690e-6 if japanese else 330e-6
    # A product's terms, different ones and one by one; new ones become rare.
    different, terms, vocabulary = (300, 460, 2_300) if japanese else (126, 190, 800)
    piece = min(products, postings.PIECE_PRODUCTS)
    peak = postings.memory_bytes(
        kind, products,
        postings=different * products, terms=round(vocabulary * products**0.5),
        piece_terms=terms * piece, piece_postings=different * piece,
        found=min(queries, 256) * depth,
    )  # fmt: skip
    return Cost(
        0.3 + a_product * products + queries * (0.2e-3 + 6e-9 * products + 0.6e-6 * depth),
        peak,
        _run_bytes(queries, depth),
    )


def _hybrid(_: str, units: Units) -> Cost:
    queries, depth = units["queries"], min(units["depth"], units["products"])
    return Cost(
        0.1 + 0.6e-6 * queries * depth + 0.3e-6 * units["products"],
        230 * _MB + 450 * min(queries, _SEARCHED_QUERIES) * depth + 150 * units["products"],
        _run_bytes(queries, depth),
    )


def _evaluate(_: str, units: Units) -> Cost:
    queries, depth = units["queries"], min(units["depth"], units["products"])
    return Cost(
        0.2 + 0.6e-6 * queries * depth + 0.6e-6 * units["products"],
        240 * _MB + 330 * min(queries, _SEARCHED_QUERIES) * depth + 4_000 * queries
        + 200 * units["products"],
        600 * queries,
    )  # fmt: skip


def _report(_: str, units: Units) -> Cost:
    queries = units["queries"]
    return Cost(
        0.2 + 0.1 * units["locales"] + 120e-6 * queries, 230 * _MB + 20_000 * queries,
        300_000 + 850 * queries,
    )  # fmt: skip


def _run_bytes(queries: int, depth: int) -> float:
    return 5.5 * queries * depth + 200 * queries


_MODELS: Mapping[str, Callable[[str, Units], Cost]] = {
    "demo": _demo, "sample": _sample, "clean": _clean, "embed": _embed, "index": _index,
    "retrieve": _retrieve, "bm25": _bm25, "hybrid": _hybrid, "evaluate": _evaluate,
    "report": _report,
}  # fmt: skip
