"""How well a reranker tells the labels E, S, C and I apart: ESCI's tasks 2 and 3.

Task 2 asks for the label of each judged pair, task 3 whether it is a Substitute. Two baselines say
what is easy: the most frequent label for every pair, and a threshold on BM25's score.
"""

from typing import Any

import numpy as np

from pipeline.core import layout
from pipeline.core.arrays import Floats, Ints
from pipeline.core.cards import check_hash
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.system_scores import Judged
from pipeline.runs import files as run_files
from pipeline.runs.card import RunCard, rerun_hint
from pipeline.runs.labels import read_labels

S_CODE = LABELS.index("S")


def confusion(truth: Ints, guess: Ints, classes: int) -> Ints:
    """Return how many pairs of each class (rows) got each class (columns), [classes, classes]."""
    counts = np.bincount(truth * classes + guess, minlength=classes**2)
    return counts.reshape(classes, classes)


def f1(table: Ints) -> tuple[float, float]:
    """Return macro and micro F1 of a confusion.

    A class's F1 is 2 tp / (2 tp + fp + fn), 0 where nothing is or is guessed to be of it. Macro is
    the mean over the classes that are or are guessed, as scikit-learn's f1_score has it; micro is
    the share of right guesses, since each pair has one label and one guess.
    """
    right = np.diag(table).astype(np.float64)
    either = table.sum(axis=0) + table.sum(axis=1)
    there = either > 0
    macro = float((2 * right[there] / either[there]).mean())
    return macro, float(right.sum() / table.sum())


def measure_labels(locale: str, judged: Judged, card: RunCard) -> dict[str, Any] | None:
    """Return what a locale's labels score.

    None where its reranker gives none, or no judged product has a text.

    Args:
        locale: the locale.
        judged: its judgements; those of products without a text are left out.
        card: that of its reranked runs.

    Raises:
        PipelineError: the labels are missing, were edited, or are of other pairs.
    """
    if (sha256 := card.of.get("labels_sha256")) is None:
        return None
    runs, remedy = layout.runs("rerank", locale), rerun_hint("rerank", locale)
    check_hash(runs.labels, sha256, runs.card, remedy)
    pool = judged.pool
    rows = pool.positions()
    truth = pool.labels.astype(np.int64)
    shares = read_labels(runs.labels, judged.ids, rows, pool.codes, remedy)
    if not len(truth):
        return None
    words = bm25_scores(locale, judged)
    return {
        "pairs": len(truth),
        **_scored(truth, np.argmax(shares, axis=1), rows, words, LABELS),
        "substitute": _scored(
            (truth == S_CODE).astype(np.int64),
            # S where it is likelier than all other labels together.
            (shares[:, S_CODE] > 0.5).astype(np.int64),
            rows, words, ("other", "S"),
        ),
    }  # fmt: skip


def _scored(
    truth: Ints, guess: Ints, rows: Ints, words: Floats, names: tuple[str, ...]
) -> dict[str, Any]:
    """Return F1 of guesses and of both baselines, and the confusion: by label, then by guess."""
    classes = len(names)
    majority = np.full_like(truth, np.bincount(truth, minlength=classes).argmax())
    found: dict[str, Any] = {}
    for name, each in (
        ("", guess),
        ("majority_", majority),
        ("bm25_", threshold_guesses(truth, rows, words, classes)),
    ):
        macro, micro = f1(confusion(truth, each, classes))
        found[f"{name}macro_f1"] = round(macro, MEAN_DECIMALS)
        found[f"{name}micro_f1"] = round(micro, MEAN_DECIMALS)
    table = confusion(truth, guess, classes).tolist()
    found["confusion"] = {
        label: dict(zip(names, row, strict=True)) for label, row in zip(names, table, strict=True)
    }
    return found


def threshold_guesses(truth: Ints, rows: Ints, scores: Floats, classes: int) -> Ints:
    """Return what a threshold on a score guesses: one class above it, another one below.

    Both classes and the threshold are those with the best macro F1 on the other half of the
    queries, so that no pair helps to guess its own label. Halves: even and odd rows of queries.
    """
    guess = np.zeros_like(truth)
    for half in (0, 1):
        mine = rows % 2 == half
        above, below, threshold = _best_threshold(truth[~mine], scores[~mine], classes)
        guess[mine] = np.where(scores[mine] >= threshold, above, below)
    return guess


def _best_threshold(truth: Ints, scores: Floats, classes: int) -> tuple[int, int, float]:
    if not len(truth):
        return 0, 0, 0.0
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    # How many of each class are among the first n, for n from 0 to all.
    upper = np.zeros((len(truth) + 1, classes))
    upper[1:] = np.cumsum(np.eye(classes)[truth[order]], axis=0)
    ends = np.append(True, np.append(np.diff(ordered) != 0, True))  # no threshold splits equals
    total, size = upper[-1], np.arange(len(truth) + 1)
    there = total > 0
    best = (-1.0, 0, 0, 0.0)
    for above in range(classes):
        for below in range(classes):
            if above == below:
                continue
            f_above = 2 * upper[:, above] / np.maximum(size + total[above], 1)
            f_below = (
                2
                * (total[below] - upper[:, below])
                / np.maximum(len(truth) - size + total[below], 1)
            )
            macro = np.where(ends, (f_above + f_below) / max(int(there.sum()), 1), -1.0)
            n = int(macro.argmax())
            if macro[n] > best[0]:
                best = float(macro[n]), above, below, float(ordered[n - 1]) if n else np.inf
    return best[1], best[2], best[3]


def bm25_scores(locale: str, judged: Judged) -> Floats:
    """Return the bm25 score of each judged pair, relative to the highest of its query, [pairs].

    Raises:
        PipelineError: the pool run is missing, or is not of these pairs.
    """
    path, remedy = layout.runs("bm25", locale).pool, rerun_hint("bm25", locale)
    pieces = run_files.iter_run(path, judged.ids, run_files.QUERIES_A_PIECE, remedy)
    runs = (run for _, run in pieces)
    rows, codes, scores = (np.concatenate(each) for each in zip(*runs, strict=True))
    order = np.lexsort((codes, rows))
    rows, codes, scores = rows[order], codes[order], scores[order]
    pool = judged.pool
    if not (np.array_equal(pool.positions(), rows) and np.array_equal(pool.codes, codes)):
        raise PipelineError(f"{path} does not rank the judged products. {remedy}")
    highest = np.zeros(len(pool))
    np.maximum.at(highest, rows, scores)
    relative: Floats = np.zeros_like(scores)
    np.divide(scores, highest[rows], out=relative, where=highest[rows] > 0)
    return relative
