"""What each index gives and costs, as reports/tradeoff/<locale>.json holds it, and as a table."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from pipeline.core import layout, stage
from pipeline.core.params import Index, Share, Similarity, Strict

Measured = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Basis(Strict):
    """What the figures were measured on; only figures of one basis stand side by side.

    `threads` is for searches in a batch; an index is built, and a single query searched, on one.
    """

    locale: str
    encoder: str
    weights_sha256: str
    similarity: Similarity
    product_ids_sha256: str
    product_vectors_sha256: str
    query_vectors_sha256: str
    judgements_sha256: str
    products: int
    queries: int
    threads: int


class Figures(Strict):
    """One index: what it finds, what it holds, how long it takes.

    Times are of FAISS alone, for the first 100 products: no encoding, no ties put in order.
    `p50_milliseconds` and `p95_milliseconds` are over queries searched one at a time.
    """

    index: str
    kind: str
    settings: Index
    overlap: Share = Field(alias="overlap@100")
    ndcg: Share | None = Field(alias="ndcg@10")
    recall: Share | None = Field(alias="recall@100")
    bytes_per_vector: Measured
    build_seconds: Measured
    p50_milliseconds: Measured
    p95_milliseconds: Measured
    queries_per_second: Measured


class TradeOff(Basis):
    """The file: `left_out` says of each entry that cannot be built on these vectors why."""

    tradeoff_schema: Literal[1]
    overlap_queries: int
    timed_queries: int
    indexes: tuple[Figures, ...]
    left_out: dict[str, str]


def read_figures(indexes: Mapping[str, Index], basis: Basis) -> dict[str, Figures]:
    """Return the figures in a locale's file that still hold, by index; say which do not.

    Those hold that were measured on this basis, of entries of `indexes` that are the same still. A
    file that is damaged or of another version has none.
    """
    path = layout.tradeoff(basis.locale)

    def left_aside(what: str) -> None:
        stage.log.info("%s is left aside: %s", path, what)

    try:
        found = TradeOff.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValidationError as err:
        where = ".".join(map(str, err.errors()[0]["loc"])) or "(top level)"
        left_aside(f"{where}: {err.errors()[0]['msg']}")
        return {}
    for key, value in basis.model_dump().items():
        if (was := getattr(found, key)) != value:
            left_aside(f"{key} was {str(was)[:12]} and is {str(value)[:12]}")
            return {}
    holding = {}
    for each in found.indexes:
        if indexes.get(each.index) == each.settings:
            holding[each.index] = each
        else:
            left_aside(f"indexes.{each.index} was another")
    return holding


def table(locale: str, measured: Mapping[str, Figures], left_out: Mapping[str, str]) -> str:
    """Return the figures as a Markdown table, best overlap first."""
    columns = [
        "overlap@100", "ndcg@10", "recall@100", "bytes_per_vector", "build_seconds",
        "p50_milliseconds", "p95_milliseconds", "queries_per_second",
    ]  # fmt: skip
    lines = [
        f"| locale | index | {' | '.join(columns)} |",
        f"|---|---|{'--:|' * len(columns)}",
    ]
    for each in sorted(measured.values(), key=lambda one: -one.overlap):
        cells = each.model_dump(by_alias=True)
        figures = ("" if cells[at] is None else f"{cells[at]:.5g}" for at in columns)
        lines.append(f"| {' | '.join([locale, each.index, *figures])} |")
    return "\n".join([*lines, *(f"{name}: {why}" for name, why in left_out.items())]) + "\n"
