"""The edge every stage shares: arguments, logging, progress, exit status.

Exit status 0: done. 1: something the user can mend, told in one message. 2: wrong arguments.
A bug keeps its traceback.
"""

import argparse
import errno
import logging
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from tqdm import tqdm

from pipeline.errors import PipelineError
from pipeline.mistakes import did_you_mean
from pipeline.params import Params, load_params

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


def run(name: str, body: Callable[[Params], None]) -> int:
    """Run a stage that works on all locales at once; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.parse_args()
    with told_to_the_user(name) as outcome:
        params = load_params()
        with _timed(f"stage={name}"):
            body(params)
    return outcome.status


def run_locales(name: str, body: Callable[[Params, str], None]) -> int:
    """Run a stage for the locale given by --locale, or for each; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.add_argument(
        "--locale", help="a key of `encoder` in params.yaml; all of them if left out"
    )
    locale = parser.parse_args().locale
    with told_to_the_user(name) as outcome:
        params = load_params()
        for each in params.locales if locale is None else (locale,):
            check_locale(params, each)
            with _timed(f"stage={name} locale={each}"):
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
    if sys.stderr.isatty():
        with tqdm(total=total, unit=f" {unit}", unit_scale=True, leave=False) as bar:
            for item in items:
                yield item
                bar.update(size(item))
        return
    done, started = 0, time.monotonic()
    last_line = started
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - last_line >= SECONDS_BETWEEN_LINES:
            seconds = now - started
            log.info(
                "%d of %d %s, %.0f a second, %.0f s left",
                done, total, unit, done / seconds, (total - done) * seconds / max(done, 1),
            )  # fmt: skip
            last_line = now


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
def _timed(what: str) -> Iterator[None]:
    started = time.monotonic()
    yield
    log.info("%s seconds=%.1f", what, time.monotonic() - started)
