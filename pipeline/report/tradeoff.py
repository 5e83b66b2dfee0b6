"""The form of reports/tradeoff/<locale>.json: what each index finds and costs."""

import hashlib
from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from pydantic import Field, model_validator

from pipeline.core.arrays import Ints
from pipeline.core.param_types import Count, Share, Strict
from pipeline.core.params import Index, Similarity

TRADEOFF_SCHEMA = 3
Measured = Annotated[float, Field(ge=0, le=1e15)]

FIGURES = (
    "overlap@10", "overlap@100", "ndcg@10", "recall@100", "bytes_per_vector", "build_seconds",
    "p50_milliseconds", "p95_milliseconds", "queries_per_second",
)  # fmt: skip
"""The numbers of an index, as the file names them, in the order in which they are shown."""


class Basis(Strict):
    """What the figures were measured on: only figures of one basis are in one file.

    `threads` is for searches in a batch; building, and searching one query, takes one thread.
    `cpu_model` and `faiss_version` decide the times.
    """

    locale: str
    encoder: str
    weights_sha256: str
    similarity: Similarity
    product_ids_sha256: str
    product_vectors_sha256: str
    query_vectors_sha256: str
    judgements_sha256: str
    products: Count
    queries: Count
    threads: Count
    cpu_model: str
    faiss_version: str


class Figures(Strict):
    """One index: what it finds, how large it is, how long it takes.

    Times are of searching alone, for the first 100 products, without encoding, and without ranking
    ties, unless the vectors rank what the index finds (`rescore`).
    `p50_milliseconds` and `p95_milliseconds` are over queries searched one at a time.
    `mapped` says whether FAISS searches the vectors or codes on disk, not a copy in memory.
    """

    index: str
    kind: str
    settings: Index
    mapped: bool
    overlap_10: Share = Field(alias="overlap@10")
    overlap: Share = Field(alias="overlap@100")
    ndcg: Share | None = Field(alias="ndcg@10")
    recall: Share | None = Field(alias="recall@100")
    bytes_per_vector: Measured
    build_seconds: Measured
    p50_milliseconds: Measured
    p95_milliseconds: Measured
    queries_per_second: Measured

    @model_validator(mode="after")
    def _numbers_fit_together(self) -> Self:
        if self.kind != self.settings.kind:
            raise ValueError(f"the settings have the kind {self.settings.kind}, not {self.kind}")
        if self.p50_milliseconds > self.p95_milliseconds:
            raise ValueError("the median latency is above the 95th percentile")
        return self


class TradeOff(Basis):
    """The file: `left_out` says why an entry cannot be built on these vectors."""

    tradeoff_schema: int
    overlap_queries: Count
    timed_queries: Count
    indexes: tuple[Figures, ...]
    left_out: dict[str, str]

    @model_validator(mode="after")
    def _each_index_is_there_once(self) -> Self:
        names = [each.index for each in self.indexes] + list(self.left_out)
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"{twice} is repeated")
        return self


def hash_judgements(pairs: Sequence[Ints]) -> str:
    """Return the hash of judgements, given as `runs.inputs.read_judgements` gives its triples."""
    return hashlib.sha256(np.stack(pairs).astype("<i8").tobytes()).hexdigest()
