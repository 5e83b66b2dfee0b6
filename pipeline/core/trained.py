"""What is trained, as params.yaml says it: `training`, the pairs, and `trained`, the models."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from pipeline.core.cpu import MOST_THREADS
from pipeline.core.param_types import (
    MOST_NAME,
    NO_RERANKER,
    Choices,
    Columns,
    Count,
    Label,
    Labels,
    Name,
    Number,
    Seed,
    Share,
    Strict,
    Text,
    unrepeated,
)

Precision = Literal["float32", "int8", "bfloat16", "float16"]
OF_THE_CONTRACT = frozenset({"dimension", "precision"})
"""The keys of an entry that change how its model is used, and no weights."""
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Training(Strict):
    """The queries that models learn from: of the train split, and not among those evaluated.

    `dev_share` of them are kept to choose the best epoch.
    """

    source: Text
    columns: Columns
    labels: Labels
    version: Literal["small", "large", "all"]
    queries: Count | Literal["all"]
    dev_share: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed


Loss = Literal[
    "mnrl", "cosine", "contrastive", "online-contrastive", "triplet", "distill-kl-div"
]  # fmt: skip
DISTILLATION: Loss = "distill-kl-div"
"""The loss that learns from a teacher's scores."""
OF_TRIPLETS: tuple[Loss, ...] = ("triplet", DISTILLATION)
"""The losses of a query, a right and a wrong product."""
OF_POSITIVES: tuple[Loss, ...] = ("mnrl", *OF_TRIPLETS)
"""The losses whose examples are positives; those of the others are judged pairs."""


class Targets(Strict):
    """The cosine that a query and a product of each label are pulled to."""

    E: Annotated[float, Field(ge=-1, le=1)]
    S: Annotated[float, Field(ge=-1, le=1)]
    C: Annotated[float, Field(ge=-1, le=1)]
    I: Annotated[float, Field(ge=-1, le=1)]  # noqa: E741 (a label)


class Mined(Strict):
    """Unjudged products that each query learns from as Irrelevant.

    `count` of those at the places `first` to `last`, when the base encoder ranks the unjudged ones
    among all products of the locale's queries. The first place is 1.
    """

    count: Count
    first: Count = 11
    last: Count = 100


class _Schedule(Strict):
    """How a model is trained; `threads` are here because they change its bytes.

    `teacher` is a reranker, or `none`. It is never left out: DVC reads it in each entry.
    """

    base: Name
    teacher: Name
    locales: Choices[Name]
    epochs: Count
    batch: Annotated[int, Field(ge=2)]
    lr: Positive
    warm_up: Share
    max_tokens: Count
    seed: Seed
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)]
    mined: Mined | None = None

    def sources(self) -> tuple[str, ...]:
        """Return the names of the models that it is trained from: its base, its teacher."""
        return (self.base,) if self.teacher == NO_RERANKER else (self.base, self.teacher)

    def cost_kind(self) -> str:
        """Return the kind of its costs: by base and teacher, since both take time."""
        return "-".join(self.sources())[:MOST_NAME].rstrip("-")

    def of_weights(self) -> dict[str, Any]:
        """Return what decides the weights, as JSON: all but `OF_THE_CONTRACT`."""
        return self.model_dump(mode="json", exclude={*OF_THE_CONTRACT}, exclude_defaults=True)

    def of_training(self) -> dict[str, Any]:
        """Return what decides the training: what decides the weights, but `tuned_share`."""
        return {key: value for key, value in self.of_weights().items() if key != "tuned_share"}

    def of_mining(self) -> dict[str, Any]:
        """Return what decides what is mined, as JSON; but `max_tokens`: the base may bound it."""
        return self.model_dump(mode="json", include={"mined", "seed", "threads"})


class TrainedEncoder(_Schedule):
    """An encoder that is trained from another one: its base, the pairs, the loss, the schedule.

    Optional keys that are empty have the loss's own value. With `positives_per_query`, an epoch
    draws at most so many positives of a query. `dimension` and `precision` change the contract and
    not the training. `tuned_share` is α of (1 - α) * base + α * tuned, the weights that are written
    (WiSE-FT).
    """

    kind: Literal["encoder"]
    loss: Loss
    positives: Choices[Label]
    negatives: Annotated[tuple[Label, ...], AfterValidator(unrepeated)]
    hard_negatives: Number | None = None
    positives_per_query: Count | None = None
    scale: Annotated[float, Field(gt=0, le=1_000)] | None = None
    margin: Annotated[float, Field(gt=0, le=2)] | None = None
    targets: Targets | None = None
    matryoshka: Annotated[tuple[Count, ...], AfterValidator(unrepeated)] = ()
    tuned_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 1.0
    dimension: Count | Literal["model"] | None = None
    precision: Precision | None = None

    def drawn_negatives(self) -> int:
        """Return how many of a query's own negatives are drawn for each positive, at most.

        Where `hard_negatives` is not given: one, if there are any to draw from.
        """
        if self.loss not in OF_POSITIVES:
            return 0
        if self.hard_negatives is None:
            return int(bool(self.negatives or self.mined))
        return self.hard_negatives


class TrainedReranker(_Schedule):
    """A cross-encoder that is trained from an encoder's weights, on judged and mined pairs.

    `precision` changes the contract and not the training; empty: float32.
    """

    kind: Literal["reranker"]
    precision: Precision | None = None
    tuned_share: ClassVar[float] = 1.0  # no setting: the base has no head to interpolate with


Trained = Annotated[TrainedEncoder | TrainedReranker, Field(discriminator="kind")]

_OF_LOSS = {
    "hard_negatives": OF_POSITIVES,
    "scale": ("mnrl", DISTILLATION),
    "margin": ("contrastive", "online-contrastive", "triplet"),
    "targets": ("cosine",),
    "positives_per_query": OF_POSITIVES,
}
"""The losses that each optional key is for."""


def contradictions(name: str, trained: TrainedEncoder | TrainedReranker) -> Iterator[str]:
    """Say which settings of an entry exclude each other, or have no effect."""
    where, mined = f"trained.{name}", trained.mined
    if mined and mined.first > mined.last:
        yield (
            f"{where}.mined.first: {mined.first} is after mined.last, {mined.last}. Lower it, or "
            "raise mined.last."
        )
    elif mined and mined.last - mined.first + 1 < mined.count:
        yield (
            f"{where}.mined.count: {mined.count} is more than the places {mined.first} to "
            f"{mined.last} have. Lower it, or raise mined.last."
        )
    yield from _unfit_teacher(where, trained)
    if isinstance(trained, TrainedReranker):
        return
    if mined and trained.loss == "mnrl" and trained.hard_negatives == 0:
        yield (
            f"{where}.mined: has no effect with the loss mnrl and hard_negatives 0. Remove it, or "
            "raise hard_negatives."
        )
    if trained.loss == "mnrl" and trained.negatives and trained.hard_negatives == 0:
        yield (
            f"{where}.negatives: has no effect with the loss mnrl and hard_negatives 0 (found "
            f"{', '.join(trained.negatives)}). Set it to [], or raise hard_negatives."
        )
    if trained.loss == "mnrl" and trained.hard_negatives and not (trained.negatives or mined):
        yield (
            f"{where}.hard_negatives: has no effect with the loss mnrl without negatives or mined "
            f"(found {trained.hard_negatives}). Give one of these, or set it to 0."
        )
    if trained.loss in OF_TRIPLETS and trained.hard_negatives == 0:
        yield (
            f"{where}.hard_negatives: must be 1 or more (found 0): the loss {trained.loss} "
            "compares a positive with them. Raise it, or use the loss mnrl."
        )
    if both := set(trained.positives) & set(trained.negatives):
        yield (
            f"{where}.negatives: {min(both)} is among positives too (found "
            f"{', '.join(trained.negatives)}). Leave it out of one of them."
        )
    for key, losses in _OF_LOSS.items():
        if getattr(trained, key) is not None and trained.loss not in losses:
            yield (
                f"{where}.{key}: has no effect with the loss {trained.loss}; it is for "
                f"{', '.join(losses)}. Remove it, or choose another loss."
            )
    needs = trained.loss in ("contrastive", "online-contrastive", "triplet", DISTILLATION)
    if needs and not trained.negatives and not mined:
        yield (
            f"{where}.negatives: must not be empty: the loss {trained.loss} learns from them. "
            "Give labels, such as I, or mined, or use the loss mnrl."
        )


def _unfit_teacher(where: str, trained: TrainedEncoder | TrainedReranker) -> Iterator[str]:
    """Say if there is a teacher and nothing learns from it, or none and the loss does."""
    encoder = trained if isinstance(trained, TrainedEncoder) else None
    loss = encoder and encoder.loss
    if loss == DISTILLATION and trained.teacher == NO_RERANKER:
        yield (
            f"{where}.teacher: must be a reranker (found {NO_RERANKER}): the loss {loss} learns "
            "from its scores. Name one under rerankers or trained, or choose another loss."
        )
    elif loss != DISTILLATION and trained.teacher != NO_RERANKER:
        of = f"the loss {loss}" if loss else "a reranker, which learns from labels"
        yield (
            f"{where}.teacher: has no effect with {of}; it is for {DISTILLATION} (found "
            f"{trained.teacher}). Set it to {NO_RERANKER}, or choose that loss."
        )
    elif encoder and loss == DISTILLATION and set(encoder.positives) == set(get_args(Label)):
        yield (
            f"{where}.positives: must leave out a label (found {', '.join(encoder.positives)}): a "
            "teacher says how likely one of them is. Remove I."
        )
