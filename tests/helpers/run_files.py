"""Run files for tests: random ones, written as the stages write them, and spoilt ones."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from pipeline.core import files, tables
from pipeline.core.systems import System
from pipeline.runs import files as run_files
from pipeline.runs import ranking
from pipeline.runs.inputs import Inputs
from tests.helpers.artefacts import LOCALE


def random_run(
    rng: np.random.Generator, queries: int, products: int, *, most: int, least: int = 0
) -> ranking.Ranked:
    """Return a run with `least` to `most` products a query and few different scores: many tie."""
    counts = rng.integers(least, most + 1, queries)
    rows = np.repeat(np.arange(queries), counts)
    codes = np.concatenate([rng.choice(products, count, replace=False) for count in counts])
    return ranking.rank_pairs(rows, codes.astype(np.int64), rng.integers(0, 6, len(rows)) / 4)


def write_given_runs(
    system: System,
    inputs: Inputs,
    catalogue: ranking.Ranked,
    *,
    pool: ranking.Ranked | None = None,
    depth: int = 1000,
    queries_a_group: int = 7,
) -> None:
    """Write a system's runs of `LOCALE`, some queries a row group."""
    if pool is None:
        pool = ranking.rank_pairs(
            inputs.pair_queries, inputs.pair_products, np.zeros(len(inputs.pair_queries))
        )
    with run_files.write_runs(LOCALE, system, {"made": "by a test"}, depth, inputs) as writers:
        for writer, (rows, codes, scores) in zip(writers, (catalogue, pool), strict=True):
            for start in range(0, len(inputs.queries), queries_a_group):
                part = slice(*np.searchsorted(rows, [start, start + queries_a_group]))
                writer.add(rows[part], codes[part], scores[part])


def rewrite_run(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    """Change a run file, and its hash in the card."""
    frame = change(pd.read_parquet(path))
    # Not by way of from_pandas, for which NaN is null.
    columns = {name: frame[name].to_numpy() for name in tables.RUN.names}
    tables.write_table(path, pa.table(columns), tables.RUN)
    card = json.loads((path.parent / "run.json").read_text())
    files.write_json(
        path.parent / "run.json", card | {f"{path.stem}_sha256": files.sha256_file(path)}
    )
