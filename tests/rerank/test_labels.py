"""F1 is scikit-learn's, and a baseline guesses no label that it has seen."""

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from pipeline.core.params import ESCI_GAINS
from pipeline.core.tables import LABELS
from pipeline.evaluate.label_scores import confusion, f1, threshold_guesses
from pipeline.evaluate.metrics import GAINS


@pytest.mark.parametrize("classes", [2, 4])
def test_f1_and_confusion_are_those_of_scikit_learn(classes: int) -> None:
    rng = np.random.default_rng(classes)
    for size in (1, 3, 40, 900):
        truth, guess = rng.integers(0, classes, (2, size))
        guess[rng.random(size) < 0.3] = 0
        table = confusion(truth, guess, classes)
        assert np.array_equal(table, confusion_matrix(truth, guess, labels=range(classes)))
        macro, micro = f1(table)
        assert macro == pytest.approx(f1_score(truth, guess, average="macro", zero_division=0))
        assert micro == pytest.approx(f1_score(truth, guess, average="micro"))


def test_a_threshold_finds_what_a_score_tells_apart_and_nothing_in_noise() -> None:
    rng = np.random.default_rng(0)
    rows = np.sort(rng.integers(0, 200, 4000))
    truth = rng.integers(0, 2, 4000) * 3
    scores = np.where(truth == 0, 0.8, 0.3) + rng.normal(0, 0.05, 4000)
    assert np.mean(threshold_guesses(truth, rows, scores, 4) == truth) > 0.99
    noise = threshold_guesses(truth, rows, rng.random(4000), 4)
    assert 0.45 < np.mean(noise == truth) < 0.55


def test_a_threshold_is_chosen_on_the_other_half_of_the_queries() -> None:
    rows = np.repeat(np.arange(40), 10)
    rng = np.random.default_rng(1)
    scores = rng.random(400)
    truth = np.where((scores > 0.5) == (rows % 2 == 0), 0, 3)  # each half contradicts the other
    assert np.mean(threshold_guesses(truth, rows, scores, 4) == truth) < 0.1


def test_one_half_without_pairs_and_equal_scores_are_no_error() -> None:
    rows = np.zeros(5, dtype=np.int64)
    guesses = threshold_guesses(np.arange(5) % 4, rows, np.zeros(5), 4)
    assert guesses.shape == (5,)


def test_the_gains_of_a_trained_reranker_are_those_of_the_measures() -> None:
    assert tuple(GAINS[label] for label in LABELS) == ESCI_GAINS
