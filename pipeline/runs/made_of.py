"""What the card of a system's runs says that they were made of: settings, and hashes of inputs.

The stage that makes the runs writes it. `evaluate` makes it again, of params.yaml and of the
artefacts that are there, and compares.
"""

from collections.abc import Iterable, Mapping

from pipeline.core.contract import contract_of
from pipeline.core.params import Params, Reranker
from pipeline.runs.card import RunCard, of_index


def of_dense(params: Params, locale: str, vectors: Mapping[str, str]) -> dict[str, str]:
    """Return what dense runs are made of; `vectors` is `Manifest.vectors_sha256`."""
    index = of_index(params.index[locale], params.index_of(locale))
    similarity = params.encoder_of(locale).similarity
    return {"encoder": params.encoder[locale], "similarity": similarity, **index, **vectors}


def of_bm25(
    params: Params, locale: str, products_sha256: str, queries_sha256: str
) -> dict[str, str]:
    """Return what bm25 runs are made of; the hashes are of the files of the clean tables."""
    return {
        "language": params.language[locale],
        "k1": str(params.bm25.k1),
        "b": str(params.bm25.b),
        "product_texts_sha256": products_sha256,
        "query_texts_sha256": queries_sha256,
    }


def of_hybrid(params: Params, fused: Iterable[RunCard]) -> dict[str, str]:
    """Return what hybrid runs are made of; the cards are of the runs that are fused."""
    settings = params.hybrid
    numbers = settings.model_dump(exclude={"kind"}).items()
    return {"fusion": settings.kind} | {key: str(value) for key, value in numbers} | _of_runs(fused)


def of_rerank(params: Params, locale: str, reordered: RunCard) -> dict[str, str]:
    """Return what reranked runs are made of, but for the hash of the weights.

    The card is of the runs that are reordered.
    """
    settings, name, spec = params.reranking, params.rerank[locale], params.reranker_of(locale)
    assert spec is not None
    return {
        **_of_reranker(name, spec),
        "run": settings.run,
        "depth": str(settings.depth),
        "weight": str(settings.weight),
        **_of_runs([reordered]),
    }


def _of_reranker(name: str, spec: Reranker) -> dict[str, str]:
    """Return a reranker's name and each key of its entry; those of its weights by themselves."""
    contract = contract_of(spec)
    weights = {f"weights.{key}": value for key, value in contract.pop("weights").items()}
    entry = {**contract, **weights}
    return {"reranker": name} | {f"reranker.{key}": str(value) for key, value in entry.items()}


def _of_runs(cards: Iterable[RunCard]) -> dict[str, str]:
    """Return the hashes of runs that others are made of."""
    return {
        f"{card.system}_{track}_sha256": sha256
        for card in cards
        for track, sha256 in (("catalogue", card.catalogue_sha256), ("pool", card.pool_sha256))
    }
