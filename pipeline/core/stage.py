"""What every stage shares: arguments, logging, exit status.

Exit status 0: done. 1: something the user can correct, with one message. 2: wrong arguments.
130: Ctrl-C. 141: nobody reads the output. A bug keeps its traceback.
"""

import argparse
import errno
import io
import logging
import os
import select
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from pipeline.core import layout, start, timings
from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.interrupts import INTERRUPTED
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.params_file import load_params

READER_GONE = 141
"""The exit status of a command whose output nobody reads: 128 + SIGPIPE."""

_SYSTEM_REMEDIES = {
    errno.ENOSPC: "the disk is full. Free some space and run the stage again.",
    errno.EDQUOT: "the disk quota is used up. Free some space and run the stage again.",
    errno.EFBIG: "the file would pass the size limit of this process. Raise it (ulimit -f).",
    errno.EROFS: "the disk is read-only. Run where the folder can be written.",
    errno.EACCES: "permission is missing. Make the file or its folder readable and writable.",
    errno.EPERM: "permission is missing. Make the file or its folder readable and writable.",
    errno.EISDIR: "a folder is where a file should be. Move it away.",
    errno.ENOTDIR: "a file is where a folder should be. Move it away.",
    errno.EEXIST: "something else is there already. Move it away.",
    errno.ENOTEMPTY: "something else is there already. Move it away.",
    errno.ENOENT: "no such file or folder. Create the folder, or use another path.",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n).",
    errno.ELOOP: "a link leads to itself. Remove it.",
    errno.ENAMETOOLONG: "the name is too long. Use a shorter one.",
    errno.EIO: "the disk failed to read or write. Check the disk, then run the stage again.",
    errno.EBUSY: "another program uses it, or a disk is mounted there. Use another path.",
    errno.ENXIO: "nothing reads or writes at the other end. Use another path.",
    errno.EPIPE: "the reader of the pipe has gone. Run it again, and write its output to a file.",
}


class Done:
    """What a stage worked on; with its time and memory it goes to the cache, for `plan`."""

    def __init__(self, kind: str | None = None, /, **units: int) -> None:
        """Keep what was done.

        Args:
            kind: which of several ways the stage went, such as an index's kind.
            units: the amounts that the cost depends on, such as products.
        """
        self.kind = kind
        self.units = units


Body = Callable[[Params], Done | None]
LocaleBody = Callable[[Params, str], Done | None]
"""Works on one locale, or on one model by its name."""


def run(name: str, body: Body) -> int:
    """Run a stage that works on all locales at once; return the exit status."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.parse_args()
    with report_errors(name) as outcome:
        params = _prepare()
        _run_timed(name, None, params, lambda: body(params))
    return outcome.status


def locale_parser(name: str) -> argparse.ArgumentParser:
    """Return the arguments of a stage that works on one locale at a time: --locale."""
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    parser.add_argument(
        "--locale", help="a key of `encoder` in params.yaml; without it, every locale in turn"
    )
    return parser


def run_locales(name: str, body: LocaleBody, arguments: argparse.Namespace | None = None) -> int:
    """Run a stage for the locale given by --locale, or for each; return the exit status.

    Args:
        name: the stage's folder.
        body: the stage.
        arguments: those of `locale_parser`, where they are parsed already.
    """
    locale = (arguments or locale_parser(name).parse_args()).locale
    with report_errors(name) as outcome:
        params = _prepare()
        for each in asked_locales(params, locale):
            _run_timed(name, each, params, partial(body, params, each))
    return outcome.status


def run_names(name: str, body: LocaleBody, *sections: str) -> int:
    """Run a stage for the model given by --name; return the exit status.

    Args:
        name: the stage's folder.
        body: the stage.
        sections: where params.yaml has the models, such as `encoders`; no two have the same name.
    """
    parser = argparse.ArgumentParser(prog=f"python -m pipeline.{name}")
    under = " or ".join(sections)
    parser.add_argument("--name", required=True, help=f"a key of {under} in params.yaml")
    model = parser.parse_args().name
    with report_errors(name) as outcome:
        params = _prepare()
        known = [each for section in sections for each in getattr(params, section)]
        if model not in known:
            raise PipelineError(
                f"--name {model}: params.yaml has no such model under {under} (it has: "
                f"{', '.join(known) or 'none'}){did_you_mean(model, known)}"
            )
        _run_timed(name, model, params, partial(body, params, model), "name")
    return outcome.status


def _prepare() -> Params:
    """Check what every stage needs, before any work; return params.yaml."""
    start.spare_pandas()
    layout.cache()
    return load_params()


def asked_locales(params: Params, locale: str | None) -> tuple[str, ...]:
    """Return the locale given by --locale, or all without one; raises as `check_locale`."""
    if locale is None:
        return params.locales
    check_locale(params, locale)
    return (locale,)


def check_locale(params: Params, locale: str, given: str = "--locale") -> None:
    """Raise a `PipelineError` unless params.yaml names `locale`, which was `given` by this name."""
    if locale not in params.locales:
        raise PipelineError(
            f"{given} {locale}: unknown locale; params.yaml has {', '.join(params.locales)} "
            f"under encoder{did_you_mean(locale, params.locales)}"
        )


def system_remedy(err: OSError) -> str | None:
    """Return the meaning of a system error and what to do, None where they are unknown."""
    return _SYSTEM_REMEDIES.get(err.errno or 0)


class _Outcome:
    """The exit status of a stage."""

    status = 0


@contextmanager
def report_errors(
    name: str, interrupted: str = "was interrupted before its outputs were written. Run it again."
) -> Iterator[_Outcome]:
    """Configure logging, and turn an error that the user can correct into one message, status 1.

    What the block has written to the standard output is out when this ends, or that is the error.

    Args:
        name: of the stage or command.
        interrupted: what the message of Ctrl-C says after the name.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    outcome = _Outcome()
    _make_writable()
    try:
        start.end()
        yield outcome
        sys.stdout.flush()
    except PipelineError as err:
        log.error("error in %s: %s", name, err)
        outcome.status = 1
    except KeyboardInterrupt:
        log.error("%s %s", name, interrupted)
        outcome.status = INTERRUPTED
    except OSError as err:
        remedy = system_remedy(err)
        if isinstance(err, BrokenPipeError) and _nobody_reads():
            outcome.status = READER_GONE  # without a word, as other commands in front of `head`
        elif remedy is None:
            raise
        else:
            log.error("error in %s: %s: %s", name, err, remedy)
            outcome.status = 1
    except MemoryError as err:
        place = traceback.extract_tb(err.__traceback__)[-1]
        log.error(
            "error in %s: the memory is too small (%s, at %s:%s). Lower runtime.threads or "
            "runtime.memory_limit in params.yaml, or use a machine with more.",
            name, str(err) or "no cause is known", "/".join(Path(place.filename).parts[-2:]),
            place.lineno,
        )  # fmt: skip
        outcome.status = 1
    finally:
        log.removeHandler(handler)
        _drop_unwritten()


def _make_writable() -> None:
    """Let the standard output take every text: also where it is closed, or is not UTF-8."""
    if sys.stdout is None or sys.stdout.closed:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    elif isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _nobody_reads() -> bool:
    """Say whether the standard output is a pipe that nobody reads."""
    poll = select.poll()
    try:
        poll.register(sys.stdout, 0)
    except (OSError, ValueError):  # it is no file
        return False
    return bool(poll.poll(0))


def _drop_unwritten() -> None:
    """Leave nothing to write at Python's exit, which would fail once more and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run_timed(
    name: str,
    locale: str | None,
    params: Params,
    body: Callable[[], Done | None],
    what: str = "locale",
) -> None:
    timings.start_measuring()
    started = time.monotonic()
    done = body()
    seconds = time.monotonic() - started
    if done is not None:
        try:
            timings.record_run(
                name, locale, done.kind, done.units, params.runtime.thread_count(), seconds
            )
        except OSError as err:  # the stage is done all the same
            log.info("the cost of %s is not kept for the next plan: %s", name, err)
    log.info("stage=%s%s seconds=%.1f", name, f" {what}={locale}" if locale else "", seconds)
