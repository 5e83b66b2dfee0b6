"""Both runs of a locale, scored and put in order again."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import files, layout, stage, tables
from pipeline.core.arrays import Matrix
from pipeline.core.clean_counts import check_text_settings
from pipeline.core.languages import warn_of_language
from pipeline.core.log import log
from pipeline.core.params import Params, Reranker
from pipeline.core.progress import Progress
from pipeline.core.trained_folder import copy_curve, refuse_other_model, refuse_other_pairs
from pipeline.encoders.pairs import Pair, probabilities, scores_of
from pipeline.encoders.tokens import CHARACTERS_PER_TEXT, CHARACTERS_PER_TOKEN
from pipeline.rerank.documents import read_documents
from pipeline.rerank.reorder import in_window, reorder
from pipeline.rerank.scores import PairScores, pair_keys
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs
from pipeline.runs.labels import labels_table
from pipeline.runs.made_of import of_rerank
from pipeline.runs.ranking import Ranked
from pipeline.store.upkeep import prune_after_run

BATCH_QUERIES = 256


@dataclass(frozen=True)
class Texts:
    """The texts of a locale's queries, and of the products that are scored by their rows."""

    queries: list[str]
    products: Mapping[int, str]

    def pairs(self, run: Ranked) -> list[Pair]:
        """Return the texts of a run's pairs."""
        rows, codes, _ = run
        return [
            (self.queries[row], self.products[code])
            for row, code in zip(rows.tolist(), codes.tolist(), strict=True)
        ]


def write_reranked(params: Params, locale: str, spec: Reranker) -> stage.Done:
    """Write the reranked runs of a locale; the pool run has all its products scored."""
    started = time.time()
    inputs, settings = read_inputs(locale), params.reranking
    name = params.rerank[locale]
    (card,) = run_card.read_cards(locale, [settings.run], inputs, params.retrieve.depth).values()
    check_text_settings(locale, params.clean)
    warn_of_language(f"rerank.{locale}", name, spec.languages, params.language[locale])
    pieces = partial(_pieces, locale, params, inputs)
    texts = _read_texts(params, locale, spec, inputs, pieces())
    scores = PairScores(name, spec, params.runtime)
    refuse_other_model(params, name, scores.weights.sha256)
    refuse_other_pairs(params, name, locale)
    keys = [pair_keys(texts.pairs(run)) for _, window, pool in pieces() for run in (window, pool)]
    distinct = np.unique(np.concatenate(keys), axis=0)
    to_score = len(scores.missing(distinct))
    of = of_rerank(params, locale, card)
    of["weights_sha256"] = scores.weights.sha256
    with (
        Progress(to_score, "pairs") as progress,
        run_files.write_runs(locale, "rerank", of, params.retrieve.depth, inputs) as (
            catalogue,
            pool,
        ),
    ):
        pairs = pairs_cut = 0
        judged: list[tuple[Ranked, Matrix]] = []
        for whole, window, judged_run in pieces():
            # Together, so that pairs of one length fill a batch.
            both = texts.pairs(window) + texts.pairs(judged_run)
            logits, cut = scores.logits(both, pair_keys(both), progress)
            pairs += len(both)
            pairs_cut += int(cut.sum())
            values = scores_of(logits, spec)
            inside = in_window(whole, settings.depth)
            split = len(window[0])
            catalogue.add(*reorder(whole, inside, values[:split], settings.weight))
            every = np.ones(len(judged_run[0]), dtype=bool)
            pool.add(*reorder(judged_run, every, values[split:], settings.weight))
            judged.append((judged_run, logits[split:]))
        out = layout.RunFiles(pool.folder)
        of |= {"pairs": str(pairs), "pairs_cut": str(pairs_cut)}
        if spec.labels > 1:
            table = labels_table(inputs, *_joined(judged))
            pq.write_table(table, out.labels, **tables.WRITE_OPTIONS)
            of["labels_sha256"] = files.sha256_file(out.labels)
        copy_curve(params, name, out.curve)
    prune_after_run(params.runtime.store_gigabytes, started)
    log.info(
        "rerank locale=%s reranker=%s run=%s queries=%d pairs=%d distinct=%d reused=%d scored=%d "
        "tokens=%d pairs_cut=%d",
        locale, name, settings.run, len(inputs.queries), pairs, len(distinct),
        len(distinct) - scores.scored, scores.scored, scores.tokens, pairs_cut,
    )  # fmt: skip
    return stage.Done(
        name, products=len(inputs.products), queries=len(inputs.queries),
        depth=params.retrieve.depth, scored=scores.scored,
        characters=CHARACTERS_PER_TOKEN * scores.tokens + CHARACTERS_PER_TEXT * scores.scored,
    )  # fmt: skip


def _pieces(locale: str, params: Params, inputs: Inputs) -> Iterator[tuple[Ranked, Ranked, Ranked]]:
    """Yield for some queries at a time: their run, the part of it that is scored, the pool run."""
    system, depth = params.reranking.run, params.reranking.depth
    if not len(inputs.queries):  # one empty piece, so that what is joined has a shape
        nothing = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0)
        yield nothing, nothing, nothing
        return
    remedy = run_card.rerun_hint(system, locale)
    tracks = (
        run_files.iter_run(layout.runs(system, locale).track(track), inputs, BATCH_QUERIES, remedy)
        for track in run_card.TRACKS
    )
    for (_, run), (_, pool) in zip(*tracks, strict=True):
        rows, codes, own = run
        inside = in_window(run, depth)
        yield run, (rows[inside], codes[inside], own[inside]), pool


def _read_texts(
    params: Params,
    locale: str,
    spec: Reranker,
    inputs: Inputs,
    pieces: Iterator[tuple[Ranked, Ranked, Ranked]],
) -> Texts:
    """Read the texts of the queries, and those of the products that the pieces score."""
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    scored = np.zeros(len(inputs.products), dtype=bool)
    for _, window, pool in pieces:
        scored[window[1]] = True
        scored[pool[1]] = True
    return Texts(
        tables.read_column(clean.queries, tables.QUERIES, "text", remedy).to_pylist(),
        read_documents(clean.products, np.flatnonzero(scored), spec, params.clean, remedy),
    )


def _joined(
    judged: list[tuple[Ranked, Matrix]],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    rows = np.concatenate([run[0] for run, _ in judged])
    codes = np.concatenate([run[1] for run, _ in judged])
    return rows, codes, probabilities(np.concatenate([logits for _, logits in judged]))
