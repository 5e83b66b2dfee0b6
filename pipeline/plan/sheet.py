"""The cost sheet: a row per stage and locale, their total, and what will not fit."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from pipeline.bm25.analysers import analyser_name
from pipeline.bm25.texts import worker_count
from pipeline.core import layout, memory
from pipeline.core.params import Params
from pipeline.core.timings import Record
from pipeline.demo.tables import LOCALES
from pipeline.encoders.tokens import CHARACTERS_PER_TEXT, CHARACTERS_PER_TOKEN
from pipeline.plan import costs
from pipeline.plan.costs import Row
from pipeline.plan.encoding import embed_row
from pipeline.plan.sizes import Size, measure
from pipeline.plan.training import training_rows


def rows(params: Params, records: Sequence[Record]) -> list[Row]:
    """Return the rows in the order of the stages; `records` are the largest runs on this machine.

    Raises:
        PipelineError: the source cannot be used.
    """
    read, drawn = measure(params)
    row, found = partial(costs.row, records), []
    if Path(params.sample.source) == layout.DEMO:
        demo = {"products": params.demo.products, "queries": params.demo.queries}
        found.append(row("demo", None, {unit: len(LOCALES) * n for unit, n in demo.items()}))
    units = ("products", "queries", "judgements")
    summed = {unit: sum(getattr(size, unit) for size in drawn.values()) for unit in units}
    found.append(row("sample", None, {"rows": read, **summed}))
    found.extend(training_rows(params, row))
    threads = {"threads": params.runtime.thread_count()}
    for locale in params.locales:
        size = drawn[locale]
        found.append(row("clean", locale, {unit: getattr(size, unit) for unit in units} | threads))
        found.extend(_branch(params, locale, size, row))
    for locale in params.explore:
        found.extend(_explored(params, locale, drawn[locale], found, row))
    shown = sum(min(drawn[locale].queries, params.report.queries) for locale in params.locales)
    return [*found, row("report", None, {"locales": len(params.locales), "queries": shown})]


def _branch(params: Params, locale: str, size: Size, row: Callable[..., Row]) -> Iterator[Row]:
    """Yield a locale's rows from embed on."""
    embed, index = embed_row(params, locale, size, row), params.index_of(locale)
    settings, depth = index.model_dump(exclude={"kind"}), {"depth": params.retrieve.depth}
    threads = {"threads": params.runtime.thread_count()}
    products, queries = {"products": size.products}, {"queries": size.queries}
    built = {**products, "dimension": embed.units["dimension"], **settings}
    searched = {**products, **queries, **depth}
    yield embed
    yield row("index", locale, {**built, **threads}, params.index_way(locale))
    way = params.search_way(locale, size.products * size.queries * int(built["dimension"]))
    yield row("retrieve", locale, {**built, **queries, **depth}, way)
    analyser = analyser_name(params.language[locale])
    workers = worker_count(analyser, size.products, params.runtime)
    words = {**searched, "counted": size.products, **threads, "workers": workers}
    yield row("bm25", locale, words, analyser)
    yield row("hybrid", locale, searched)
    if (spec := params.reranker_of(locale)) is not None:
        scored = size.queries * min(params.reranking.depth, size.products) + size.judgements
        read = min(size.characters, spec.max_tokens * CHARACTERS_PER_TOKEN) + CHARACTERS_PER_TEXT
        units = {**searched, "scored": scored, "characters": scored * read}
        yield row("rerank", locale, units, params.rerank[locale])
    if engines := len(params.systems[locale]):
        yield row("systems", locale, {**searched, "engines": engines})
    yield row("evaluate", locale, searched)
    vectors = {**products, **queries, "dimension": built["dimension"]}
    yield row("encoder_scores", locale, {**vectors, "judgements": size.judgements})


def _explored(
    params: Params, locale: str, size: Size, found: Sequence[Row], row: Callable[..., Row]
) -> Iterator[Row]:
    """Yield the rows of the stages that explore a locale's catalogue."""
    (embed,) = (each for each in found if (each.stage, each.locale) == ("embed", locale))
    index, products = params.index_of(locale), {"products": size.products}
    vectors = {**products, "dimension": embed.units["dimension"]}
    near = {"neighbours": params.similar.neighbours}
    yield row(
        "similar", locale, {**vectors, **near, **index.model_dump(exclude={"kind"})}, index.kind
    )
    yield row("duplicates", locale, {**products, **near})
    yield row("clusters", locale, vectors)
    yield row("catalogue", locale, products)


def total(found: Sequence[Row]) -> Row:
    """Return what all rows take one after another."""
    return Row(
        stage="total", locale=None, kind=None, units={}, known="",
        seconds=sum(row.seconds for row in found),
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
            if (row.kind or "").removesuffix("-ray") in ("flat", "hnsw", "ivf-flat"):
                remedy = f"Choose a smaller index.{row.locale} (sq8, ivf-pq) or draw less (sample)."
            if row.stage == "bm25":
                remedy = "It will go range by range, or refuse where not even small ones fit."
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
