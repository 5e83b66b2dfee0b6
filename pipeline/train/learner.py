"""A model that learns: its items as tokens, computed in pieces of about one length.

A step of many texts would need more memory for its gradients than a small machine has. So the
outputs of all pieces are computed first, and the loss from them; then the gradient of each piece.
The first pieces, up to `KEPT_TOKENS`, keep what their gradient needs; the others are computed
again (as in GradCache, Gao et al. 2021). The gradient is that of the whole step: a piece's dropout
follows from the step's seed and the piece, so it is the same both times.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.train.examples import Step
from pipeline.train.losses import Loss

if TYPE_CHECKING:
    import torch

PIECE_TOKENS = 1024
"""Tokens of a piece, padding included."""

KEPT_TOKENS = 8192
"""Tokens of a step whose intermediate values are kept: about 3 GB for 12 layers of 384."""


@dataclass(frozen=True)
class Read:
    """An item as the model reads it.

    Attributes:
        ids: its tokens; int32, shape [tokens].
        types: the type of each token; int32, shape [tokens].
        prompt: how many tokens are a prefix's.
    """

    ids: NDArray[np.int32]
    types: NDArray[np.int32]
    prompt: int = 0


class Compute(Protocol):
    """Computes the outputs of a padded batch: vectors or logits, float32, shape [rows, width]."""

    def __call__(
        self, ids: "torch.Tensor", mask: "torch.Tensor", types: "torch.Tensor", prompt: int
    ) -> "torch.Tensor":
        """Take ids, mask and token types, int64, shape [rows, length]."""
        ...


class Learner:
    """A model and the items that it computes.

    Attributes:
        module: the model, on its device.
        tokens: how many tokens were learned from, padding included; one that was only read counts
            a third.
    """

    tokens = 0.0

    def __init__(
        self,
        module: "torch.nn.Module",
        compute: Compute,
        items: Sequence[Read],
        pad_id: int,
        *,
        pads: bool,
        device: str,
    ) -> None:
        """Put the parts together.

        Args:
            module: the model; it is moved to the device.
            compute: what computes with it.
            items: every item that a step or a measure may ask for.
            pad_id: the token that fills the places without one.
            pads: whether items may be padded; if not, all items of a piece are of one length.
            device: where it computes.
        """
        self.module = module.to(device)
        self._compute = compute
        self._items = items
        self._lengths = np.array([item.ids.size for item in items], np.int64)
        self._prompts = np.array([item.prompt for item in items], np.int64)
        self._pad_id = pad_id
        self._pads = pads
        self._device = device

    def learn(self, step: Step, loss: Loss, seed: tuple[int, ...]) -> float:
        """Add the gradient of a step's loss to the model's parameters; return the loss.

        Args:
            step: what to compute.
            loss: what to compute from it.
            seed: decides the dropout.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        import torch

        self.module.train()
        pieces = list(self._pieces(step.items))
        sizes = np.cumsum([self._padded(step.items[piece]) for piece in pieces])
        kept = sizes <= KEPT_TOKENS
        self.tokens += int(sizes[-1])
        outputs = []
        for number, (piece, keep) in enumerate(zip(pieces, kept, strict=True)):
            with torch.set_grad_enabled(bool(keep)):
                outputs.append(self._outputs(step.items[piece], (*seed, number)))
        places = torch.from_numpy(np.argsort(np.concatenate(pieces)))
        whole = torch.cat([output.detach() for output in outputs])[places].requires_grad_()
        value = loss(whole, step)
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)}")
        value.backward()
        assert whole.grad is not None
        for number, (piece, keep) in enumerate(zip(pieces, kept, strict=True)):
            output = outputs[number]
            outputs[number] = output.detach()  # frees what its gradient needed
            if not keep:
                output = self._outputs(step.items[piece], (*seed, number))
            output.backward(whole.grad[torch.from_numpy(piece)])
        return float(value.detach())

    def outputs(self, items: Ints) -> NDArray[np.float32]:
        """Return the outputs of items without dropout, float32, shape [items, width].

        Raises:
            FloatingPointError: one is not finite.
        """
        import torch

        self.module.eval()
        parts, order = [], []
        with torch.inference_mode():
            for piece in self._pieces(items):
                parts.append(self._outputs(items[piece]).float().cpu().numpy())
                order.append(piece)
                self.tokens += self._padded(items[piece]) / 3
        whole = np.empty((len(items), parts[0].shape[1]), np.float32)
        whole[np.concatenate(order)] = np.concatenate(parts)
        if not np.isfinite(whole).all():
            raise FloatingPointError("the model's outputs hold NaN or infinity")
        return whole

    def _pieces(self, items: Ints) -> Iterator[Ints]:
        """Yield the places of items of about one length, the longest first, by `PIECE_TOKENS`."""
        lengths, prompts = self._lengths[items], self._prompts[items]
        order = np.lexsort((np.arange(len(items)), -lengths, prompts))
        start = 0
        while start < len(order):
            first = order[start]
            fits = max(1, PIECE_TOKENS // int(lengths[first]))
            piece = order[start : start + fits]
            alike = prompts[piece] == prompts[first]
            if not self._pads:
                alike &= lengths[piece] == lengths[first]
            piece = piece[alike]
            yield piece
            start += len(piece)

    def _padded(self, items: Ints) -> int:
        return len(items) * int(self._lengths[items].max())

    def _outputs(self, items: Ints, seed: tuple[int, ...] = ()) -> "torch.Tensor":
        import torch

        if seed:
            state = np.random.SeedSequence(seed).generate_state(1, np.uint64)
            torch.manual_seed(int(state[0]))
        shape = (len(items), int(self._lengths[items].max()))
        ids = np.full(shape, self._pad_id, np.int64)
        mask, types = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for row, item in enumerate(items.tolist()):
            read = self._items[item]
            ids[row, : read.ids.size] = read.ids
            types[row, : read.ids.size] = read.types
            mask[row, : read.ids.size] = 1
        inputs = [torch.from_numpy(array).to(self._device) for array in (ids, mask, types)]
        return self._compute(inputs[0], inputs[1], inputs[2], int(self._prompts[items[0]]))
