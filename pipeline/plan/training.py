"""What it takes to train the models that the locales use; nothing is read but the source."""

import math
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout
from pipeline.core.arrays import Floats
from pipeline.core.params import Params
from pipeline.core.tables import LABELS
from pipeline.core.trained import OF_POSITIVES, TrainedEncoder
from pipeline.demo.tables import LOCALES
from pipeline.encoders.tokens import CHARACTERS_PER_TOKEN
from pipeline.pairs.source import asker_of, drawing_of, open_training
from pipeline.plan.costs import Row
from pipeline.plan.sizes import DEMO_CHARACTERS, DEMO_JUDGEMENTS, bytes_per_row
from pipeline.sample import esci
from pipeline.sample.absent import no_rows
from pipeline.sample.draw import draw_queries
from pipeline.train.catalogue import OTHERS
from pipeline.train.mining import DEV_DEPTH

_QUERY_TOKENS = 8  # about
_DEMO_TRAIN, _DEMO_SMALL = 1 / 3, 3 / 4
_DEMO_LABELS = {"E": 0.5, "S": 0.28, "C": 0.07, "I": 0.15}
"""Of each of the demo's queries alike."""


@dataclass(frozen=True)
class Source:
    """What a model learns from.

    Attributes:
        rows: of both tables.
        labels: how many judgements of each of `LABELS` each query has, [queries, labels].
        characters: of a text.
    """

    rows: int
    labels: Floats
    characters: int

    def count(self, wanted: Collection[str], most: float) -> float:
        """Return how many judgements have one of these labels, of each query at most so many."""
        of_query = self.labels[:, [label in wanted for label in LABELS]].sum(axis=1)
        return float(np.minimum(of_query, most).sum())


def training_rows(params: Params, row: Callable[..., Row]) -> Iterator[Row]:
    """Yield the rows of pairs and train of every name under `trained` that a locale needs.

    A step reads a query, a positive and the hard negatives of each pair of its batch. The dev
    queries and what they are searched among are read once an epoch, before the first one, and after
    an interpolation; they are not learned, so a third each. So are the texts among which unjudged
    products are found, and the pairs that a teacher scores.

    Args:
        params: the choices.
        row: `costs.row` of the records.

    Raises:
        PipelineError: the source cannot be used; the message is that of `pairs`.
    """
    for name in params.trained_in_use():
        entry, found = params.trained[name], _measure(params, name)
        judged, dev = round(found.labels.sum()), params.training.dev_share
        threads = {"threads": params.runtime.thread_count()}
        read = {"rows": found.rows, "products": judged, "judgements": judged}
        yield row("pairs", name, read | threads)
        text = min(found.characters // CHARACTERS_PER_TOKEN, entry.max_tokens)
        queries = len(found.labels)
        mined = entry.mined.count * queries if entry.mined else 0
        learned, each, asked, taught = judged + mined, _QUERY_TOKENS + text, judged * dev, 0.0
        others = min(judged * (1 - dev), OTHERS * len(entry.locales))
        if isinstance(entry, TrainedEncoder):
            if (teacher := params.reranker_named(entry.teacher)) is not None:
                whole = _QUERY_TOKENS + found.characters // CHARACTERS_PER_TOKEN
                taught = learned * (1 - dev) * min(whole, teacher.max_tokens)
            if entry.loss in OF_POSITIVES:
                learned = found.count(entry.positives, entry.positives_per_query or math.inf)
            each = _QUERY_TOKENS + text * (1 + entry.drawn_negatives())
            asked += others
        elif entry.mined:
            asked += DEV_DEPTH * queries * dev
        steps = entry.epochs * learned * each * (1 - dev)
        measured = entry.epochs + 1 + (entry.tuned_share < 1)
        read_alone = measured * asked + (judged if entry.mined else 0)
        units = {"tokens": round(steps + (read_alone * text + taught) / 3)}
        yield row("train", name, units | {"threads": entry.threads}, entry.cost_kind())


def _measure(params: Params, name: str) -> Source:
    settings, locales = params.training, params.trained[name].locales
    folder = Path(settings.source)
    if folder == layout.DEMO:
        queries = params.demo.queries * _DEMO_TRAIN
        queries *= _DEMO_SMALL if settings.version == "small" else 1
        if settings.queries != "all":
            queries = min(queries, settings.queries)
        rows = len(LOCALES) * (params.demo.products + params.demo.queries * DEMO_JUDGEMENTS)
        of_query = [DEMO_JUDGEMENTS * _DEMO_LABELS[label] for label in LABELS]
        labels = np.tile(of_query, (round(queries * len(locales)), 1))
        return Source(rows, labels, DEMO_CHARACTERS)
    asker, drawing = asker_of(name), drawing_of(settings)
    examples_file, products_file = open_training(params, name)
    examples = esci.read_examples(examples_file, drawing, locales, asker).rows
    if not products_file.rows:
        raise no_rows(products_file.path, locales[0], (), asker)
    drawn = [draw_queries(examples, drawing, each, examples_file.path)[1] for each in locales]
    return Source(
        products_file.rows + examples_file.rows,
        np.concatenate([*map(_count_labels, drawn)]),
        bytes_per_row(products_file, params.clean.fields),
    )


def _count_labels(judgements: pa.Table) -> Floats:
    """Return how many judgements of each of `LABELS` each query has, [queries, labels]."""
    queries, of_query = np.unique(judgements["query_id"].to_numpy(), return_inverse=True)
    counts = np.zeros((len(queries), len(LABELS)))
    label = pc.index_in(judgements["esci_label"], value_set=pa.array(LABELS)).to_numpy()
    np.add.at(counts, (of_query, label), 1)
    return counts
