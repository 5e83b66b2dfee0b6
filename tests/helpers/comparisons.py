"""Reports of a revision as `evaluate` writes them: per-query tables, metrics, top products.

`python -m tests.helpers.comparisons LOCALE ENCODER` writes them below the working folder.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.compare.sides import Side
from pipeline.core import layout
from pipeline.core.arrays import Floats
from pipeline.core.files import write_json
from pipeline.core.params import Compare, Uncertainty
from pipeline.core.tables import WRITE_OPTIONS
from pipeline.evaluate import per_query
from pipeline.evaluate.exact_ranks import IDS
from pipeline.evaluate.top_products import TOP

SETTINGS = Compare(
    metrics=("dense.ndcg@10", "hybrid.ndcg@10", "dense.recall@100"), max_drop=0.0, alpha=0.05
)
RUNS = ("hybrid", "hybrid")
"""What rerankers reorder, of either side."""
DRAWS = Uncertainty(samples=500, confidence=0.95, seed=17)
SYSTEMS = ("dense", "hybrid")
EXACT = IDS.empty_table()
"""The table of Exact products, which comparisons do not read."""


def measures(rng: np.random.Generator, queries: int) -> dict[str, Floats]:
    """Return values a query, to 5 digits, of each system; some undefined, the same for all."""
    undefined = rng.random(queries) < 0.05
    values = {}
    for name in ("ndcg@10", "recall@100", "judged@10", "pool_ndcg"):
        for system in SYSTEMS:
            drawn = np.round(rng.beta(0.7, 0.5, queries), 5)
            if not name.startswith("judged"):
                drawn[undefined] = np.nan
            values[f"{system}.{name}"] = drawn
    return values


def noisy(
    rng: np.random.Generator, values: Mapping[str, Floats], spread: float
) -> dict[str, Floats]:
    """Return values that differ by luck alone: either way by as much, on half of the queries."""
    changed = {}
    for name, old in values.items():
        noise = rng.normal(0, spread, len(old)) * (rng.random(len(old)) < 0.5)
        changed[name] = np.round(old + noise, 5)
    return changed


def table(
    values: Mapping[str, Floats],
    locale: str = "es",
    encoder: str = "labse",
    ids: Sequence[int] | None = None,
    texts: Sequence[str] | None = None,
    titles: str = "title",
    vectors: Mapping[str, str] | None = None,
    **sample: str | int,
) -> pa.Table:
    """Return a per-query table with its card: measures, labels of the first products, a sample.

    Without the hashes of `vectors` it is of an older form.
    """
    queries = len(next(iter(values.values())))
    ids = list(range(100, 100 + queries)) if ids is None else list(ids)
    columns = {
        "query_id": pa.array(ids, pa.int64()),
        "query": pa.array(texts or [f"consulta {i}" for i in ids]),
        **{
            name: pa.array(each.astype(np.float32), pa.float32(), from_pandas=True)
            for name, each in values.items()
        },
        **{f"{system}.labels": pa.array(["ESC?I"] * queries) for system in SYSTEMS},
    }
    of: dict[str, str | int] = {
        "locale": locale, "products": 592, "queries": queries, "depth": 1000,
        "product_ids_sha256": "a" * 64, "query_ids_sha256": "b" * 64,
        "judgements_sha256": "c" * 64, **sample,
    }  # fmt: skip
    rows = pa.table(columns)
    of_sample = per_query.Sample.model_validate(of)
    beside = per_query.Beside(top(rows, titles), EXACT, {}, {})
    return per_query.with_card(rows, of_sample, encoder, "flat", beside, **(vectors or {}))


def card(table: pa.Table) -> per_query.Card:
    """Return the card of a table, whatever the table holds."""
    return per_query.Card.model_validate_json(table.schema.metadata[per_query.CARD])


def side(
    values: Mapping[str, Floats], locale: str = "es", encoder: str = "labse", **sample: str | int
) -> Side:
    """Return one side of a comparison."""
    made = table(values, locale, encoder, **sample)  # type: ignore[arg-type]
    return Side(made, card(made))


def top(rows: pa.Table, titles: str) -> pa.Table:
    """Return the first products of the queries of a per-query table; their titles name them."""
    found = [
        {
            "query_id": query, "system": system, "rank": rank, "product_id": f"P{rank}",
            "label": "ES"[rank - 1 : rank] or None, "title": f"{titles} {query} {system} {rank}",
        }
        for query in rows["query_id"].to_pylist()
        for system in SYSTEMS
        for rank in (1, 2, 3, 4)
    ]  # fmt: skip
    return pa.Table.from_pylist(found, TOP)


def write_reports(folder: Path, locale: str, rows: pa.Table, titles: str = "title") -> None:
    """Write a locale's reports below `folder`."""
    for path in (layout.per_query(locale), layout.metrics(locale), layout.top(locale)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    per_query.write(folder / layout.per_query(locale), rows)
    of = card(rows)
    write_json(
        folder / layout.metrics(locale), {"encoder": of.encoder, "index": of.index, "dense": {}}
    )
    pq.write_table(top(rows, titles), folder / layout.top(locale), **WRITE_OPTIONS)


def write_for(locale: str, encoder: str) -> None:
    """Write a locale's reports; with `minilm`, es is worse and finds less that is judged."""
    values = measures(np.random.default_rng(ord(locale[0])), 60)
    if locale == "es" and encoder == "minilm":
        for name in ("dense.ndcg@10", "dense.judged@10"):
            values[name] = np.round(values[name] * 0.6, 5)
    texts = [f"zapatos <b>{i}</b> | @nadie" for i in range(60)]
    titles = f"de {encoder}"
    rows = table(values, locale, encoder, texts=texts, titles=titles)
    write_reports(Path(), locale, rows, titles)


if __name__ == "__main__":
    write_for(*sys.argv[1:])
