"""The cost sheet: a row per stage and locale, their total, and what will not fit."""

import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from pydantic import Field

from pipeline.bm25.analysers import analyser_name
from pipeline.core import layout, memory, stage
from pipeline.core.errors import one_line
from pipeline.core.params import Name, Params, Strict
from pipeline.core.timings import NOT_NEGATIVE, Record
from pipeline.plan import encoding, sizes
from pipeline.plan.costs import cost
from pipeline.plan.rates import STAGE_SECONDS

SHOWN_UNITS = ("rows", "products", "queries", "judgements", "encoded", "locales", "threads")

Amount = Annotated[float, NOT_NEGATIVE]


class Row(Strict):
    """What one stage takes for one locale, or for all locales where `locale` is None.

    `units` and `kind` are those of `stage.Done`; `seconds` are of the stage's own work,
    `disk_bytes` what it leaves; `known` says how all this is known.
    """

    stage: str
    locale: Name | None
    kind: Name | None
    units: dict[str, Annotated[int, Field(ge=0)]]
    seconds: Amount
    peak_bytes: Amount
    disk_bytes: Amount
    known: str

    def shown(self) -> str:
        """Return the units as text: 592 products, 73 queries."""
        return ", ".join(f"{self.units[one]:,} {one}" for one in SHOWN_UNITS if one in self.units)


def current_stages(params: Params) -> frozenset[str]:
    """Return those of demo, sample and the locales' clean that `dvc repro` would not run.

    None if DVC cannot say: it holds a lock while it works, for example.
    """
    names = ["demo", "sample", *(f"clean@{locale}" for locale in params.locales)]
    if not layout.LOCK.exists():
        return frozenset()
    try:
        with Repo() as repository:
            stale: Mapping[str, Any] = repository.status(names)
    except DvcException as err:
        stage.log.info("All stages are taken to be out of date: DVC says: %s", one_line(err))
        return frozenset()
    return frozenset(names) - stale.keys()


def rows(params: Params, records: Sequence[Record], current: Collection[str]) -> list[Row]:
    """Return the rows in the order in which the stages run.

    Args:
        params: the choices.
        records: the largest runs on this machine.
        current: which stages are up to date, as `current_stages` returns them.

    Raises:
        PipelineError: the source cannot be used.
    """
    source = sizes.measure(params, made="demo" in current)
    row, of_demo = partial(_row, records), Path(params.sample.source) == layout.DEMO
    found = [row("demo", None, sizes.demo_units(params.demo))] if of_demo else []
    units = ("products", "queries", "judgements")
    drawn = {
        locale: {unit: getattr(size, unit) for unit in units}
        for locale, size in source.locales.items()
    }
    known = "" if source.counted else "at most"
    summed = {unit: sum(each[unit] for each in drawn.values()) for unit in units}
    found.append(row("sample", None, {"rows": source.rows, **summed}, known=known))
    shown = 0
    for locale in params.locales:
        made = {"sample", f"clean@{locale}"} | ({"demo"} if of_demo else set()) <= set(current)
        threads = {"threads": params.runtime.thread_count()}
        found.append(row("clean", locale, {**drawn[locale], **threads}, known=known))
        todo = encoding.foresee(params, locale, source.locales[locale], cleaned=made)
        found.extend(_branch(params, locale, todo, row, "" if made else "at most"))
        shown += min(todo.queries, params.report.queries)
    report = {"locales": len(params.locales), "queries": shown}
    return [*found, row("report", None, report)]


def _branch(
    params: Params, locale: str, todo: encoding.Encoded, row: Callable[..., Row], known: str
) -> list[Row]:
    """Return a locale's rows from embed on."""
    index, analyser = params.index_of(locale), analyser_name(params.language[locale])
    settings, depth = index.model_dump(exclude={"kind"}), {"depth": params.retrieve.depth}
    products, queries = {"products": todo.products}, {"queries": todo.queries}
    width, searched = {"dimension": todo.dimension}, {**products, **queries, **depth}
    vectors = {**products, **queries, **width}
    work = {"encoded": todo.encoded, "characters": todo.characters}
    embed = row("embed", locale, {**vectors, **work}, known=known)
    # An encoder's speed is known by itself. The table has float32; stored vectors are that always.
    rest = _row((), "embed", locale, {**vectors, **work, "characters": 0}).seconds
    saved = 2 * todo.dimension * (todo.products + todo.queries)
    guess = embed.known.split(";")[0] if embed.known.startswith("guess") else ""
    better = {
        "seconds": rest + todo.seconds,
        "disk_bytes": embed.disk_bytes - saved * (params.embed.dtype == "float16"),
        "known": "; ".join(filter(None, (guess, todo.known, known))),
    }
    return [
        embed.model_copy(update=better),
        row("index", locale, {**products, **width, **settings}, params.index_way(locale), known),
        row("retrieve", locale, {**vectors, **depth, **settings}, index.kind, known),
        row("bm25", locale, searched, analyser, known),
        row("hybrid", locale, searched, known=known),
        row("evaluate", locale, searched, known=known),
    ]


def _row(
    records: Sequence[Record], stage: str, locale: str | None, units: dict[str, int],
    kind: str | None = None, known: str = "",
) -> Row:  # fmt: skip
    one = cost(stage, locale, kind, units, records)
    return Row(
        stage=stage, locale=locale, kind=kind, units=units,
        seconds=one.start_seconds + one.work_seconds, peak_bytes=one.start_bytes + one.work_bytes,
        disk_bytes=one.disk_bytes, known="; ".join(filter(None, (one.known, known))),
    )  # fmt: skip


def total(found: Sequence[Row]) -> Row:
    """Return what all rows take one after another, with the start of each stage."""
    return Row(
        stage="total", locale=None, kind=None, units={}, known="",
        seconds=sum(row.seconds + STAGE_SECONDS for row in found),
        peak_bytes=max(row.peak_bytes for row in found),
        disk_bytes=sum(row.disk_bytes for row in found),
    )  # fmt: skip


def warnings(params: Params, found: Sequence[Row]) -> Iterator[str]:
    """Say what will not fit into the memory, its limit, or the disk."""
    limit = memory.limit_bytes(params.runtime)
    name = "this machine has" if params.runtime.memory_limit is None else "runtime.memory_limit is"
    for row in found:
        if row.peak_bytes > limit:
            where = row.stage + (f" of {row.locale}" if row.locale else "")
            remedy = "Draw less (sample.distractors, sample.queries), or use a larger machine."
            if row.stage in ("index", "retrieve") and row.kind in ("flat", "hnsw", "ivf-flat"):
                remedy = (
                    f"Choose a smaller index.{row.locale} (sq8, ivf-pq), or draw less (sample)."
                )
            needed = memory.gigabytes(round(row.peak_bytes))
            yield f"{where} needs {needed} of memory; {name} {memory.gigabytes(limit)}. {remedy}"
    # DVC keeps a copy of each output, where the file system cannot share one.
    needed_disk, free = 2 * total(found).disk_bytes, shutil.disk_usage(Path()).free
    if needed_disk > free:
        yield (
            f"the outputs and DVC's copies of them need {memory.gigabytes(round(needed_disk))} of "
            f"disk; {memory.gigabytes(free)} are free. Free some space (`dvc gc --workspace`), "
            "draw less (sample.queries, sample.distractors), or use embed.dtype float16."
        )
