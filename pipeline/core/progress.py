"""Progress of a piece of work: a bar on a terminal, otherwise a line now and then."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

from pipeline.core.log import log

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 30.0


def track(items: Iterable[T], total: int, unit: str, size: Callable[[T], int]) -> Iterator[T]:
    """Yield `items`, showing how far along they are: a bar on a terminal, else a line now and then.

    Args:
        items: the work.
        total: the sum of all sizes.
        unit: what is counted, as a plural.
        size: how many units one item holds.
    """
    with Progress(total, unit) as progress:
        for item in items:
            yield item
            progress.advance(size(item))


class Progress:
    """Shows how far a piece of work is: a bar on a terminal, else a line now and then.

    What `note` returns is shown after it. The time left follows from the share of the work done.
    """

    def __init__(self, total: int, unit: str, note: Callable[[], str] = lambda: "") -> None:
        """Start at nothing of `total`; `unit` is what is counted, as a plural."""
        self._total = total
        self._unit = unit
        self._note = note
        self._done = 0
        self._started = self._last_line = time.monotonic()
        self._bar = tqdm(
            total=total, unit=f" {unit}", unit_scale=True, leave=False,
            disable=not sys.stderr.isatty(),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, units: int, seconds_left: float | None = None) -> None:
        """Count `units` as done; `seconds_left` replaces the computed time left."""
        self._done = min(self._done + units, self._total)  # the last batch may be smaller
        now = time.monotonic()
        self._bar.set_postfix_str(self._note(), refresh=False)
        self._bar.update(self._done - self._bar.n)
        if self._bar.disable and now - self._last_line >= SECONDS_BETWEEN_LINES:
            seconds = now - self._started
            if seconds_left is None:
                seconds_left = (self._total - self._done) * seconds / max(self._done, 1)
            note = self._note()
            log.info(
                "%d of %d %s, %.0f a second, %.0f s left%s",
                self._done, self._total, self._unit, self._done / seconds, seconds_left,
                f", {note}" if note else "",
            )  # fmt: skip
            self._last_line = now
