"""Measure one locale's encoder by itself: data/clean + data/embeddings -> reports/encoder_scores.

Nothing is encoded, indexed or searched: only the vectors of judged pairs are compared.
"""

from collections.abc import Mapping

import numpy as np

from pipeline.core import files, layout, stage
from pipeline.core.arrays import Ints, Matrix
from pipeline.core.log import log
from pipeline.core.params import Params, Similarity, Uncertainty
from pipeline.core.tables import LABELS
from pipeline.encoder_scores import form
from pipeline.encoder_scores.measures import Measured, measure
from pipeline.evaluate import judged_run, per_query
from pipeline.evaluate.system_scores import Judged, read_judged
from pipeline.evaluate.top_products import Top
from pipeline.evaluate.uncertainty import bootstrap_intervals
from pipeline.runs.ranking import Ranked
from pipeline.vectors import pairs
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import Kind, Manifest, check_ids, read_manifest
from pipeline.vectors.shards import ShardReader, Take


def encoder_scores(params: Params, locale: str) -> stage.Done:
    """Measure an encoder on a locale's judged pairs, and write both reports."""
    manifest, judged = read_manifest(params, locale), read_judged(locale)
    check_ids(manifest, "queries", judged.ids.queries, locale)
    check_ids(manifest, "products", judged.ids.products, locale)
    similarity = params.encoder_of(locale).similarity
    scores = write_reports(params, manifest, judged, rank_judged(judged, manifest, similarity))
    log.info(
        "encoder_scores locale=%s pairs=%d %s",
        locale, scores.pairs,
        " ".join(f"{name}={each.value}" for name, each in scores.measures.items()),
    )  # fmt: skip
    return stage.Done(
        queries=scores.sample.queries, products=scores.sample.products,
        dimension=manifest.dimension, judgements=scores.pairs,
    )  # fmt: skip


def write_reports(
    params: Params, manifest: Manifest, judged: Judged, ranked: Ranked
) -> form.EncoderScores:
    """Measure ranked pairs, write both reports, and return the one without the queries.

    Args:
        params: the draws of intervals, and the encoder's similarity.
        manifest: of the vectors.
        judged: what the pairs are judged by.
        ranked: what `rank_judged` returns.
    """
    locale = manifest.locale
    run = judged_run.judge(ranked[0], ranked[1], judged.pool)
    measured = measure(run, ranked[2])
    card = _card(judged, manifest, params.encoder_of(locale).similarity)
    labels = run.label_counts.sum(axis=0).tolist()
    scores = form.EncoderScores(
        **card.model_dump(exclude={"sample", "contents_sha256"}),
        sample=card.sample,
        judgements_without_text=len(judged.qrels.codes) - len(judged.pool.codes),
        pairs=len(run.label),
        labels=dict(zip(LABELS, labels, strict=True)),
        measures=_with_intervals(measured, params.uncertainty),
    )
    rows = form.table(judged.ids.queries, measured, Top.of_run(ranked, run).strings())
    text = files.canonical_json(scores.model_dump(mode="json", exclude_none=True))
    with (
        files.atomic_file(layout.encoder_scores(locale)) as report,
        files.atomic_file(layout.encoder_values(locale)) as values,
    ):
        form.write_table(values, rows, card)
        report.write_text(text, encoding="utf-8", newline="\n")
    return scores


def _card(judged: Judged, manifest: Manifest, similarity: Similarity) -> form.ValuesCard:
    sample = form.JudgedSample(
        locale=manifest.locale,
        products=len(judged.ids.products),
        queries=len(judged.ids.queries),
        product_ids_sha256=manifest.products.ids_sha256,
        query_ids_sha256=manifest.queries.ids_sha256,
        judgements_sha256=per_query.judgements_sha256(judged.judgements),
    )
    return form.ValuesCard(
        encoder_scores_schema=form.ENCODER_SCORES_SCHEMA,
        sample=sample,
        encoder=manifest.encoder,
        weights_sha256=manifest.weights_sha256,
        **manifest.vectors_sha256(),
        similarity=similarity,
        contents_sha256="",
    )


def _with_intervals(
    measured: Mapping[str, Measured], draws: Uncertainty
) -> dict[str, form.Measure]:
    values = np.stack([each.by_query for each in measured.values()], axis=1)
    intervals = bootstrap_intervals(values, draws)
    return {
        name: form.describe(each, interval, name)
        for (name, each), interval in zip(measured.items(), intervals, strict=True)
    }


def rank_judged(judged: Judged, manifest: Manifest, similarity: Similarity) -> Ranked:
    """Rank every query's judged products, as `retrieve` does.

    Args:
        judged: the pairs.
        manifest: of the vectors.
        similarity: how they are compared.

    Returns:
        Rows of the queries, of the products, and scores, in ranked order, [pairs] each. Scores are
        rounded as those of runs, so all measures are of what data/runs/dense holds.
    """
    nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
    pieces = pairs.rank_judged(
        judged.pool.positions(),
        judged.pool.codes,
        _reader(manifest, "queries", similarity),
        _reader(manifest, "products", similarity),
        similarity,
        manifest.dimension,
    )
    rows, codes, scores = map(np.concatenate, zip(nothing, *pieces, strict=True))
    return rows, codes, scores


def _reader(manifest: Manifest, kind: Kind, similarity: Similarity) -> Take:
    """Return what reads some vectors of a side: mapped, so that only these take memory."""
    locale = manifest.locale
    reader = ShardReader(manifest, kind, locale)

    def take(rows: Ints) -> Matrix:
        return to_index_form(reader.take(rows), similarity, f"{locale} {kind}")

    return take
