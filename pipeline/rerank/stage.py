"""Rerank one locale's run: data/runs/<run>/<locale> -> data/runs/rerank/<locale>.

`reranking.run` says which run. DVC has no optional stages, so where the locale has no reranker, the
stage writes a card alone that says so.
"""

from pipeline.core import files, layout, stage, start
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import Params


def rerank(params: Params, locale: str) -> stage.Done | None:
    """Write the reranked catalogue run and pool run of a locale."""
    spec = params.reranker_of(locale)
    if spec is None:
        with files.atomic_directory(layout.runs("rerank", locale).folder) as folder:
            files.write_json(layout.RunFiles(folder).card, {"reranker": NO_RERANKER})
        return None
    # Here, because libraries of models take seconds to import, and without a reranker none is used.
    from pipeline.rerank.runs import write_reranked

    start.spare_pandas()
    return write_reranked(params, locale, spec)
