"""What 100 million products would take, from the rates of reports/bench: `python -m bench.large`.

Nothing runs. What a stage took at the largest size of scale.json becomes a record of
`pipeline.plan`, whose model says what more products take, and what memory and disk. Encoding is of
encode.json, and of ray.json how fast one process hands out texts. Of a stage that shares its work,
measured time and CPU time say how much of it is shared (Amdahl's law); the others take as long on
any machine. bm25 works range by range: its memory and disk are those of `bm25.room`.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bench import reports
from pipeline.bm25 import postings, room
from pipeline.bm25.search import BATCH_QUERIES
from pipeline.bm25.texts import PIECE_PRODUCTS, WORKERS_SHARE
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json
from pipeline.core.text_tables import markdown
from pipeline.core.timings import Record
from pipeline.plan import costs

PRODUCTS, QUERIES, JUDGED = 100_000_000, 130_652, 20
"""As many queries as all of ESCI has, each with about as many judged products."""

CORES, MACHINES = 64, 16
DEPTH, DIMENSION = 1_000, 384
ANALYSER = "snowball-en"
MEMORY_LIMIT = 64_000_000_000
"""What bm25 may take: `runtime.memory_limit`. All terms in memory would take more."""
ENCODER = ("minilm", "openvino cpu float32")
FED = "texts_a_driver_core_feeds_a_second"
AGAIN = "Run `make bench bench-ray`."
FEWEST_SIZE = 1_000_000
"""A rate of fewer products says little about so many."""

Figures = Mapping[str, Any]
Units = dict[str, int]


@dataclass(frozen=True)
class Step:
    """One row: a stage, and who shares its work.

    Attributes:
        measured: its name in reports/bench/scale.json.
        stage: its name in `costs.RATES`.
        kind: which of several ways it goes.
        units: how much it works on, beside products.
        shared: whether the cores of a machine share the work; else more than were measured do not
            help.
    """

    measured: str
    stage: str
    kind: str | None
    units: Units
    shared: bool = False


_SEARCHED = {"queries": QUERIES, "depth": DEPTH}
_VECTORS = {"dimension": DIMENSION}
_INVERTED = {"lists": 1024, "probes": 64, "subvectors": 48, "bits": 8}
_FAST = {"subvectors": 192, "rescore": 4}
_FAST_LISTS = {"lists": 1024, "probes": 128, "subvectors": 192, "rescore": 2}

STEPS = (
    Step("sample", "sample", None, {"queries": QUERIES}),
    Step("clean", "clean", None, {"queries": QUERIES}),
    Step("index (flat)", "index", "flat", _VECTORS),
    Step("index (sq8)", "index", "sq8", _VECTORS),
    Step("index (pq-fastscan)", "index", "pq-fastscan", _VECTORS | _FAST),
    Step("index (ivf-pq)", "index", "ivf-pq", _VECTORS | _INVERTED),
    Step("index (ivf-pq-fastscan)", "index", "ivf-pq-fastscan", _VECTORS | _FAST_LISTS),
    Step("retrieve (flat)", "retrieve", "flat", _VECTORS | _SEARCHED, True),
    Step("retrieve (sq8)", "retrieve", "sq8", _VECTORS | _SEARCHED, True),
    Step("retrieve (pq-fastscan)", "retrieve", "pq-fastscan", _VECTORS | _SEARCHED | _FAST, True),
    Step("retrieve (ivf-pq)", "retrieve", "ivf-pq", _VECTORS | _SEARCHED | _INVERTED, True),
    Step(
        "retrieve (ivf-pq-fastscan)",
        "retrieve",
        "ivf-pq-fastscan",
        _VECTORS | _SEARCHED | _FAST_LISTS,
        True,
    ),
    Step("bm25", "bm25", ANALYSER, _SEARCHED, True),
    Step("hybrid", "hybrid", None, _SEARCHED, True),
    Step("evaluate", "evaluate", None, _SEARCHED, True),
    Step("report", "report", None, {"queries": QUERIES, "locales": 3}),
)
"""The stages in their order, of those that scale.json has; `embed` comes of `_encoding`."""

_BY_RANGES = (("retrieve", "flat"), ("retrieve", "sq8"), ("bm25", ANALYSER))


def rows(scale: Figures, encode: Figures, ray: Figures) -> Iterator[list[str]]:
    """Yield the cells of each stage: name, memory, disk, hours on one machine and on all, source.

    Args:
        scale: reports/bench/scale.json.
        encode: reports/bench/encode.json.
        ray: reports/bench/ray.json.

    Raises:
        PipelineError: something was not measured.
    """
    vectors = _vectors(scale)
    for step in STEPS:
        points = scale["stages"].get(step.measured, [])
        if step.stage == "index" and step.kind == "flat":
            yield _encoding(encode, ray)
        if not points or points[-1]["products"] < FEWEST_SIZE:
            continue
        yield _row(step, points[-1], vectors, scale["machine"]["cores"])


def _row(step: Step, point: Figures, vectors: int, cores: int) -> list[str]:
    products = vectors if step.stage in ("index", "retrieve", "bm25") else point["products"]
    before = {"queries": point["queries"]} if "queries" in point else {}
    run = Record(
        stage=step.stage, locale=None, kind=step.kind, threads=cores, ended=0.0,
        units=_units({**step.units, **before}, products, cores), seconds=point["seconds"],
        peak_bytes=point["peak_private_bytes"],
    )  # fmt: skip
    # The records' cores, so that the model scales what was measured and nothing else.
    units = _units(step.units, PRODUCTS, cores)
    found = costs.row([run], step.stage, None, units, step.kind)
    hours = found.seconds / 3600
    source = f"scale.json, {point['seconds']:,.0f} s for {products:,} products"
    if "queries" in before:
        source += f" and {before['queries']:,} queries"
    if step.shared:
        hours *= _on_all_cores(point, cores)
        source += f", {point['cpu_seconds']:,.0f} s of CPU"
    # A cluster may search it by ranges; nothing measured says how long so many machines take.
    many = None if (step.stage, step.kind) in _BY_RANGES else hours
    name, memory, disk = step.measured, found.peak_bytes, found.disk_bytes
    if step.stage == "bm25":
        name, (memory, disk) = "bm25 (range by range)", _words_by_ranges(units)
    return _cells(name, memory, disk, hours, many, source)


def _words_by_ranges(units: Units) -> tuple[float, float]:
    """Return the memory and the disk of bm25 on `CORES` cores, with `MEMORY_LIMIT`."""
    different, terms, vocabulary = costs.terms_of(ANALYSER)
    runs = costs.default_cost("bm25", ANALYSER, units | {"counted": 0})
    memory = postings.memory_bytes(
        ANALYSER, PRODUCTS,
        postings=room.RANGE_POSTINGS, terms=round(vocabulary * PRODUCTS**0.5),
        piece_terms=terms * PIECE_PRODUCTS, piece_postings=different * PIECE_PRODUCTS,
        found=BATCH_QUERIES * DEPTH, threads=CORES,
        workers=min(CORES, MEMORY_LIMIT // (WORKERS_SHARE * postings.WORKER_BYTES)),
        searched=room.RANGE_POSTINGS // different,
    )  # fmt: skip
    # All terms that products have: those that queries have may be fewer.
    disk = postings.MERGED_BYTES * different * PRODUCTS + runs.disk_bytes
    return memory + room.MOST_HELD * room.HELD_BYTES, disk


def _on_all_cores(point: Figures, cores: int) -> float:
    """Return the time on `CORES` cores, as a part of what was measured on `cores` of them.

    Amdahl's law: a time of serial + shared / cores with serial + shared = CPU time. Waiting counts
    as serial.
    """
    wall, cpu = point["seconds"], point["cpu_seconds"]
    serial = min(max((cores * wall - cpu) / (cores - 1), 0), wall)
    shared = cores * (wall - serial)
    return float((serial + shared / CORES) / wall)


def _units(units: Units, products: int, threads: int) -> Units:
    """Return the units of a run, as `stage.Done` has them."""
    given = {**units, "products": products, "rows": products, "threads": threads}
    given["counted"] = products
    given["judgements"] = JUDGED * given.get("queries", QUERIES)
    return given


def _encoding(encode: Figures, ray: Figures) -> list[str]:
    name, side = ENCODER
    try:
        measured, cores = encode["encoders"][name], encode["machine"]["cores"]
        rate, fed = measured["sides"][side]["texts_per_second"], ray["tiny"][FED]
    except KeyError as err:
        raise PipelineError(
            f"{layout.ENCODE_BENCH} or {reports.RAY} has no {err}. {AGAIN}"
        ) from err
    texts = PRODUCTS + QUERIES
    units = {"products": PRODUCTS, "queries": QUERIES, "encoded": texts, "characters": 0,
             "dimension": DIMENSION}  # fmt: skip
    model = costs.default_cost("embed", None, units)
    one = texts / rate / 3600 * cores / CORES
    many = max(one / MACHINES, texts / fed / 3600)
    source = (
        f"encode.json, {rate:,.0f} texts/s on {cores} cores; ray.json, {fed:,} texts/s handed out"
    )
    memory = model.start_bytes + model.work_bytes
    return _cells(f"embed ({name}, float32)", memory, model.disk_bytes, one, many, source)


def _cells(
    name: str, memory: float, disk: float, one: float, many: float | None, source: str
) -> list[str]:
    sizes = [f"{size / 1e9:,.0f}" for size in (memory, disk)]
    return [name, *sizes, f"{one:,.2f}", "-" if many is None else f"{many:,.2f}", source]


def _vectors(scale: Figures) -> int:
    """Return how many products the locale has that index, retrieve and bm25 are measured on."""
    points = scale["stages"].get("index (flat)", [])
    if not points:
        raise PipelineError(f"{layout.SCALE_BENCH} has no `index (flat)`. Run `make scale`.")
    return int(points[-1]["vectors"])


def table(scale: Figures, encode: Figures, ray: Figures) -> str:
    """Return the Markdown table; under it, whether its rates are of several CPUs."""
    hours = (f"hours, {CORES} cores", f"hours, {MACHINES} × {CORES}")
    header = ("stage", "memory, GB", "disk, GB", *hours, "rate")
    text = markdown(header, list(rows(scale, encode, ray)), header[1:5])
    one, other = (set(each["machine"]["cpu_flags"]) & reports.CPU_FLAGS for each in (encode, scale))
    if one != other:
        text += (
            f"\nThe rate of embed is of another CPU ({', '.join(sorted(one))}) than the others "
            f"({', '.join(sorted(other))}).\n"
        )
    return text


def of_scale(text: str) -> str:
    """Return the table of the text of scale.json, and of the other two files."""
    scale = json.loads(text)
    return table(scale, *(read_json(path, AGAIN) for path in (layout.ENCODE_BENCH, reports.RAY)))


def main() -> int:
    """Print the table; return the exit status."""
    argparse.ArgumentParser(prog="python -m bench.large").parse_args()
    with stage.report_errors("bench.large") as outcome:
        sys.stdout.write(of_scale(layout.SCALE_BENCH.read_text(encoding="utf-8")))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
