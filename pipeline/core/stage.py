"""The edge every stage shares: arguments, logging, progress, exit status.

Exit status 0: done. 1: something the user can mend, told in one message. 2: wrong arguments.
A bug keeps its traceback.
"""

import argparse
import errno
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Self, TypeVar

from tqdm import tqdm

from pipeline.core import timings as rates
from pipeline.core.errors import PipelineError
from pipeline.core.mistakes import did_you_mean
from pipeline.core.params import Params, load_params

T = TypeVar("T")

log = logging.getLogger("pipeline")

SECONDS_BETWEEN_LINES = 30.0

_SYSTEM_REMEDIES = {
    errno.ENOSPC: "the disk is full: free some space and run the stage again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the stage again",
    errno.EFBIG: "the file would pass the size limit set for this process (ulimit -f)",
    errno.EROFS: "the disk is read-only: run where the folder can be written",
    errno.EACCES: "permission is missing: make the file or its folder readable and writable",
    errno.EPERM: "permission is missing: make the file or its folder readable and writable",
    errno.EISDIR: "a folder stands where a file should be: move it away",
    errno.ENOTDIR: "a file stands where a folder should be: move it away",
    errno.EEXIST: "something else stands there already: move it away",
    errno.ENOENT: "there is no such place: make its folder, or name another",
    errno.EMFILE: "too many open files: raise the limit (ulimit -n)",
}


_done: dict[str, int] = {}
_way: str | None = None


def did(way: str | None = None, /, **units: int) -> None:
    """Tell how much a stage has worked on; with its time it goes to the cache, for `plan`.

    Args:
        way: which of several ways it went that cost differently, such as an index's kind.
        units: the amounts that its cost depends on.
    """
    global _way
    _way = way
    _done.update(units)


def run(name: str, body: Callable[[Params], None]) -> int:
    """Run a stage that works on all locales at once; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.parse_args()
    with told_to_the_user(name) as outcome:
        params = load_params()
        with _timed(name, None, params):
            body(params)
    return outcome.status


LocaleBody = Callable[[Params, str], None]


def run_locales(
    name: str, body: LocaleBody, instead: Mapping[str, tuple[LocaleBody, str]] | None = None
) -> int:
    """Run a stage for the locale given by --locale, or for each; return the exit status.

    Args:
        name: the stage's module.
        body: the stage.
        instead: what a flag runs in its place, and the flag's help; `{"plan": (body, help)}` gives
            the stage an option --plan.
    """
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.add_argument(
        "--locale", help="a key of `encoder` in params.yaml; all of them if left out"
    )
    for flag, (_, about) in (instead or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=about)
    arguments = parser.parse_args()
    for flag, (other, _) in (instead or {}).items():
        if getattr(arguments, flag):
            body = other
    locale = arguments.locale
    with told_to_the_user(name) as outcome:
        params = load_params()
        for each in params.locales if locale is None else (locale,):
            check_locale(params, each)
            with _timed(name, each, params):
                body(params, each)
    return outcome.status


def check_locale(params: Params, locale: str) -> None:
    """Raise a `PipelineError` unless params.yaml names `locale`."""
    if locale not in params.locales:
        raise PipelineError(
            f"--locale {locale}: unknown locale; params.yaml has {', '.join(params.locales)} "
            f"under encoder{did_you_mean(locale, params.locales)}"
        )


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

    What `note` returns is shown behind it; time left is reckoned from the done share of the work.
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
        """Take in that so many more units are done; `seconds_left` if it is known better."""
        self._done += units
        now = time.monotonic()
        self._bar.set_postfix_str(self._note(), refresh=False)
        self._bar.update(units)
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


class _Outcome:
    """The exit status of a stage."""

    status = 0


@contextmanager
def told_to_the_user(name: str) -> Iterator[_Outcome]:
    """Configure logging, and turn what the user can mend into one message and status 1."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    outcome = _Outcome()
    try:
        yield outcome
    except PipelineError as err:
        log.error("error in %s: %s", name, err)
        outcome.status = 1
    except KeyboardInterrupt:
        log.error("%s was interrupted; what it had not finished is left as it was", name)
        outcome.status = 130
    except OSError as err:
        remedy = _SYSTEM_REMEDIES.get(err.errno or 0)
        if remedy is None:
            raise
        log.error("error in %s: %s; %s", name, err, remedy)
        outcome.status = 1
    finally:
        log.removeHandler(handler)


@contextmanager
def _timed(name: str, locale: str | None, params: Params) -> Iterator[None]:
    _done.clear()
    rates.start_measuring()
    started = time.monotonic()
    yield
    seconds = time.monotonic() - started
    if _done:
        try:
            rates.finished(name, locale, _way, _done, params.runtime.thread_count(), seconds)
        except OSError as err:  # the stage is done whether or not that is remembered
            log.info("what %s took is not kept for the next plan: %s", name, err)
    log.info("stage=%s%s seconds=%.1f", name, f" locale={locale}" if locale else "", seconds)
