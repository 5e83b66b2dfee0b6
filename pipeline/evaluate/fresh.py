"""Whether runs are made of the settings and the artefacts that are there: stages run by hand too.

DVC reruns what changed. It does not see a stage that somebody runs alone after an edit of
params.yaml: the numbers of old runs would pass for those of the new settings.
"""

from collections.abc import Mapping

from pipeline.core import layout
from pipeline.core.cards import refuse_differences
from pipeline.core.params import Params
from pipeline.core.spelling import check_spelling
from pipeline.core.systems import System
from pipeline.core.trained_folder import refuse_trained_since
from pipeline.runs import made_of
from pipeline.runs.card import RunCard, rerun_hint
from pipeline.vectors.manifest import Manifest, check_texts, read_manifest


def refuse_stale(params: Params, locale: str, cards: Mapping[str, RunCard]) -> None:
    """Check that a locale's runs are made of what is there now.

    The runs of other engines are not looked at: `read_others` checks them.

    Args:
        params: the settings.
        locale: whose runs they are.
        cards: those of all systems, dense before hybrid: what is stale first is named first.

    Raises:
        PipelineError: a system's runs are of other settings, vectors, texts or runs, or the vectors
            are of another encoder, type or of other texts, or the queries are spelled otherwise; as
            `read_manifest` and `refuse_trained_since`.
    """
    check_spelling(locale, params.spelling[locale])
    manifest = read_manifest(params, locale)
    path, remedy = layout.embeddings(locale).manifest, layout.rerun_hint("embed", locale)
    types = {"dtype": manifest.dtype}, {"dtype": params.embed.dtype}
    refuse_differences(path, *types, "the vectors are stored otherwise", remedy)
    encoder = params.encoder[locale]
    refuse_trained_since(params, encoder, path, manifest.weights_sha256, remedy)
    check_texts(manifest, "queries", locale)
    check_texts(manifest, "products", locale)
    for system in params.systems_of(locale):
        expected = made_now(system, params, locale, manifest, cards)
        refuse_differences(
            layout.runs(system, locale).card,
            # The card says more, such as what was counted.
            {key: cards[system].of.get(key) for key in expected}, expected,
            "the runs are made of something else", rerun_hint(system, locale),
        )  # fmt: skip
    if (reranked := cards.get("rerank")) is not None:
        path, remedy = layout.runs("rerank", locale).card, rerun_hint("rerank", locale)
        weights = reranked.of.get("weights_sha256")
        refuse_trained_since(params, params.rerank[locale], path, weights, remedy)


def made_now(
    system: System,
    params: Params,
    locale: str,
    manifest: Manifest,
    cards: Mapping[str, RunCard],
) -> dict[str, str]:
    """Return what a system's runs would be made of.

    Args:
        system: the system.
        params: the settings.
        locale: whose runs they are.
        manifest: of the vectors, which are of the clean tables.
        cards: of the runs that the system reads.
    """
    match system:
        case "dense":
            return made_of.of_dense(params, locale, manifest.vectors_sha256())
        case "bm25":
            texts = manifest.products.table_sha256, manifest.queries.table_sha256
            return made_of.of_bm25(params, locale, *texts)
        case "hybrid":
            return made_of.of_hybrid(params, (cards["dense"], cards["bm25"]))
        case "rerank":
            return made_of.of_rerank(params, locale, cards[params.reranking.run])
