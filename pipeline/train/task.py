"""The parts of a training that an encoder and a reranker have each their own of."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.arrays import Ints, Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder
from pipeline.core.trained import TrainedEncoder, TrainedReranker
from pipeline.encoders.weights import LocalWeights
from pipeline.train.bi_encoder import BiEncoder, refuse_own_code, refuse_unfit
from pipeline.train.cross_encoder import CrossEncoder
from pipeline.train.development import Development
from pipeline.train.examples import Examples, LabelledPairs
from pipeline.train.learner import Learner
from pipeline.train.losses import Loss, label_loss, loss_of
from pipeline.train.mining import DEV_DEPTH, add_as_if_mined, draw_mined, unjudged
from pipeline.train.pairs import Pairs

Measure = Callable[[], dict[str, float]]
"""Returns a model's measures on the dev queries, in order."""


@dataclass(frozen=True)
class Base:
    """The encoder that a training starts from: its name, entry and weights."""

    name: str
    spec: Encoder
    weights: LocalWeights


@dataclass(frozen=True)
class Task:
    """A training's parts.

    Attributes:
        learner: the model and its items.
        examples: the steps.
        loss: what a step minimises.
        measure: says how good the model is.
        development: the dev queries.
        save: writes the model into an existing folder.
    """

    learner: Learner
    examples: Examples | LabelledPairs
    loss: Loss
    measure: Measure
    development: Development
    save: Callable[[Path], None]


def mined_tokens(settings: TrainedEncoder | TrainedReranker, base: Base) -> int:
    """Return how many tokens of a text the base reads when it looks for unjudged products."""
    return min(settings.max_tokens, base.spec.max_tokens)


def mine(
    settings: TrainedEncoder | TrainedReranker, base: Base, pairs: Pairs, dev: Pairs, device: str,
    where: str,
) -> tuple[dict[str, Ints], float]:  # fmt: skip
    """Return the unjudged products that are learned from: train_group and train_product.

    For a reranker also those that its dev measure orders: dev_group and dev_product. Each is
    `Pairs.group` or `Pairs.product` of one side. Beside them, how many tokens were read, as
    `Learner.tokens` counts. Takes what `load` does, the pairs of dev, and where it computes.

    Raises:
        PipelineError: the base's vectors are not finite, or nothing is found.
    """
    assert settings.mined
    model = BiEncoder(base.spec, base.weights, mined_tokens(settings, base))
    tokens = 0.0

    def vectors(side: Pairs) -> tuple[Matrix, Matrix]:
        nonlocal tokens
        items = [*model.read(side.queries, "query"), *model.read(side.texts, "passage")]
        learner = model.learner(items, device)
        try:
            found = learner.outputs(np.arange(len(items)))
        except FloatingPointError as err:
            raise PipelineError(f"{where}.base: {base.name}: {err}. Use another base.") from err
        tokens += learner.tokens
        return found[: len(side.queries)], found[len(side.queries) :]

    group, product = draw_mined(pairs, *vectors(pairs), settings.mined, settings.seed, where)
    found = {"train_group": group, "train_product": product}
    if settings.kind == "reranker":
        group, product = unjudged(dev, *vectors(dev), DEV_DEPTH)
        found |= {"dev_group": group, "dev_product": product}
    return found, tokens


def load(
    settings: TrainedEncoder | TrainedReranker, base: Base, pairs: Pairs, where: str
) -> BiEncoder | CrossEncoder:
    """Return the model to train; what is sure to fail is refused before anything is mined.

    Args:
        settings: the entry.
        base: what it starts from.
        pairs: what it learns from, without mined pairs.
        where: the entry's key in params.yaml, for messages.

    Raises:
        PipelineError: the base cannot be trained so, or the pairs do not suffice, whatever is
            mined.
    """
    if settings.kind == "encoder" or settings.mined:
        refuse_unfit(base.spec, base.name, where)
    else:
        refuse_own_code(base.spec, base.name, where)
    if settings.mined:
        _examples(settings, add_as_if_mined(pairs, settings.mined), where)
    if isinstance(settings, TrainedReranker):
        return CrossEncoder(base.spec, base.weights, settings.max_tokens, settings.seed, where)
    model = BiEncoder(base.spec, base.weights, settings.max_tokens)
    if settings.matryoshka and max(settings.matryoshka) > model.dimension:
        raise PipelineError(
            f"{where}.matryoshka: {max(settings.matryoshka)} is more than the {model.dimension} "
            f"components of {base.name}. Set at most that."
        )
    return model


def task_of(
    settings: TrainedEncoder | TrainedReranker, model: BiEncoder | CrossEncoder, pairs: Pairs,
    development: Development, device: str, where: str,
) -> Task:  # fmt: skip
    """Return what trains a model.

    Args:
        settings: the entry.
        model: what `load` returned for it.
        pairs: what it learns from.
        development: what chooses its best epoch.
        device: where it computes.
        where: the entry's key in params.yaml, for messages.

    Raises:
        PipelineError: the pairs do not suffice.
    """
    examples = _examples(settings, pairs, where)
    if isinstance(model, CrossEncoder):
        learner, measure = _learn_pairs(model, pairs, development, device)
    else:
        learner, measure = _learn_texts(model, pairs, development, device)
    loss = loss_of(settings) if isinstance(settings, TrainedEncoder) else label_loss
    return Task(learner, examples, loss, measure, development, model.save)


def _examples(
    settings: TrainedEncoder | TrainedReranker, pairs: Pairs, where: str
) -> Examples | LabelledPairs:
    if isinstance(settings, TrainedEncoder):
        return Examples(pairs, settings, where)
    return LabelledPairs(pairs, settings, where)


def _learn_texts(
    model: BiEncoder, pairs: Pairs, development: Development, device: str
) -> tuple[Learner, Measure]:
    dev = development.pairs
    parts = [model.read(pairs.queries, "query"), model.read(pairs.texts, "passage"),
             model.read(dev.queries, "query"), model.read(dev.texts, "passage")]  # fmt: skip
    learner = model.learner([read for part in parts for read in part], device)
    ends = np.cumsum([len(part) for part in parts])

    def measure() -> dict[str, float]:
        queries, texts = (learner.outputs(np.arange(*ends[at : at + 2])) for at in (1, 2))
        return development.of_vectors(queries, texts)

    return learner, measure


def _learn_pairs(
    model: CrossEncoder, pairs: Pairs, development: Development, device: str
) -> tuple[Learner, Measure]:
    learner = model.learner([*model.read(pairs), *model.read(development.pairs)], device)
    dev = len(pairs) + np.arange(len(development.pairs))

    def measure() -> dict[str, float]:
        return development.of_logits(learner.outputs(dev))

    return learner, measure
