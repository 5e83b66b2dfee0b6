"""One locale's runs joined with its judgements: every measure, query by query, of every system."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import layout, tables
from pipeline.errors import PipelineError
from pipeline.evaluation import judging, metrics, random_order
from pipeline.evaluation.judging import Ints
from pipeline.evaluation.metrics import PerQuery
from pipeline.evaluation.top import Top
from pipeline.params import Evaluate
from pipeline.search import runs

CURVE_CUTOFFS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
QUERIES_A_PIECE = 1_024


@dataclass(frozen=True)
class Judged:
    """What a locale's runs are judged by.

    `queries` and `judgements` are the clean tables, `inputs` what runs are over. `qrels` are all
    judgements, `pool` those of products with a text: the others can be ranked by nothing.
    """

    queries: pa.Table
    judgements: pa.Table
    inputs: runs.Inputs
    qrels: judging.Judgements
    pool: judging.Judgements


@dataclass(frozen=True)
class Scores:
    """A system's measures and its recall at each of `CURVE_CUTOFFS`, [queries] each."""

    measures: PerQuery
    curve: PerQuery


def read_judged(locale: str) -> Judged:
    """Read a locale's clean tables.

    Raises:
        PipelineError: a table is missing, damaged or empty.
    """
    folder, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    queries = tables.read_table(folder / "queries.parquet", tables.QUERIES, remedy)
    path = folder / "products.parquet"
    products = tables.read_column(path, tables.PRODUCTS, "product_id", remedy)
    judgements, pairs = read_judgements(folder, queries["query_id"], products, remedy)
    for name, ids in (("queries", queries), ("products", products), ("judgements", judgements)):
        if not len(ids):
            raise PipelineError(f"{folder}: there are no {name} to evaluate; {remedy}")
    rows, codes, labels = pairs
    text = codes < len(products)
    inputs = runs.Inputs(queries["query_id"], products, rows[text], codes[text])
    return Judged(
        queries,
        judgements,
        inputs,
        judging.Judgements.from_pairs(*pairs, len(queries)),
        judging.Judgements.from_pairs(rows[text], codes[text], labels[text], len(queries)),
    )


def read_judgements(
    folder: Path, queries: pa.ChunkedArray, products: pa.ChunkedArray, remedy: str
) -> tuple[pa.Table, tuple[Ints, Ints, Ints]]:
    """Read the judgements of a locale's clean tables.

    Args:
        folder: where the tables lie.
        queries: all query_ids, in the order of their table.
        products: all product_ids, in the order of theirs.
        remedy: what brings the tables back; part of messages.

    Returns:
        The table, and what `Judgements.from_pairs` takes: query rows, product codes (those of
        products without text are beyond all others), positions in `LABELS`; int64, [judgements].

    Raises:
        PipelineError: the table is missing or damaged, or names a query or label not known.
    """
    path = folder / "judgements.parquet"
    judgements = tables.read_table(path, tables.JUDGEMENTS, remedy)
    rows = tables.rows_of(queries, judgements["query_id"], path, remedy)
    codes = _codes(products, judgements["product_id"])
    labels = tables.rows_of(pa.chunked_array([tables.LABELS]), judgements["label"], path, remedy)
    return judgements, (rows, codes, labels)


def score(
    system: runs.System, locale: str, judged: Judged, cutoffs: Evaluate, depth: int
) -> tuple[Scores, Top]:
    """Score both runs of a system, and return the first products of its catalogue run.

    Args:
        system: whose runs.
        locale: of which locale.
        judged: what they are judged by.
        cutoffs: those of the measures.
        depth: how deep the runs are.

    Raises:
        PipelineError: a run cannot be right; `runs.iter_run` says how.
    """
    folder, remedy = layout.runs(system, locale), runs.remedy(system, locale)

    def pieces(
        track: str, by: judging.Judgements
    ) -> Iterator[tuple[int, runs.Ranked, judging.JudgedRun]]:
        path = folder / f"{track}.parquet"
        for queries, ranked in runs.iter_run(path, judged.inputs, QUERIES_A_PIECE, remedy):
            yield (
                queries.start,
                ranked,
                judging.judge(ranked[0], ranked[1], by.rows(queries.start, queries.stop)),
            )

    catalogue, curve, tops = [], [], []
    for first, ranked, run in pieces("catalogue", judged.qrels):
        catalogue.append(metrics.catalogue_measures(run, cutoffs))
        curve.append(recall_curve(run, depth))
        tops.append(Top.of_run(ranked, first, run))
    pool = [metrics.pool_measures(run) for _, _, run in pieces("pool", judged.pool)]
    measures = {**_concatenate(catalogue), **_concatenate(pool)}
    return Scores(measures, _concatenate(curve)), Top.concatenate(tops)


def score_random(judged: Judged, cutoffs: Evaluate, depth: int) -> Scores:
    """Return what random orders of the catalogue, cut at `depth`, and of the pool would score."""
    findable, counts = judged.pool.label_counts(), judged.qrels.label_counts()
    products = len(judged.inputs.products)
    return Scores(
        {
            **random_order.catalogue_measures(findable, counts, products, depth, cutoffs),
            **random_order.pool_measures(findable),
        },
        {
            str(k): random_order.recall(findable, counts, products, k)
            for k in CURVE_CUTOFFS
            if k <= depth
        },
    )


def random_mix(judged: Judged) -> metrics.Floats:
    """Return the share of each label and, last, of the unjudged at any rank of a random order."""
    labels = judged.pool.label_counts().mean(axis=0) / len(judged.inputs.products)
    return np.append(labels, 1 - labels.sum())


def recall_curve(run: judging.JudgedRun, depth: int) -> PerQuery:
    """Return recall at each of `CURVE_CUTOFFS` down to the depth of the run, keyed by cutoff."""
    return {str(k): metrics.recall(run, k) for k in CURVE_CUTOFFS if k <= depth}


def _codes(products: pa.ChunkedArray, judged: pa.ChunkedArray) -> Ints:
    """Return each judged product's row; one without text has none, and a code beyond them all."""
    known = tables.row_of(products, judged)
    beyond = pc.add(pc.index_in(judged, value_set=judged.unique()), len(products))
    return np.asarray(pc.coalesce(known, beyond.combine_chunks()), dtype=np.int64)


def _concatenate(pieces: list[PerQuery]) -> PerQuery:
    return {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
