"""Losses and gradients, against sentence-transformers and formulas in numpy."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from sentence_transformers.sentence_transformer import losses as library

from pipeline.core.trained import TrainedEncoder
from pipeline.train import learner as learning
from pipeline.train.examples import Examples, Step
from pipeline.train.learner import Learner, Read
from pipeline.train.losses import loss_of
from pipeline.train.teacher import log_odds
from tests.train.test_examples import encoder, pairs

pytestmark = pytest.mark.slow  # torch is imported

NO_MASK = np.empty((0, 0), np.bool_)


def vectors(rows: int, seed: int, width: int = 12) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))


def value(settings: TrainedEncoder, outputs: torch.Tensor, step: Step) -> float:
    return float(loss_of(settings)(outputs, step))


def cosines(left: torch.Tensor, right: torch.Tensor) -> np.ndarray[Any, Any]:
    a, b = (rows.double().numpy() for rows in (left, right))
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (a, b))
    return np.asarray(a @ b.T)


def test_mnrl_is_the_librarys_where_no_query_has_two_products_in_a_step() -> None:
    outputs = vectors(15, 1)
    rows = np.arange(5)
    step = Step(np.arange(15), (rows, 5 + np.arange(10)), rows, np.ones((5, 10), bool), 5)
    theirs = library.MultipleNegativesRankingLoss(None, scale=20.0)
    columns = [outputs[:5], outputs[5:10], outputs[10:]]
    expected = theirs.compute_loss_from_embeddings(columns, torch.empty(0))
    assert value(encoder(), outputs, step) == pytest.approx(float(expected), rel=1e-6)


def test_mnrl_leaves_out_what_is_known_to_be_right() -> None:
    """-s(own) + log sum exp s, over the products that count, in float64."""
    found = pairs()
    examples = Examples(found, encoder(batch=40, scale=7.0), "x")
    step = examples.step(examples.steps(0)[0], 0, 0)
    outputs = vectors(len(step.items), 2)
    queries, products = (outputs[torch.from_numpy(column)] for column in step.columns)
    scores = 7.0 * cosines(queries, products)
    own = scores[np.arange(step.rows), step.target.astype(int)]
    expected = (logsumexp(np.where(step.counts, scores, -np.inf), axis=1) - own).mean()
    assert value(encoder(scale=7.0), outputs, step) == pytest.approx(expected, rel=1e-5)
    unmasked = (logsumexp(scores, axis=1) - own).mean()
    assert abs(unmasked - expected) > 1e-3


def test_losses_of_pairs_and_triplets_have_their_formulas() -> None:
    outputs = vectors(24, 3)
    columns = (np.arange(8), 8 + np.arange(8), 16 + np.arange(8))
    one, other, third = (outputs[torch.from_numpy(column)] for column in columns)
    near = np.diag(cosines(one, other))
    far = np.diag(cosines(one, third))
    is_right = (np.arange(8) % 2).astype(np.float32)
    right, wrong = 1 - near[is_right == 1], 1 - near[is_right == 0]
    wanted = np.linspace(0, 1, 8).astype(np.float32)
    hard_right, hard_wrong = right[right > wrong.min()], wrong[wrong < right.max()]
    cases = {
        "cosine": (columns[:2], wanted, ((near - wanted) ** 2).mean()),
        "contrastive": (columns[:2], is_right, (
            (right**2).sum() + (np.maximum(0, 0.5 - wrong) ** 2).sum()) / 16),
        "online-contrastive": (columns[:2], is_right, (
            (hard_right**2).sum() + (np.maximum(0, 0.5 - hard_wrong) ** 2).sum())),
        "triplet": (columns, np.empty(0, np.float32), np.maximum(0, far - near + 0.2).mean()),
    }  # fmt: skip
    for loss, (chosen, target, expected) in cases.items():
        step = Step(np.arange(24), chosen, target, NO_MASK, 8)
        assert value(encoder(loss=loss), outputs, step) == pytest.approx(expected, rel=1e-5), loss
    step = Step(np.arange(24), columns, np.empty(0, np.float32), NO_MASK, 8)
    wide = value(encoder(loss="triplet", margin=0.5), outputs, step)
    assert wide == pytest.approx(np.maximum(0, far - near + 0.5).mean(), rel=1e-5)


def test_distillation_is_the_librarys_and_its_formula_and_pulls_no_more_where_both_are_sure() -> (
    None
):
    """sum p log(p / q), p the softmax of the teacher's log-odds, q that of 20 * cosine."""
    outputs, columns = vectors(24, 5), (np.arange(8), 8 + np.arange(8), 16 + np.arange(8))
    taught = vectors(8, 6, 2).numpy() * 3
    step = Step(np.arange(24), columns, taught, NO_MASK, 8)
    parts = [outputs[torch.from_numpy(column)] for column in columns]
    for scale in (None, 7.0):
        found = value(encoder(loss="distill-kl-div", scale=scale), outputs, step)

        def similarity(a: Any, b: Any, scale: float = scale or 20.0) -> Any:
            return scale * torch.cosine_similarity(a, b)

        theirs = library.DistillKLDivLoss(None, similarity)
        expected = theirs.compute_loss_from_embeddings(parts, torch.from_numpy(taught))
        assert found == pytest.approx(float(expected), abs=1e-6)
        cosine = [np.diag(cosines(parts[0], other)) for other in parts[1:]]
        scores = (scale or 20.0) * np.stack(cosine, axis=1)
        p, q = (each - logsumexp(each, axis=1)[:, None] for each in (taught, scores))
        assert found == pytest.approx((np.exp(p) * (p - q)).sum(axis=1).mean(), rel=1e-5)
    one = torch.eye(12)[[0, 0, 1]].requires_grad_()  # cosines of 1 and 0
    sure = Step(np.arange(3), tuple(np.array([at]) for at in range(3)),
                np.array([[40.0, -40.0]], np.float32), NO_MASK, 1)  # fmt: skip
    loss_of(encoder(loss="distill-kl-div"))(one, sure).backward()
    assert float(one.grad.abs().max()) < 1e-6


def test_a_teachers_log_odds_are_those_of_its_labels_or_its_logit() -> None:
    logits = vectors(9, 7, 4).numpy()
    chances = np.exp(logits.astype(np.float64))
    chances /= chances.sum(axis=1, keepdims=True)
    for positives, right in ((("E",), chances[:, 0]), (("E", "S"), chances[:, :2].sum(axis=1))):
        np.testing.assert_allclose(log_odds(logits, positives), np.log(right / (1 - right)))
    assert np.isfinite(log_odds(logits * 1000, ("E",))).all()
    assert log_odds(logits[:, :1], ("E",)).tolist() == logits[:, 0].tolist()


def test_matryoshka_is_the_librarys_over_leading_dimensions() -> None:
    outputs = vectors(10, 4)
    rows = np.arange(5)
    step = Step(np.arange(10), (rows, 5 + rows), rows, np.ones((5, 5), bool), 5)

    class Given(torch.nn.Module):  # type: ignore[misc]
        def get_embedding_dimension(self) -> int:
            return 12

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return dict(features)

    model = Given()
    inner = library.MultipleNegativesRankingLoss(model)
    theirs = library.MatryoshkaLoss(model, inner, [12, 6, 3])
    columns = [{"sentence_embedding": part} for part in (outputs[:5], outputs[5:])]
    expected = float(theirs(columns, torch.empty(0)))
    assert value(encoder(matryoshka=[12, 6, 3]), outputs, step) == pytest.approx(expected, rel=1e-6)


class _Module(torch.nn.Module):  # type: ignore[misc]
    """Means of token vectors, with dropout: a model whose gradient can be computed at once."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.tokens = torch.nn.Embedding(30, 12)
        self.dense = torch.nn.Linear(12, 12)
        self.dropout = torch.nn.Dropout(dropout)
        self.masks: list[Any] = []

    def forward(self, ids: Any, mask: Any, types: Any, prompt: int) -> Any:
        self.masks.append(mask)
        kept = self.dropout(torch.tanh(self.dense(self.tokens(ids)))) * mask[..., None]
        return kept.sum(1) / mask.sum(1, keepdim=True)


def _items() -> list[Read]:
    rng = np.random.default_rng(6)
    return [
        Read(ids := rng.integers(1, 30, rng.integers(1, 9)).astype(np.int32), ids * 0)
        for _ in range(60)
    ]


def _learner(dropout: float, *, pads: bool = True) -> Learner:
    module = _Module(dropout)
    return Learner(module, module, _items(), 0, pads=pads, device="cpu")


def _one_by_one(module: Any) -> torch.Tensor:
    """Return the outputs of all items, each computed alone."""
    ids = [torch.from_numpy(read.ids[None].astype(np.int64)) for read in _items()]
    return torch.cat([module(each, torch.ones(each.shape), None, 0) for each in ids])


def _gradients(learner: Learner, step: Step) -> tuple[float, list[torch.Tensor]]:
    learner.module.zero_grad()
    loss = learner.learn(step, loss_of(encoder()), (1, 2, 3))
    return loss, [parameter.grad.clone() for parameter in learner.module.parameters()]


def _step() -> Step:
    rows = np.arange(20)
    return Step(np.arange(60), (rows, 20 + np.arange(40)), rows, np.ones((20, 40), bool), 20)


def test_the_gradient_in_pieces_is_that_of_the_whole_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "PIECE_TOKENS", 40)
    learner, step = _learner(0.0), _step()
    loss, found = _gradients(learner, step)
    module = learner.module.train()
    module.zero_grad()
    expected = loss_of(encoder())(_one_by_one(module), step)
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-6)
    for grad, parameter in zip(found, module.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_what_is_computed_twice_has_the_same_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "PIECE_TOKENS", 40)
    learner, step = _learner(0.3), _step()
    found = {}
    for kept in (0, 100, 10_000):
        monkeypatch.setattr(learning, "KEPT_TOKENS", kept)
        found[kept] = _gradients(learner, step)
    for kept in (0, 100):
        assert found[kept][0] == found[10_000][0]
        for one, other in zip(found[kept][1], found[10_000][1], strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("pads", [True, False])
def test_outputs_are_those_of_each_item_alone_and_unpadded_where_a_model_may_not_pad(
    pads: bool,
) -> None:
    learner, items = _learner(0.0, pads=pads), np.random.default_rng(1).permutation(60)
    found = learner.outputs(items)
    padded = [mask for mask in learner.module.masks if not mask.all()]
    assert bool(padded) == pads
    expected = _one_by_one(learner.module)[torch.from_numpy(items)].detach()
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)
