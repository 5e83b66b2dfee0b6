"""Which pairs each step of a training learns from.

An epoch is every example once, in an order that the seed and the epoch decide, cut into steps of
nearly equal size. With `positives_per_query`, each epoch draws at most so many of a query's
positives. The hard negatives of a step follow from the seed, the epoch and the step.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.core.trained import (
    DISTILLATION,
    OF_POSITIVES,
    OF_TRIPLETS,
    Targets,
    TrainedEncoder,
    TrainedReranker,
)
from pipeline.runs import ranking
from pipeline.train import streams
from pipeline.train.pairs import Pairs

Score = Callable[[Pairs, Ints, tuple[str, ...]], NDArray[np.float64]]
"""Takes pairs, rows of them and the labels that are right; returns a teacher's log-odds [rows]."""


@dataclass(frozen=True)
class Step:
    """What one step computes and compares.

    Attributes:
        items: the items to compute, each once; int64, shape [items]. To an encoder an item is a
            text: the queries come first, then the products. To a reranker it is a pair.
        columns: which of `items` are compared: for mnrl the queries [rows] and the products
            [products] that they are compared with; for a loss of pairs or triplets two or three
            columns [rows]; for a reranker the pairs [rows].
        target: what is right: for mnrl the place among the products [rows], for a reranker the
            label's place [rows], for cosine the wanted similarity [rows], for contrastive losses 1
            or 0 [rows], for distill-kl-div the teacher's log-odds [rows, 2]. Empty for triplets.
        counts: for mnrl, which products a row is compared with, its own among them; bool, shape
            [rows, products].
        rows: how many examples it has.
    """

    items: Ints
    columns: tuple[Ints, ...]
    target: NDArray[np.float32] | Ints
    counts: NDArray[np.bool_]
    rows: int


class Examples:
    """The examples of a training, and the steps that they make.

    Attributes:
        size: how many examples an epoch has.
        without_negative: how many positive pairs a loss of triplets leaves out, since their query
            has no negative product.
        queries_without_negative: how many queries with a positive have none to draw, of a loss that
            draws them.
        taught: a teacher's log-odds that the product is right; NaN where nothing asks for them;
            float32, shape [pairs]. None without a teacher.
    """

    without_negative = queries_without_negative = 0
    taught: NDArray[np.float32] | None = None

    def __init__(self, pairs: Pairs, settings: TrainedEncoder, where: str) -> None:
        """Choose the examples.

        Args:
            pairs: the pairs of the train part.
            settings: the entry.
            where: its key in params.yaml, for messages.

        Raises:
            PipelineError: there are no positives, fewer examples than a batch, or the loss needs
                negatives and has none.
        """
        self._pairs = pairs
        self._settings = settings
        positive, negative = _sides(pairs, settings)
        if not positive.any():
            there = ", ".join(label for label, count in label_counts(pairs).items() if count)
            raise PipelineError(
                f"{where}.positives: no pair of the train split has one of these labels (found "
                f"{', '.join(settings.positives)}). Name labels that it has: {there or 'none'}."
            )
        self._asked = pairs.asked()
        # With positives of another label, E is right all the same, unless it is among negatives.
        right = positive | (pairs.has(("E",)) & ~negative)
        self._right = set(zip(self._asked[right].tolist(), pairs.text[right].tolist(), strict=True))
        self._negatives = _by_group(pairs.group, negative)
        self._rows = np.flatnonzero(
            positive if settings.loss in OF_POSITIVES else positive | negative
        )
        if settings.drawn_negatives():
            asking = np.unique(pairs.group[positive])
            self.queries_without_negative = int((~np.isin(asking, [*self._negatives])).sum())
        if settings.loss in OF_TRIPLETS:
            has_one = np.isin(pairs.group[self._rows], list(self._negatives))
            self.without_negative = int((~has_one).sum())
            self._rows = self._rows[has_one]
        self._refuse_no_negatives(positive, negative, where)
        self.size = len(self._of_epoch(0))
        more = ", or raise positives_per_query" if self.size < self._rows.size else ""
        _refuse_large_batch(settings.batch, self.size, "examples", where, more)

    def learn_from(self, score: Score) -> None:
        """Ask a teacher about the pairs that a step may compare; `score` is `Teacher.log_odds`."""
        pairs = self._pairs
        rows = _compared(pairs, self._settings)
        self.taught = np.full(len(pairs), np.nan, np.float32)
        self.taught[rows] = score(pairs, rows, self._settings.positives)

    def steps(self, epoch: int) -> list[Ints]:
        """Return the rows of the pairs that each step of an epoch, counted from 0, learns from."""
        return _cut(self._of_epoch(epoch), self._settings, epoch)

    def step(self, rows: Ints, epoch: int, number: int) -> Step:
        """Return what a step of an epoch computes; `rows` is an element of `steps`."""
        draw = _random(self._settings.seed, streams.NEGATIVES, epoch, number)
        match self._settings.loss:
            case "mnrl":
                return self._ranking(rows, draw)
            case "triplet" | "distill-kl-div":
                return self._triplets(rows, draw)
            case _:
                return self._scored(rows)

    def _of_epoch(self, epoch: int) -> Ints:
        """Return the rows of an epoch's examples, ascending: of each query, at most so many."""
        most = self._settings.positives_per_query
        if most is None:
            return self._rows
        drawn = _random(self._settings.seed, streams.POSITIVES, epoch).permutation(self._rows)
        by_group = drawn[np.argsort(self._pairs.group[drawn], kind="stable")]
        group = self._pairs.group[by_group]
        return np.sort(by_group[ranking.places(group) < most])

    def _ranking(self, rows: Ints, draw: np.random.Generator) -> Step:
        """Compare each query with all products of the step but others that are right for it."""
        pairs = self._pairs
        _, hard = self._drawn(rows, draw)
        texts = np.unique(np.concatenate([pairs.text[rows], pairs.text[hard]]))
        target = np.searchsorted(texts, pairs.text[rows])
        right = self._right
        counts = np.array(
            [[(query, text) not in right for text in texts.tolist()]
             for query in self._asked[rows].tolist()]
        )  # fmt: skip
        counts[np.arange(len(rows)), target] = True
        items, query, text = _step(pairs, rows, texts)
        return Step(items, (query, text), target, counts, len(rows))

    def _triplets(self, rows: Ints, draw: np.random.Generator) -> Step:
        pairs = self._pairs
        at, negatives = self._drawn(rows, draw)
        rows = rows[at]
        texts, places = np.unique(
            np.concatenate([pairs.text[rows], pairs.text[negatives]]), return_inverse=True
        )
        items, query, text = _step(pairs, rows, texts)
        columns = (query, *np.split(text[places], 2))
        target = np.empty(0, np.float32)
        if self._settings.loss == DISTILLATION:
            assert self.taught is not None
            target = self.taught[np.stack([rows, negatives], axis=1)]
        return Step(items, columns, target, _NO_MASK, len(rows))

    def _scored(self, rows: Ints) -> Step:
        """Give each pair the similarity that its label asks for."""
        pairs, settings = self._pairs, self._settings
        texts, places = np.unique(pairs.text[rows], return_inverse=True)
        items, query, text = _step(pairs, rows, texts)
        if settings.loss == "cosine":
            wanted = np.array(
                [getattr(targets_of(settings), label) for label in LABELS], np.float32
            )
            target = wanted[pairs.label[rows]]
        else:
            target = pairs.has(settings.positives)[rows].astype(np.float32)
        return Step(items, (query, text[places]), target, _NO_MASK, len(rows))

    def _drawn(self, rows: Ints, draw: np.random.Generator) -> tuple[Ints, Ints]:
        """Draw the hard negatives of rows: which of `rows` each is for, and its own row."""
        at, drawn = [], []
        for place, group in enumerate(self._pairs.group[rows].tolist()):
            own = self._negatives.get(group, _NOTHING)
            count = min(self._settings.drawn_negatives(), own.size)
            if count:
                chosen = draw.choice(own, count, replace=False)
                at += [place] * count
                drawn += chosen.tolist()
        return np.array(at, np.int64), np.array(drawn, np.int64)

    def _refuse_no_negatives(
        self, positive: NDArray[np.bool_], negative: NDArray[np.bool_], where: str
    ) -> None:
        settings = self._settings
        if settings.loss in OF_POSITIVES and not settings.drawn_negatives():
            if settings.loss == "mnrl" and len(np.unique(self._asked[positive])) > 1:
                return  # the products of other queries
            raise _no_negatives(
                where, "none of a query's own are drawn",
                "Name labels under negatives, and raise hard_negatives.",
            )  # fmt: skip
        if not negative.any():
            found = ", ".join(settings.negatives) or "none"
            raise _no_negatives(
                where, f"no pair has a label of negatives ({found})",
                "Name labels that the train split has, or use the loss mnrl with negatives: [] and "
                "hard_negatives: 0.",
            )  # fmt: skip
        if settings.loss in OF_TRIPLETS and not self._rows.size:
            raise _no_negatives(
                where, "no query has one beside a positive product", "Name other labels, or use "
                "the loss mnrl.",
            )  # fmt: skip


class LabelledPairs:
    """The steps of a reranker: pairs of all queries mixed.

    Not whole queries: a step of three queries, or of one that has forty products, has few labels
    that follow from the match, and such steps taught a model only how frequent each label is.

    Attributes:
        size: how many pairs an epoch has.
    """

    def __init__(self, pairs: Pairs, settings: TrainedReranker, where: str) -> None:
        """Choose the examples: all pairs.

        Raises:
            PipelineError: there are fewer pairs than a batch, or all have one label.
        """
        self._pairs = pairs
        self._settings = settings
        self.size = len(pairs)
        if len(np.unique(pairs.label)) < 2:
            raise _no_negatives(where, "all pairs have one label", "Take other locales or queries.")
        _refuse_large_batch(settings.batch, self.size, "pairs", where)

    def steps(self, epoch: int) -> list[Ints]:
        """Return the rows of each step of an epoch, counted from 0."""
        return _cut(np.arange(self.size), self._settings, epoch)

    def step(self, rows: Ints, epoch: int, number: int) -> Step:
        """Return what a step computes: its pairs, and their labels."""
        return Step(rows, (np.arange(rows.size),), self._pairs.label[rows], _NO_MASK, rows.size)


def _compared(pairs: Pairs, settings: TrainedEncoder) -> Ints:
    """Return the rows of pairs that a loss of triplets may compare, ascending."""
    positive, negative = _sides(pairs, settings)
    both = np.intersect1d(pairs.group[positive], pairs.group[negative])
    return np.flatnonzero((positive | negative) & np.isin(pairs.group, both))


def _sides(pairs: Pairs, settings: TrainedEncoder) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say which pairs are positive and which are negative; mined ones are negative."""
    positive = pairs.has(settings.positives)
    return positive, (pairs.has(settings.negatives) & ~positive) | ~pairs.judged


def targets_of(settings: TrainedEncoder) -> Targets:
    """Return the cosine that each label is pulled to, for the loss cosine.

    Not the gains by default: 1, 0.1 and 0.01 would press S to I.
    """
    return settings.targets or Targets(E=1.0, S=0.6, C=0.2, I=0.0)


_NOTHING = np.empty(0, np.int64)
_NO_MASK = np.empty((0, 0), np.bool_)


def _cut(rows: Ints, settings: TrainedEncoder | TrainedReranker, epoch: int) -> list[Ints]:
    """Return rows in the order of an epoch, in steps of nearly equal size."""
    order = _random(settings.seed, streams.ORDER, epoch).permutation(rows)
    return np.array_split(order, -(-len(rows) // settings.batch))


def _step(pairs: Pairs, rows: Ints, texts: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the items of a step, the place of each row's query in them, and those of the texts."""
    queries, places = np.unique(pairs.query[rows], return_inverse=True)
    items = np.concatenate([queries, len(pairs.queries) + texts])
    return items, places, len(queries) + np.arange(len(texts))


def _by_group(group: Ints, chosen: NDArray[np.bool_]) -> dict[int, Ints]:
    """Return the chosen rows of each group that has any, ascending."""
    rows = np.flatnonzero(chosen)
    groups, begins = np.unique(group[rows], return_index=True)
    return dict(zip(groups.tolist(), np.split(rows, begins[1:]), strict=True)) if rows.size else {}


def _random(seed: int, *about: int) -> np.random.Generator:
    return np.random.default_rng([seed, *about])


def _no_negatives(where: str, why: str, remedy: str) -> PipelineError:
    return PipelineError(f"{where}.loss: it needs negative products, and {why}. {remedy}")


def _refuse_large_batch(batch: int, size: int, unit: str, where: str, more: str = "") -> None:
    """Refuse a batch that is never full; `more` ends the sentence that says what to do."""
    if batch > size:
        lower = f"Set at most {size}, or take" if size > 1 else "Take"  # a batch has two or more
        raise PipelineError(
            f"{where}.batch: {batch} is more than the {size} {unit} that there are to learn from. "
            f"{lower} more queries{more}."
        )


def label_counts(pairs: Pairs) -> dict[str, int]:
    """Return how many judged pairs have each label."""
    counts = np.bincount(pairs.label[pairs.judged], minlength=len(LABELS)).tolist()
    return dict(zip(LABELS, counts, strict=True))
