"""Encode one locale: data/clean/<locale> -> data/embeddings/<locale>, shards and a manifest.

The curve of an encoder that was trained here goes along with its vectors.

`python -m pipeline.embed --plan` says how many texts are to be encoded, how many the store has
already, and how long the rest would take.
"""

import os
import time
from contextlib import closing
from pathlib import Path

from pipeline.core import layout, stage
from pipeline.core.contract import contract_of
from pipeline.core.cpu import bfloat16_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.languages import warn_of_language
from pipeline.core.log import log
from pipeline.core.outputs import refuse_overlap
from pipeline.core.params import FolderWeights, Params
from pipeline.core.trained_folder import copy_curve, refuse_other_pairs
from pipeline.embed.fill import SideEncoder
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.embed.rates import PROBE_TEXTS
from pipeline.embed.sides import TableSide, read_sides
from pipeline.embed.write import write_shards
from pipeline.encoders.prompts import warn_of_prompts
from pipeline.store.upkeep import prune_after_run
from pipeline.vectors.manifest import (
    MANIFEST_SCHEMA,
    Manifest,
    Truncation,
    hash_table,
)


def embed(params: Params, locale: str) -> stage.Done:
    """Encode a locale's products and queries with its encoder."""
    started = time.time()
    _refuse_overlap(params, locale)
    tables = read_sides(locale)
    encoder = LocaleEncoder(params, locale)
    refuse_other_pairs(params, encoder.name, locale)
    languages, language = encoder.spec.languages, params.language[locale]
    warn_of_language(f"encoder.{locale}", encoder.name, languages, language)
    warn_of_prompts(encoder.spec, encoder.weights)
    with closing(encoder), atomic_directory(layout.embeddings(locale).folder) as out:
        written, surveys, dimension = [], [], 0
        for table in tables:
            # First: a table that replaces it meanwhile will not pass for that of these vectors.
            digest = hash_table(table.path, table.remedy)
            side = SideEncoder(encoder, table)
            survey = side.survey()
            side.fill(survey)
            vectors, cut = write_shards(side, survey, digest, out, params.embed)
            written.append((vectors, cut))
            surveys.append(survey)
            dimension = side.dimension or dimension  # 0: no text of a side was ever encoded
            log.info(
                "embed locale=%s encoder=%s %s=%d distinct=%d reused=%d encoded=%d "
                "texts_cut=%d tokens_cut=%d of %d",
                locale, encoder.name, table.kind, survey.texts, survey.distinct,
                survey.distinct - side.encoded, side.encoded,
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
            dimension=dimension,
            dtype=params.embed.dtype,
            truncation=Truncation(products=products_cut, queries=queries_cut),
            products=products,
            queries=queries,
        )
        write_json(layout.EmbeddingFiles(out).manifest, manifest.model_dump(mode="json"))
        copy_curve(params, encoder.name, layout.EmbeddingFiles(out).curve)
    prune_after_run(params.runtime.store_gigabytes, started)
    return stage.Done(
        products=products.rows,
        queries=queries.rows,
        dimension=manifest.dimension,
        encoded=sum(each.to_encode for each in surveys),
        characters=sum(each.work for each in surveys),
    )


def plan(params: Params, locale: str) -> None:
    """Log what encoding a locale would take; encode a few texts where no rate is known."""
    with closing(LocaleEncoder(params, locale)) as encoder:
        for table in read_sides(locale):
            side = SideEncoder(encoder, table)
            survey = side.survey()
            if survey.to_encode and side.seconds(survey.work) is None:
                side.fill(survey, limit=PROBE_TEXTS)
                survey = side.survey()
                if survey.to_encode and encoder.distributed:
                    log.warning(
                        "warning: no run has measured how fast the Ray cluster encodes %s; these "
                        "seconds are for one or two workers, and more are faster", table.kind,
                    )  # fmt: skip
            log.info(
                "plan locale=%s encoder=%s engine=%s %s=%d distinct=%d reused=%d to_encode=%d "
                "seconds=%.0f",
                locale, encoder.name, encoder.engine, table.kind, survey.texts, survey.distinct,
                survey.reused, survey.to_encode, side.seconds(survey.work) or 0.0,
            )  # fmt: skip
        if encoder.engine.device == "cpu" and not encoder.distributed:
            _plan_other_precisions(params, locale)


def _plan_other_precisions(params: Params, locale: str) -> None:
    """Log what a locale would take on this CPU at the precisions that its entry does not name.

    int8 is not tried where it never ran: converting a model to it takes minutes.
    """
    name, spec = params.encoder[locale], params.encoder_of(locale)
    for precision in ("float32", "bfloat16", "int8"):
        if precision == spec.precision or (precision == "bfloat16" and not bfloat16_instructions()):
            continue
        other = params.model_copy(update={"encoders": {
            **params.encoders, name: spec.model_copy(update={"precision": precision})
        }})  # fmt: skip
        try:
            took = [_measured_seconds(other, locale, side) for side in read_sides(locale)]
        except PipelineError as err:  # of this precision alone
            log.info("plan locale=%s precision=%s: %s", locale, precision, err)
            continue
        known = [seconds for seconds in took if seconds is not None]
        whole = len(known) == len(took)
        log.info(
            "plan locale=%s encoder=%s precision=%s seconds=%s",
            locale, name, precision, f"{sum(known):.0f}" if whole else "unknown (never run here)",
        )  # fmt: skip


def _measured_seconds(params: Params, locale: str, table: TableSide) -> float | None:
    """Return what a side takes by the rate kept here; a few texts are encoded if there is none."""
    with closing(LocaleEncoder(params, locale, convert=False)) as encoder:
        side = SideEncoder(encoder, table)
        survey = side.survey()
        seconds = side.seconds(survey.work) if survey.to_encode else 0.0
    if seconds is not None or params.encoder_of(locale).precision == "int8":
        return seconds
    with closing(LocaleEncoder(params, locale)) as encoder:
        side = SideEncoder(encoder, table)
        side.fill(survey, limit=PROBE_TEXTS)
        survey = side.survey()
        return side.seconds(survey.work) if survey.to_encode else 0.0


def _refuse_overlap(params: Params, locale: str) -> None:
    """Check that nothing that the stage reads or keeps is in the folder that it replaces.

    Raises:
        PipelineError: the clean tables, the encoder's folder or the cache is.
    """
    out, inputs = layout.embeddings(locale).folder, [layout.clean(locale).folder]
    weights = params.encoder_of(locale).weights
    if isinstance(weights, FolderWeights):
        inputs.append(Path(weights.path))
    refuse_overlap(inputs, out)
    cache = layout.cache()  # it may well contain the project
    if Path(os.path.realpath(cache)).is_relative_to(os.path.realpath(out)):
        raise PipelineError(
            f"the cache {cache} is in {out}, which embed replaces: it would be deleted. Set "
            "$PIPELINE_CACHE to another folder."
        )
