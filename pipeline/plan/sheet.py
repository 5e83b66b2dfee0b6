"""The cost sheet: a row a stage and locale, what they sum up to, and what will not fit."""

import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field

from pipeline.bm25.analysers import analyser_name
from pipeline.core import layout, memory
from pipeline.core.params import Name, Params, Strict
from pipeline.core.timings import NOT_NEGATIVE, Kept
from pipeline.plan import encoding, sizes
from pipeline.plan.costs import START_SECONDS, cost, scale

SHOWN_UNITS = (
    "rows", "products", "queries", "judgements", "encoded", "locales", "threads",
)  # fmt: skip

Amount = Annotated[float, NOT_NEGATIVE]


class Row(Strict):
    """What one stage takes for one locale, or for all where `locale` is None.

    Attributes:
        stage: its module.
        locale: a locale.
        kind: what of several ways it goes, as `stage.Done` has it.
        units: how much it works on, as `stage.Done` has it.
        seconds: of its own work.
        peak_bytes: resident memory at its highest.
        disk_bytes: what it leaves behind.
        times_default: the machine's time over the model's.
        known: how all this is known.
    """

    stage: str
    locale: Name | None
    kind: Name | None
    units: dict[str, Annotated[int, Field(ge=0)]]
    seconds: Amount
    peak_bytes: Amount
    disk_bytes: Amount
    times_default: Amount
    known: str

    def shown(self) -> str:
        """Return the units as they are told: 592 products, 73 queries."""
        return ", ".join(f"{self.units[one]:,} {one}" for one in SHOWN_UNITS if one in self.units)


class Totals(Strict):
    """All stages one after another (JOBS=1).

    `seconds` holds what starting each stage takes; `disk_bytes` no copy in DVC's cache.
    """

    seconds: Amount
    peak_bytes: Amount
    disk_bytes: Amount


def rows(params: Params, kept: Sequence[Kept], current: Collection[str]) -> Iterator[Row]:
    """Yield the rows in the order in which the stages run.

    Args:
        params: the choices.
        kept: what the stages took on this machine before.
        current: which stages are up to date, as `current_stages` returns.

    Raises:
        PipelineError: the source cannot be used.
    """

    def row(
        stage: str, locale: str | None, units: dict[str, int], known: str, kind: str | None = None
    ) -> Row:
        model, factor = cost(stage, kind, units), scale(stage, locale, kind, kept, threads)
        return Row(
            stage=stage, locale=locale, kind=kind, units=units,
            seconds=model.seconds * factor.time, peak_bytes=model.peak_bytes * factor.memory,
            disk_bytes=model.disk_bytes, times_default=factor.time,
            known="; ".join(filter(None, (factor.known, known))),
        )  # fmt: skip

    threads = params.runtime.thread_count()
    source = sizes.measure(params, made="demo" in current)
    of_demo = Path(params.sample.source) == layout.DEMO
    if of_demo:
        yield row("demo", None, sizes.demo_units(params.demo), "")
    drawn = source.locales
    totals = {
        unit: sum(getattr(size, unit) for size in drawn.values())
        for unit in ("products", "queries", "judgements")
    }
    sampled = row("sample", None, {"rows": source.rows, **totals}, source.known)
    # Better known than by the model: the source's own compressed size.
    of_products = source.product_bytes * totals["products"]
    yield sampled.model_copy(update={"disk_bytes": max(of_products, sampled.disk_bytes / 2)})
    shown = 0
    for locale in params.locales:
        size = drawn[locale]
        known = "" if size.exact else source.known
        cleaned = {unit: getattr(size, unit) for unit in ("products", "queries", "judgements")}
        yield row("clean", locale, {**cleaned, "threads": params.runtime.thread_count()}, known)
        before = {"sample", f"clean@{locale}"} | ({"demo"} if of_demo else set())
        todo = encoding.foresee(params, locale, size, cleaned=before <= set(current))
        known = "" if todo.counted else known or "at most"
        products, queries = todo.products, todo.queries
        vectors = {"products": products, "queries": queries, "dimension": todo.dimension}
        embedded = row(
            "embed", locale,
            {**vectors, "encoded": todo.encoded, "characters": todo.characters}, known,
        )  # fmt: skip
        # The model's shards are float32; the stored vectors stay that.
        saved = 2 * todo.dimension * (products + queries) * (params.embed.dtype == "float16")
        rest = cost("embed", None, {**embedded.units, "characters": 0}).seconds
        yield embedded.model_copy(
            update={
                "seconds": rest + todo.seconds,
                "disk_bytes": embedded.disk_bytes - saved,
                "known": "; ".join(filter(None, (todo.known, known))),
            }
        )
        index = params.index_of(locale)
        settings: dict[str, int] = index.model_dump(exclude={"kind"})
        depth = {"depth": params.retrieve.depth}
        built = {"products": products, "dimension": todo.dimension, **settings}
        yield row("index", locale, built, known, params.index_way(locale))
        yield row("retrieve", locale, {**vectors, **depth, **settings}, known, index.kind)
        searched = {"products": products, "queries": queries, **depth}
        yield row("bm25", locale, searched, known, analyser_name(params.language[locale]))
        yield row("hybrid", locale, searched, known)
        yield row("evaluate", locale, searched, known)
        shown += min(queries, params.report.queries)
    yield row("report", None, {"locales": len(params.locales), "queries": shown}, "")


def totals(sheet: Sequence[Row]) -> Totals:
    """Return what all rows together take."""
    return Totals(
        seconds=sum(row.seconds + START_SECONDS for row in sheet),
        peak_bytes=max(row.peak_bytes for row in sheet),
        disk_bytes=sum(row.disk_bytes for row in sheet),
    )


def warnings(params: Params, sheet: Sequence[Row]) -> Iterator[str]:
    """Say what will not fit: into the memory, into its limit, onto the disk."""
    limit = memory.limit_bytes(params.runtime)
    name = "this machine has" if params.runtime.memory_limit is None else "runtime.memory_limit is"
    for row in sheet:
        if row.peak_bytes > limit:
            yield (
                f"{_where(row)} would need {gigabytes(row.peak_bytes)} of memory, and {name} "
                f"{gigabytes(limit)}; {_smaller(row)}"
            )
    # DVC keeps a copy of each output, where the file system cannot share one.
    needed, free = 2 * totals(sheet).disk_bytes, shutil.disk_usage(Path()).free
    if needed > free:
        yield (
            f"the outputs and DVC's copies of them would take {gigabytes(needed)} of disk, more "
            f"than the {gigabytes(free)} that are free here; free some space (`dvc gc "
            "--workspace`), draw less (sample.queries, sample.distractors), or use embed.dtype "
            "float16"
        )


def gigabytes(size: float) -> str:
    """Return a size as it is told."""
    return f"{size / 1e9:,.1f} GB"


def _where(row: Row) -> str:
    return row.stage + (f" of {row.locale}" if row.locale else "")


def _smaller(row: Row) -> str:
    if row.stage in ("index", "retrieve") and not (row.kind or "").startswith(("ivf-pq", "sq8")):
        return f"choose a smaller index.{row.locale} (sq8, ivf-pq), or draw less (sample)"
    return "draw less (sample.distractors, sample.queries), or run it on a larger machine"
