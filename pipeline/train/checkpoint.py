"""Checkpoints of a training in the cache: written whole, checked when read, found by their key.

The files of safetensors hold arrays alone. A JSON file beside them names the last whole ones with
their hashes; it is written last, so a kill or a full disk leaves the checkpoint before. What was
mined has a folder of its own, since trainings of several settings learn from it.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from pipeline.core import layout
from pipeline.core.arrays import Ints
from pipeline.core.cache import build_once, folder_name, held
from pipeline.core.cards import read_model
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_file, sha256_file, write_json
from pipeline.core.log import log
from pipeline.core.param_types import Strict

if TYPE_CHECKING:
    from torch import Tensor

_STALE_SECONDS = 7 * 86_400
_CARD = "checkpoint.json"


class Point(Strict):
    """A row of the curve: where it is, the mean loss since the row before, the dev measures."""

    epoch: int
    step: int
    loss: float | None
    dev: dict[str, float]


class Held(Strict):
    """A file and its hash."""

    file: str
    sha256: str


class Card(Strict):
    """What a checkpoint is.

    Attributes:
        key: everything that decides the training.
        step: how many steps are done.
        losses: those since the last point of the curve.
        curve: the points so far.
        best: the epoch whose weights are kept, and its file.
        state: weights and moments after `step`; None once the training is done.
    """

    key: dict[str, Any]
    step: int
    losses: tuple[float, ...]
    curve: tuple[Point, ...]
    best_epoch: int | None
    best: Held | None
    state: Held | None


class Checkpoints:
    """The checkpoints of one training."""

    def __init__(self, name: str, key: Mapping[str, Any]) -> None:
        """Name the folder by the model's name and everything that decides the training."""
        self._name = name
        self._key = dict(key)
        self.folder = layout.checkpoints() / folder_name(name, self._key)

    @property
    def exist(self) -> bool:
        """Whether a checkpoint was made."""
        return (self.folder / _CARD).is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder, so that two processes do not train the same model."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        why = f"another process trains {self._name} with these settings"
        with held(_lock_of(self.folder), why):
            with suppress(FileNotFoundError):
                os.utime(self.folder)  # it is used, whether or not anything is written
            yield

    def read(self) -> tuple[Card, dict[str, "Tensor"]] | None:
        """Return the last checkpoint and its arrays; None if there is none that can be used.

        The arrays of a training that is done are the best epoch's.
        """
        from safetensors.torch import load_file

        path = self.folder / _CARD
        if not path.exists():
            return None
        try:
            card = read_model(path, Card, "It is made anew.")
            if card.key != self._key:
                raise PipelineError(f"{path} is of another training")
            for held in (card.best, card.state):
                if held and sha256_file(self.folder / held.file) != held.sha256:
                    raise PipelineError(f"{self.folder / held.file} is damaged")
            last = card.state or card.best
            if last is None:
                raise PipelineError(f"{path} names no weights")
            return card, load_file(self.folder / last.file)
        except (PipelineError, OSError) as err:
            log.warning(
                "warning: the checkpoint of %s is not used, and the training begins anew: %s",
                self._name, err,
            )  # fmt: skip
            return None

    def best(self, card: Card) -> dict[str, "Tensor"]:
        """Return the weights of the best epoch."""
        from safetensors.torch import load_file

        assert card.best is not None
        weights: dict[str, Tensor] = load_file(self.folder / card.best.file)
        return weights

    def hold(self, arrays: Mapping[str, "Tensor"], name: str) -> Held:
        """Write arrays to a file of the folder; a card must name it, or it is removed.

        Raises:
            OSError: the disk is full or fails.
        """
        from safetensors.torch import save_file

        path = self.folder / f"{name}.safetensors"
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as partial:
            with disk_errors(path):
                save_file(dict(arrays), partial)
            return Held(file=path.name, sha256=sha256_file(partial))

    def write(self, **card: Any) -> Card:
        """Make a checkpoint of files that `hold` wrote; remove those that it does not name."""
        written = Card(key=self._key, **card)
        write_json(self.folder / _CARD, written.model_dump(mode="json"))
        kept = {_CARD, *(held.file for held in (written.best, written.state) if held)}
        for path in self.folder.iterdir():
            if path.name not in kept:
                path.unlink()
        return written

    def remove_others(self, names: Collection[str]) -> None:
        """Remove what nobody used for a week, of this name and of names that are no more.

        Those of this week may still be taken up again, or be what the settings go back to.

        Args:
            names: those under `trained`.
        """
        for path in self.folder.parent.glob(f"*-{'[0-9a-f]' * 16}"):
            name = path.name[:-17]
            is_kept = name in names and name != self._name
            if is_kept or path == self.folder or not path.is_dir():
                continue
            lock = FileLock(_lock_of(path))
            try:
                with lock.acquire(timeout=0):
                    if _age(path) > _STALE_SECONDS:
                        shutil.rmtree(path, ignore_errors=True)
                        layout.seal(path).unlink(missing_ok=True)
            except Timeout:
                continue


def mine_once(
    name: str, key: Mapping[str, Any], mine: Callable[[], tuple[dict[str, Ints], float]]
) -> tuple[dict[str, Ints], float]:
    """Return what `mine` returns: arrays, and how many tokens it read; 0 if it was called before.

    Args:
        name: the model's.
        key: everything that decides the arrays.
        mine: it is called once for a name and key.

    Raises:
        OSError: the disk is full or fails.
    """
    from safetensors.numpy import load_file, save_file

    folder = layout.checkpoints() / folder_name(name, key)
    path = folder / "mined.safetensors"
    tokens = 0.0

    def fill(partial: Path) -> None:
        nonlocal tokens
        found, tokens = mine()
        with disk_errors(path):
            save_file(found, partial / path.name)

    while True:
        build_once(folder, fill)
        with suppress(FileNotFoundError):  # others may remove it just now, if it was long unused
            os.utime(folder)  # it is used
            return load_file(path), tokens


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what safetensors raises when it cannot write `path` into the error of the system.

    Raises:
        OSError: the disk is full or fails.
    """
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as err:
        found = re.search(r"os error (\d+)", str(err))
        code = int(found[1]) if found else errno.EIO
        raise OSError(code, str(err), str(path)) from err


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _age(folder: Path) -> float:
    """Return how many seconds ago a training was used, or wrote into its folder."""
    return time.time() - folder.stat().st_mtime
