"""Encode one locale: data/clean/<locale> -> data/embeddings/<locale>, shards and a manifest.

`python -m pipeline.embed --plan` says what would be encoded, what is in the store already, and how
long the rest would take.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, read_json, write_json
from pipeline.core.params import Embed, Params, Strict
from pipeline.core.progress import Progress
from pipeline.core.tables import PRODUCTS, QUERIES
from pipeline.embed.fill import Encoding, Plan, Window, Windows, read_or_fill
from pipeline.encoders.dimension import check_dimension, warn_of_cut
from pipeline.encoders.encoder import Role, TextEncoder
from pipeline.encoders.identity import identity
from pipeline.encoders.loading import load_on, resolve_engine
from pipeline.encoders.remote import RemoteEncoder
from pipeline.encoders.weights import resolve_weights
from pipeline.store import store
from pipeline.store.upkeep import prune
from pipeline.vectors.lengths import apply_contract
from pipeline.vectors.manifest import (
    MANIFEST_SCHEMA,
    Cut,
    Kind,
    Manifest,
    Side,
    SideCut,
    Truncation,
    contract_of,
    side_of,
)
from pipeline.vectors.shards import ShardWriter

WINDOW_ROWS = 1_024
"""Rows looked at together: read, tokenised, written."""

PROBE_TEXTS = 64
"""How many texts a plan encodes to measure a rate, where none was measured on this machine; on a
cluster they keep a worker or two busy, so that their rate is not the cluster's."""

_CHARACTERS_A_TOKEN = 4  # about, for estimates


class LocaleEncoder:
    """A locale's encoder: weights and engine are found at once, the model loaded when needed."""

    def __init__(self, params: Params, locale: str, *, convert: bool = True) -> None:
        """Find the weights and the engine of a locale's encoder.

        With `convert` False the model is not converted for its engine, and cannot be loaded.
        """
        self.name, self.spec = params.encoder[locale], params.encoder_of(locale)
        self._runtime = params.runtime
        self._open = ExitStack()
        self.weights = resolve_weights(self.spec, self.name)
        self.engine = resolve_engine(self.spec, self.weights, params.runtime, convert=convert)

    @cached_property
    def model(self) -> TextEncoder:
        """The loaded model, here or on a Ray cluster."""
        if self.distributed:
            remote = RemoteEncoder(self.engine, self.spec, self.weights, self._runtime)
            return self._open.enter_context(remote)
        threads = self._runtime.thread_count()
        return load_on(self.engine, self.spec, self.weights, threads)

    @property
    def threads(self) -> int:
        """How many threads compute here; 1 where none of them but a GPU or a cluster does."""
        if self.distributed or self.engine.device != "cpu":
            return 1
        return self._runtime.thread_count()

    @property
    def distributed(self) -> bool:
        """Whether a Ray cluster encodes."""
        return self._runtime.executor == "ray"

    def close(self) -> None:
        """Let the workers go, where there are any."""
        self._open.close()


@dataclass(frozen=True)
class TableSide:
    """The products or the queries of a locale's clean tables.

    `fields` names what a text is made of, in order.
    """

    kind: Kind
    role: Role
    path: Path
    schema: pa.Schema
    remedy: str
    fields: tuple[str, ...]

    def rows(self) -> Iterator[tuple[Window, pa.ChunkedArray]]:
        """Yield the texts in the table's order, some at a time, with their ids."""
        start = 0
        for rows in tables.iter_table(self.path, self.schema, WINDOW_ROWS, self.remedy):
            texts = rows["text"].to_pylist()
            if self.kind == "products":
                flat = rows["field_ends"].combine_chunks().flatten().to_numpy()
                ends = flat.reshape(len(texts), len(self.fields))
            else:
                ends = np.array([[len(text)] for text in texts], dtype=np.int32)
            yield Window(start, texts, ends), rows[self.schema.names[0]]
            start += len(texts)

    def windows(self) -> Iterator[Window]:
        """Yield the texts in the table's order, some at a time."""
        return (window for window, _ in self.rows())


class Rate(Strict):
    """How fast an encoder was when it last encoded, and with how many threads."""

    characters_a_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threads: Annotated[int, Field(ge=1)]


class SideEncoder:
    """Encodes one side of a locale through the store, and shows how far it is.

    Attributes:
        encoded: how many texts were encoded so far.
    """

    def __init__(self, encoder: LocaleEncoder, side: TableSide) -> None:
        """Open the stores."""
        self._encoder = encoder
        self._side = side
        about = identity(encoder.spec, encoder.weights, encoder.engine, side.role)
        self._vectors = store.Store(layout.store(), about, "float32")
        counted = {key: about[key] for key in ("max_tokens", "prefix", "weights")}
        counts = store.Store(
            layout.store(), counted | {"counts": "tokens", "fields": len(side.fields)}, "int32"
        )
        readable = encoder.spec.max_tokens * _CHARACTERS_A_TOKEN
        self.encoding = Encoding(side.windows, self._vectors, counts, readable, encoder.name)
        self.encoded = 0
        where = "-ray" if encoder.distributed else ""  # a cluster's rate is not this machine's
        self._rate = layout.rates() / f"{self._vectors.folder.name}{where}.json"
        self._measured: Rate | None = None

    def fill(self, plan: Plan, windows: Windows | None = None, limit: int | None = None) -> None:
        """Encode what the store lacks; shows rate, reused share and time left."""
        if not plan.to_encode and not plan.to_count and windows is None:
            return
        tokens_done = computed_done = work_done = 0
        encoded_before = self.encoded
        started = time.monotonic()

        def note() -> str:
            seconds = max(time.monotonic() - started, 1e-9)
            return (
                f"{tokens_done / seconds:,.0f} tokens a second, "
                f"{plan.reused:,} of {plan.distinct:,} reused"
            )

        with Progress(plan.to_encode, self._side.kind, note) as progress:

            def watch(texts: int, tokens: int, computed: int, work: int) -> None:
                nonlocal tokens_done, computed_done, work_done
                self.encoded += texts
                tokens_done += tokens
                computed_done += computed
                work_done += work
                seconds = time.monotonic() - started
                progress.advance(texts, (plan.work - work_done) * seconds / work_done)

            model = self._encoder.model
            tokenizer = model.tokenizer(self._side.role)
            started = time.monotonic()
            self.encoding.fill(model, tokenizer, watch, windows, limit)
        if self.encoded - encoded_before >= PROBE_TEXTS:  # of fewer the rate says little
            # The last batches are half empty, which weighs where few texts are encoded.
            seconds = (time.monotonic() - started) * tokens_done / computed_done
            self._measured = measured = Rate(
                characters_a_second=work_done / seconds, threads=self.threads
            )
            if limit is None or not self._encoder.distributed:
                with suppress(OSError):  # a hint for plans, and no reason to fail
                    write_json(self._rate, measured.model_dump())

    @property
    def threads(self) -> int:
        """How many threads compute; see `LocaleEncoder.threads`."""
        return self._encoder.threads

    def rate(self) -> Rate | None:
        """Return the rate measured last, None if none was."""
        if self._measured:
            return self._measured
        try:
            return Rate.model_validate_json(self._rate.read_bytes())
        except (OSError, ValidationError):
            return None

    def seconds(self, work: int) -> float | None:
        """Return how long so much work takes by the rate measured last, None if none was.

        Each thread encodes texts of its own: so many more do as much more.
        """
        rate = self.rate()
        if rate is None:
            return None
        return work / rate.characters_a_second * rate.threads / self.threads

    @property
    def dimension(self) -> int:
        """How many components the finished vectors have."""
        own = self._encoder.spec.dimension
        return self._vectors.width if own == "model" else own

    def write(self, out: Path, plan: Plan, settings: Embed) -> tuple[Side, SideCut]:
        """Write the shards, each vector as the entry wants it; tell what was cut off the texts."""
        encoder, fields = self._encoder, self._side.fields
        check_dimension(encoder.spec, encoder.weights, self._vectors.width)
        if self._side.kind == "products":  # once a locale
            warn_of_cut(encoder.spec, encoder.weights, self._vectors.width)
        writer = ShardWriter(out, self._side.kind, plan.texts, self.dimension, settings)
        tokens, cut_tokens, cut_texts = 0, np.zeros(len(fields), int), np.zeros(len(fields), int)
        cut_anywhere = 0
        ids: list[pa.Array] = []
        for window, ids_of_window in self._side.rows():
            ids += ids_of_window.chunks
            raw, counts = read_or_fill(self.encoding, window, lambda lost: self.fill(plan, lost))
            where = partial(self._row_name, window.start)
            writer.add(apply_contract(raw, encoder.spec, where))
            cut = counts[:, 1:]
            tokens += int(counts[:, 0].sum())
            cut_tokens += cut.sum(axis=0)
            cut_texts += np.count_nonzero(cut, axis=0)
            cut_anywhere += int(cut.any(axis=1).sum())
        each = zip(fields, cut_texts.tolist(), cut_tokens.tolist(), strict=True)
        lost = SideCut(
            texts=plan.texts,
            texts_cut=cut_anywhere,
            tokens=tokens,
            tokens_cut=int(cut_tokens.sum()),
            fields={name: Cut(texts_cut=texts, tokens_cut=cut) for name, texts, cut in each},
        )
        return side_of(pa.chunked_array(ids), writer.finish()), lost

    def _row_name(self, start: int, row: int) -> str:
        return f"encoders.{self._encoder.name}: row {start + row} of {self._side.path}"


def sides(locale: str) -> tuple[TableSide, TableSide]:
    """Return a locale's products and queries."""
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    try:
        fields = tuple(read_json(clean.counts, remedy)["products"]["fields"])
    except (KeyError, TypeError) as err:
        raise PipelineError(f"{clean.counts} does not name the products' fields. {remedy}") from err
    return (
        TableSide("products", "passage", clean.products, PRODUCTS, remedy, fields),
        TableSide("queries", "query", clean.queries, QUERIES, remedy, ("query",)),
    )


def embed(params: Params, locale: str) -> stage.Done:
    """Encode a locale's products and queries with its encoder."""
    started = time.time()
    tables_of_locale = sides(locale)
    encoder = LocaleEncoder(params, locale)
    _warn_of_language(encoder, locale, params.language[locale])
    with closing(encoder), atomic_directory(layout.embeddings(locale).folder) as out:
        written, plans = [], []
        for table in tables_of_locale:
            side = SideEncoder(encoder, table)
            plan = side.encoding.plan()
            plans.append(plan)
            side.fill(plan)
            written.append(side.write(out, plan, params.embed))
            cut = written[-1][1]
            stage.log.info(
                "embed locale=%s encoder=%s %s=%d distinct=%d reused=%d encoded=%d "
                "texts_cut=%d tokens_cut=%d of %d",
                locale, encoder.name, table.kind, plan.texts, plan.distinct,
                plan.distinct - side.encoded, side.encoded,
                cut.texts_cut, cut.tokens_cut, cut.tokens,
            )  # fmt: skip
        (products, products_cut), (queries, queries_cut) = written
        manifest = Manifest(
            manifest_schema=MANIFEST_SCHEMA,
            locale=locale,
            encoder=encoder.name,
            contract=contract_of(encoder.spec),
            weights_sha256=encoder.weights.sha256,
            engine=str(encoder.engine),
            dimension=side.dimension,
            dtype=params.embed.dtype,
            truncation=Truncation(products=products_cut, queries=queries_cut),
            products=products,
            queries=queries,
        )
        write_json(layout.EmbeddingFiles(out).manifest, manifest.model_dump(mode="json"))
    _prune_store(params.runtime.store_gigabytes, started)
    return stage.Done(
        products=manifest.products.rows,
        queries=manifest.queries.rows,
        dimension=manifest.dimension,
        encoded=sum(each.to_encode for each in plans),
        characters=sum(each.work for each in plans),
    )


def _prune_store(gigabytes: int, started: float) -> None:
    """Delete what was unused for longest; a run that has its vectors does not fail of this."""
    try:
        freed = prune(layout.store(), gigabytes * 10**9, keep_since=started)
    except PipelineError as err:
        stage.log.warning("warning: %s", err)
        return
    if freed.segments:
        stage.log.info(
            "the store of vectors passed runtime.store_gigabytes=%d: freed %.1f GB, %d vectors",
            gigabytes, freed.size / 10**9, freed.entries,
        )  # fmt: skip


def plan(params: Params, locale: str) -> None:
    """Say what encoding a locale takes; a few texts are encoded where no rate is known."""
    with closing(LocaleEncoder(params, locale)) as encoder:
        for table in sides(locale):
            side = SideEncoder(encoder, table)
            before = side.encoding.plan()
            probe = before.to_encode > 0 and side.seconds(before.work) is None
            if probe:
                side.fill(before, limit=PROBE_TEXTS)
            now = side.encoding.plan()
            if probe and now.to_encode and encoder.distributed:
                stage.log.warning(
                    "warning: no run has measured how fast the Ray cluster encodes %s; these "
                    "seconds are those of one or two workers, and more take less", table.kind,
                )  # fmt: skip
            seconds = side.seconds(now.work) or 0.0
            stage.log.info(
                "plan locale=%s encoder=%s engine=%s %s=%d distinct=%d reused=%d to_encode=%d "
                "seconds=%.0f",
                locale, encoder.name, encoder.engine, table.kind, now.texts, now.distinct,
                now.reused, now.to_encode, seconds,
            )  # fmt: skip


def _warn_of_language(encoder: LocaleEncoder, locale: str, language: str) -> None:
    if not {language, "any"} & set(encoder.spec.languages):
        stage.log.warning(
            "warning: encoder.%s: %s does not speak %s (it speaks: %s); expect poor results",
            locale, encoder.name, language, ", ".join(encoder.spec.languages),
        )  # fmt: skip
