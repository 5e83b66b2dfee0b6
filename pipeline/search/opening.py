"""Open what answers queries of a locale: every artefact checked as stages do."""

from typing import get_args

from pipeline.bm25 import analysers
from pipeline.bm25.kept import open_postings
from pipeline.bm25.search import TermIndex
from pipeline.core import layout, stage, tables
from pipeline.core.clean_counts import check_text_settings
from pipeline.core.errors import PipelineError
from pipeline.core.params import AS_TYPED, Params
from pipeline.core.params_file import load_params
from pipeline.core.spelling import check_spelling
from pipeline.index.card import read_index
from pipeline.retrieve.rescored import rescored
from pipeline.search.engine import Engine
from pipeline.search.freshness import signature
from pipeline.search.judged import read_judged
from pipeline.search.parts import on_threads
from pipeline.search.query_vectors import QueryVectors
from pipeline.search.reranking import Reordering
from pipeline.search.shown import open_shown
from pipeline.search.variants import open_variants
from pipeline.text.correction import Corrector
from pipeline.vectors.manifest import Kind, check_texts, read_manifest
from pipeline.vectors.shards import ShardReader

TRIES = 3
"""How often artefacts are opened that are replaced while they are being opened."""


def open_engine(locale: str, *, fetch: bool = True) -> Engine:
    """Open what answers queries of a locale.

    Where a stage or DVC replaces files meanwhile, it is tried again.

    Args:
        locale: the locale.
        fetch: whether a model that is needed is fetched where it is not on this machine.

    Raises:
        PipelineError: params.yaml does not name the locale; an artefact is missing, damaged, or
            was made from something else than is there.
    """
    for last in (*[False] * (TRIES - 1), True):
        before = signature(locale)
        try:
            opened = _open(load_params(), locale, fetch=fetch)
        except PipelineError:
            if last or signature(locale) == before:
                raise
            continue
        if signature(locale) == before:
            return opened
    raise PipelineError(
        f"the artefacts of {locale} are being replaced. Try again when the stages have run."
    )


def _open(params: Params, locale: str, *, fetch: bool) -> Engine:
    stage.check_locale(params, locale)
    check_text_settings(locale, params.clean)
    check_spelling(locale, params.spelling[locale])
    manifest = read_manifest(params, locale)
    for kind in get_args(Kind):
        check_texts(manifest, kind, locale)
    digest = manifest.products.table_sha256
    shown = open_shown(params, locale, digest)
    judged = read_judged(locale)
    vectors = ShardReader(manifest, "products", locale)
    codes = on_threads(read_index(params, locale, manifest), params.runtime.thread_count())
    similarity = params.encoder_of(locale).similarity
    index = rescored(codes, params.index_of(locale), similarity, vectors)
    reordering = None
    if (spec := params.reranker_of(locale)) is not None:
        reordering = Reordering(params, locale, spec, digest, fetch=fetch)
    analyser = analysers.analyser_for(params.language[locale])
    query_vectors = QueryVectors(params, locale, manifest, fetch=fetch)
    # The first search of new products may have to count their terms. Scores are computed for the
    # terms of each query: so a search starts at once, and needs the memory of none but these.
    postings, _ = open_postings(params, locale, analyser, len(shown.ids), digest)
    return Engine(
        params=params,
        locale=locale,
        shown=shown,
        judged=judged,
        index=index,
        vectors=vectors,
        query_vectors=query_vectors,
        analyser=analyser,
        terms=TermIndex.of(postings, params.bm25),
        variants=open_variants(params, locale, manifest),
        reordering=reordering,
        corrector=_open_corrector(params, locale),
    )


def _open_corrector(params: Params, locale: str) -> Corrector | None:
    if params.spelling[locale] == AS_TYPED:
        return None
    path, remedy = layout.clean(locale).vocabulary, layout.rerun_hint("clean", locale)
    return Corrector(tables.read_table(path, tables.VOCABULARY, remedy))
