"""The training loop: steps, epochs, checkpoints, the curve and the best epoch."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.log import log
from pipeline.core.progress import Progress
from pipeline.core.trained import TrainedEncoder, TrainedReranker
from pipeline.train import streams
from pipeline.train.checkpoint import Card, Checkpoints, Held, Point
from pipeline.train.task import Task

if TYPE_CHECKING:
    import torch

CLIP = 1.0
"""The greatest norm of a step's gradient, as in sentence-transformers' trainer."""

_POINTS = 100  # of the curve, besides the epochs' ends
_SHOWN = 20  # steps whose mean loss is shown


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Make torch compute the same bits each time, on this many threads.

    Torch would also fill all memory before its first use, for code that reads what it never wrote.
    That takes time, and nothing here reads such memory: a test compares the bytes.
    """
    import torch
    import torch.utils.deterministic as memory

    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # CUDA asks for it
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    filled = memory.fill_uninitialized_memory
    with torch.random.fork_rng():
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(True)
        memory.fill_uninitialized_memory = False
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.use_deterministic_algorithms(before[1])
            memory.fill_uninitialized_memory = filled


def learning_rate(step: int, total: int, settings: TrainedEncoder | TrainedReranker) -> float:
    """Return the learning rate of a step: it rises to `lr` in a line, then falls to 0 in one.

    Args:
        step: counted from 0.
        total: how many steps there are.
        settings: `lr`, and `warm_up`, the share of the steps in which it rises.
    """
    rising = math.ceil(total * settings.warm_up)
    if step < rising:
        return settings.lr * (step + 1) / rising
    return settings.lr * (total - step) / (total - rising)


class Trainer:
    """One training, from its beginning or its last checkpoint to its end.

    Attributes:
        trained: how many steps were done in this process.
    """

    trained = 0

    def __init__(
        self,
        task: Task,
        settings: TrainedEncoder | TrainedReranker,
        checkpoints: Checkpoints,
        minutes: float,
        where: str,
    ) -> None:
        """Put the parts together.

        Args:
            task: the model, its steps, loss and measure.
            settings: the entry.
            checkpoints: where they are kept.
            minutes: how long a kill may cost; a checkpoint is written so often.
            where: the entry's key in params.yaml, for messages.
        """
        import torch

        self._learner = task.learner
        self._examples = task.examples
        self._loss = task.loss
        self._measure = task.measure
        self._chooses = task.development.chooses
        self._settings = settings
        self._checkpoints = checkpoints
        self._seconds = 60 * minutes
        self._where = where
        self._sizes = [len(task.examples.steps(epoch)) for epoch in range(settings.epochs)]
        self._total = sum(self._sizes)
        self._parameters = dict(task.learner.module.named_parameters())
        self._base: dict[str, torch.Tensor] = {}
        if settings.tuned_share < 1:
            self._base = {name: each.detach().clone() for name, each in self._parameters.items()}
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=settings.lr, weight_decay=0.0
        )
        self._step = 0
        self._losses: list[float] = []
        self._curve: list[Point] = []
        self._best_epoch: int | None = None
        self._best: Held | None = None

    def run(self) -> Card:
        """Train, and leave the best epoch's weights in the model; return the last checkpoint.

        Raises:
            PipelineError: a loss, a gradient, an output or the weights' norm is not finite.
            OSError: the disk is full; the last checkpoint is kept.
        """
        with self._checkpoints.locked():
            found = self._checkpoints.read()
            if found is None:
                self._curve = [Point(epoch=0, step=0, loss=None, dev=self._measured())]
                card = self._train()
            elif found[0].state is not None:
                self._take_up(*found)
                card = self._train()
            else:
                card = found[0]
                self._step = card.step
            self._load(self._checkpoints.best(card))
            return card

    def interpolate(self) -> dict[str, float]:
        """Give the base's weights their share in the best epoch's; return the dev measures.

        A weight becomes (1 - α) * base + α * tuned, with α = `tuned_share`, below 1 (WiSE-FT,
        Wortsman et al. 2022). `run` comes first. Buffers, such as positions, are not weights.
        """
        import torch

        with torch.no_grad():
            for name, tuned in self._parameters.items():
                tuned.copy_(torch.lerp(self._base[name], tuned, self._settings.tuned_share))
        return self._measured()

    def _train(self) -> Card:
        every = max(1, self._total // _POINTS)
        saved = time.monotonic()
        left = self._total - self._step
        done = 0
        with Progress(left * self._examples.size * self._settings.epochs // self._total, "pairs",
                      self._note) as progress:  # fmt: skip
            for epoch, size in enumerate(self._sizes):
                done += size
                if self._step >= done:
                    continue
                steps = self._examples.steps(epoch)
                for number in range(self._step - (done - size), size):
                    self._learn(epoch, number, steps[number])
                    progress.advance(len(steps[number]))
                    if self._step == done:
                        break
                    if self._step % every == 0:
                        self._note_point(epoch + 1, {})
                    if time.monotonic() - saved >= self._seconds:
                        self._save()
                        saved = time.monotonic()
                card = self._end_epoch(epoch + 1)
                saved = time.monotonic()
        return card

    def _learn(self, epoch: int, number: int, rows: Ints) -> None:
        """Do one step."""
        import torch

        settings = self._settings
        step = self._examples.step(rows, epoch, number)
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(self._step, self._total, settings)
        self._optimizer.zero_grad()
        try:
            loss = self._learner.learn(
                step, self._loss, (settings.seed, streams.DROPOUT, self._step)
            )
            norm = float(torch.nn.utils.clip_grad_norm_(self._parameters.values(), CLIP))
            if not math.isfinite(norm):
                raise FloatingPointError(f"the gradient is {norm}")
            self._update()
            norm = float(torch.nn.utils.get_total_norm(self._parameters.values()))
            if not math.isfinite(norm):  # else the next checkpoint would hold such weights
                raise FloatingPointError(f"the norm of the weights is {norm}")
        except FloatingPointError as err:
            raise self._diverged(self._step + 1, str(err)) from err
        self._step += 1
        self.trained += 1
        self._losses.append(loss)

    def _update(self) -> None:
        import torch

        try:
            self._optimizer.step()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as err:  # a rate that float32 cannot hold
            raise FloatingPointError(one_line(err)) from err

    def _end_epoch(self, epoch: int) -> Card:
        """Measure the model, keep it if it is the best, and make a checkpoint."""
        dev = self._measured()
        self._note_point(epoch, dev)
        values = [point.dev[self._chooses] for point in self._curve if point.dev]
        log.info(
            "epoch %d of %d: loss %.4f, %s %.4f (base %.4f)",
            epoch, self._settings.epochs, self._curve[-1].loss, self._chooses,
            values[-1], values[0],
        )  # fmt: skip
        if epoch == 1 or values[-1] > max(values[1:-1]):
            self._best_epoch = epoch
            weights = {name: value.detach() for name, value in self._parameters.items()}
            self._best = self._checkpoints.hold(weights, f"best-{epoch}")
        return self._save(done=epoch == self._settings.epochs)

    def _save(self, *, done: bool = False) -> Card:
        return self._checkpoints.write(
            step=self._step,
            losses=tuple(self._losses),
            curve=tuple(self._curve),
            best_epoch=self._best_epoch,
            best=self._best,
            state=None if done else self._checkpoints.hold(self._state(), f"state-{self._step}"),
        )

    def _state(self) -> "dict[str, torch.Tensor]":
        """Return the weights and what AdamW keeps of each, by name."""
        state = {}
        for name, value in self._parameters.items():
            state[f"weight.{name}"] = value.detach()
            for key, kept in self._optimizer.state.get(value, {}).items():
                state[f"{key}.{name}"] = kept
        return state

    def _take_up(self, card: Card, state: "dict[str, torch.Tensor]") -> None:
        """Go on from a checkpoint."""
        self._step, self._best_epoch, self._best = card.step, card.best_epoch, card.best
        self._losses, self._curve = list(card.losses), list(card.curve)
        for name, value in self._parameters.items():
            kept = {}
            for key in ("step", "exp_avg", "exp_avg_sq"):
                if f"{key}.{name}" in state:
                    kept[key] = state[f"{key}.{name}"]
                    if key != "step":
                        kept[key] = kept[key].to(value.device)
            if kept:
                self._optimizer.state[value] = kept
        self._load({name: state[f"weight.{name}"] for name in self._parameters})
        log.info("going on after step %d of %d", self._step, self._total)

    def _load(self, weights: "dict[str, torch.Tensor]") -> None:
        import torch

        with torch.no_grad():
            for name, value in self._parameters.items():
                value.copy_(weights[name])

    def _note_point(self, epoch: int, dev: dict[str, float]) -> None:
        """Add a point to the curve."""
        loss = round(math.fsum(self._losses) / len(self._losses), 6)
        self._curve.append(Point(epoch=epoch, step=self._step, loss=loss, dev=dev))
        self._losses.clear()

    def _measured(self) -> dict[str, float]:
        try:
            return self._measure()
        except FloatingPointError as err:
            raise self._diverged(self._step, str(err)) from err

    def _diverged(self, step: int, what: str) -> PipelineError:
        folder = self._checkpoints.folder
        kept = f" The last checkpoint is kept in {folder}." if self._checkpoints.exist else ""
        return PipelineError(
            f"{self._where}: the training fails at step {step} of {self._total}: {what}. Lower "
            f"lr (found {self._settings.lr}), or raise warm_up.{kept}"
        )

    def _note(self) -> str:
        recent = self._losses[-_SHOWN:]
        shown = [f"loss {sum(recent) / len(recent):.4f}"] if recent else []
        last = [point.dev[self._chooses] for point in self._curve if point.dev][-1:]
        return ", ".join([*shown, *(f"{self._chooses} {value:.4f}" for value in last)])
