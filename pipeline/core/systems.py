"""The systems whose runs are evaluated: those of the pipeline, and other engines by name."""

from typing import Literal, get_args

System = Literal["dense", "bm25", "hybrid", "rerank"]
SYSTEMS: tuple[System, ...] = get_args(System)
"""The pipeline's own systems, in the order in which they are shown; see `Params.systems_of`."""

FirstSystem = Literal["dense", "bm25", "hybrid"]
FIRST_SYSTEMS: tuple[FirstSystem, ...] = get_args(FirstSystem)
"""The systems whose runs can be reranked."""

TAKEN = (
    *SYSTEMS, "random", "encoder", "index", "labels", "queries", "products", "judgements",
    "systems", "title", "query", "apart",
)  # fmt: skip
"""What no other engine may be called: the metrics, the tables and the page have these keys."""
