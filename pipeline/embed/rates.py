"""How fast an encoder is on this machine: measured while it encodes, kept for plans."""

import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError

from pipeline.core.files import write_json
from pipeline.core.param_types import Strict
from pipeline.core.progress import Progress

PROBE_TEXTS = 64
"""How many texts a rate is measured with at least. A plan encodes this many if no rate is known; a
cluster gives them to one or two workers, so their rate is not the cluster's."""


class Rate(Strict):
    """How fast an encoder was when it last encoded, and with how many threads."""

    characters_a_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    threads: Annotated[int, Field(ge=1)]

    def seconds(self, work: int, threads: int) -> float:
        """Return how long this many characters take with this many threads.

        Each thread encodes its own texts, so the time is inverse to their number.
        """
        return work / self.characters_a_second * self.threads / threads


def read_rate(path: Path) -> Rate | None:
    """Return the rate in a file, None if there is none or the file is damaged."""
    try:
        return Rate.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def keep_rate(path: Path, rate: Rate) -> None:
    """Write a rate to a file; a rate is only a hint, so errors of the disk are ignored."""
    with suppress(OSError):
        write_json(path, rate.model_dump())


class Meter:
    """Shows how far encoding is, with its speed, and measures the rate.

    Attributes:
        texts: how many texts are encoded.
        tokens: how many tokens the encoder read of them.
        computed: how many tokens it computed, padding included.
        work: what the texts cost, in characters that the encoder reads.
    """

    def __init__(self, texts: int, work: int, unit: str, reused: str) -> None:
        """Start at nothing.

        Args:
            texts: how many there are to encode.
            work: what they cost, in characters that the encoder reads.
            unit: what the texts are, as a plural.
            reused: how many need no encoding; part of the line that is shown.
        """
        self._to_do = work
        self._reused = reused
        self._progress = Progress(texts, unit, self._note)
        self._started = time.monotonic()
        self.texts = self.tokens = self.computed = self.work = 0

    def __enter__(self) -> Self:
        self._progress.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._progress.__exit__(*raised)

    def start(self) -> None:
        """Start the clock: loading the model is not part of the rate."""
        self._started = time.monotonic()

    def add(self, texts: int, tokens: int, computed: int, work: int) -> None:
        """Count some texts as encoded; the numbers are those of the attributes."""
        self.texts += texts
        self.tokens += tokens
        self.computed += computed
        self.work += work
        seconds = time.monotonic() - self._started
        self._progress.advance(texts, (self._to_do - self.work) * seconds / self.work)

    def rate(self, threads: int) -> Rate | None:
        """Return the rate of these threads, None if too few texts were encoded."""
        if self.texts < PROBE_TEXTS:
            return None
        # The last batches are half empty, which counts for much where few texts are encoded.
        seconds = (time.monotonic() - self._started) * self.tokens / self.computed
        return Rate(characters_a_second=self.work / seconds, threads=threads)

    def _note(self) -> str:
        seconds = max(time.monotonic() - self._started, 1e-9)
        return f"{self.tokens / seconds:,.0f} tokens a second, {self._reused} reused"
