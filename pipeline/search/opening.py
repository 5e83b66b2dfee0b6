"""Open what answers queries of a locale: every artefact checked as stages do."""

import faiss
import pyarrow as pa

from pipeline.bm25 import analysers
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.embed.sides import read_sides
from pipeline.index.card import read_index
from pipeline.search.engine import Engine
from pipeline.search.freshness import check_lock, signature
from pipeline.search.judged import read_judged
from pipeline.search.parts import on_threads
from pipeline.search.query_vectors import QueryVectors
from pipeline.search.shown import open_shown
from pipeline.search.terms import open_terms
from pipeline.vectors.manifest import check_ids, read_manifest
from pipeline.vectors.shards import ShardReader

TRIES = 3
"""How often artefacts are opened that are replaced while they are being opened."""


def open_engine(locale: str) -> Engine:
    """Open what answers queries of a locale.

    Where a stage or DVC replaces files meanwhile, it is tried again.

    Raises:
        PipelineError: params.yaml does not name the locale; an artefact is missing, damaged, or
            was made from something else than is there.
    """
    for last in (*[False] * (TRIES - 1), True):
        before = signature(locale)
        try:
            opened = _open(load_params(), locale)
        except PipelineError:
            if last or signature(locale) == before:
                raise
            continue
        if signature(locale) == before:
            return opened
    raise PipelineError(
        f"the artefacts of {locale} are being replaced. Try again when the stages have run."
    )


def _open(params: Params, locale: str) -> Engine:
    stage.check_locale(params, locale)
    _check_fields(params, locale)
    manifest = read_manifest(params, locale)
    check_lock(locale)
    shown = open_shown(params, locale)
    check_ids(manifest, "products", shown.ids, locale)
    judged = read_judged(locale)
    check_ids(manifest, "queries", pa.chunked_array([judged.query_ids]), locale)
    threads = params.runtime.thread_count()
    index = on_threads(read_index(params, locale, manifest), threads)
    faiss.omp_set_num_threads(threads)
    analyser = analysers.analyser_for(params.language[locale])
    return Engine(
        params=params,
        locale=locale,
        shown=shown,
        judged=judged,
        index=index,
        vectors=ShardReader(manifest, "products", locale),
        query_vectors=QueryVectors(params, locale, manifest),
        analyser=analyser,
        terms=open_terms(params, locale, analyser, len(shown.ids), shown.source_sha256),
    )


def _check_fields(params: Params, locale: str) -> None:
    """Check that the texts were made of the fields that params.yaml names."""
    path, remedy = layout.clean(locale).counts, layout.rerun_hint("clean", locale)
    found = read_sides(locale)[0].fields
    if found != params.clean.fields:
        raise PipelineError(
            f"{path}: the texts are made of {', '.join(found)}, but clean.fields is "
            f"{', '.join(params.clean.fields)}. {remedy}"
        )
