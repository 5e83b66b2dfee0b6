"""The edge that stages share: arguments, messages, exit status, records, progress."""

import errno
import os
import pty
import re
import shlex
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import progress, stage
from pipeline.core import timings as rates
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Params
from tests.helpers.artefacts import ROOT


@dataclass(frozen=True)
class Ended:
    """The exit status of a stage, and what it printed."""

    status: int
    out: str
    err: str


Run = Callable[..., Ended]


@pytest.fixture
def run_body(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Return what runs a stage `mine` with a body of one's own and the given arguments."""

    def run(body: stage.LocaleBody, *arguments: str) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mine", *arguments])
        status = stage.run_locales("mine", body)
        return Ended(status, *capsys.readouterr())

    return run


def tell(params: Params, locale: str) -> None:
    log.info("at work on %s", locale)


def count(params: Params, locale: str) -> stage.Done:
    return stage.Done("way", products=len(locale))


def begin(params: Params, locale: str) -> None:
    raise AssertionError("no work is begun")


def failing(err: Exception) -> stage.LocaleBody:
    def body(params: Params, locale: str) -> None:
        raise err

    return body


def test_a_stage_runs_the_locale_it_is_given_and_times_it(run_body: Run) -> None:
    ended = run_body(tell, "--locale", "es")

    assert (ended.status, ended.out) == (0, "")
    said, timed = ended.err.splitlines()
    assert said == "at work on es"
    assert timed.startswith("stage=mine locale=es seconds=")


def test_a_stage_runs_every_locale_in_the_order_of_params_when_given_none(run_body: Run) -> None:
    ended = run_body(tell)

    assert ended.status == 0
    assert ended.err.splitlines()[::2] == [f"at work on {one}" for one in ("us", "es", "jp")]


def test_what_a_stage_did_is_kept_in_the_cache_with_its_time_and_memory(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    assert run_body(count).status == 0
    kept, damaged = rates.read_records()
    assert not damaged
    assert [one.last.locale for one in kept] == ["es", "jp", "us"]
    for each in kept:
        found = each.last
        assert (found.stage, found.kind, found.units) == ("mine", "way", {"products": 2})
        assert found.peak_bytes > 1_000_000
        assert each.largest == found


@pytest.mark.parametrize("body", [tell, failing(PipelineError("no"))])
def test_a_stage_that_counts_nothing_or_fails_leaves_no_record(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch, body: stage.LocaleBody
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    run_body(body, "--locale", "es")
    assert not (project / "cache").exists()


def test_a_stage_is_done_whether_or_not_its_record_can_be_kept(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    (project / "cache").mkdir()
    (project / "cache/rates").write_text("no folder")
    ended = run_body(count, "--locale", "es")
    assert ended.status == 0
    assert "the cost of mine is not kept for the next plan" in ended.err


def test_bad_input_is_one_message_without_traceback_and_status_1(run_body: Run) -> None:
    ended = run_body(failing(PipelineError("data/x.parquet is missing. Run `dvc repro x`")))

    assert (ended.status, ended.out) == (1, "")
    assert ended.err == "error in mine: data/x.parquet is missing. Run `dvc repro x`\n"


def test_what_the_system_refuses_is_one_message_with_the_way_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for code, told in (
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the disk is read-only"),
        (errno.EACCES, "permission is missing"),
        (errno.EMFILE, "ulimit -n"),
        (errno.EIO, "the disk failed"),
        (errno.ELOOP, "a link leads to itself"),
        (errno.ENAMETOOLONG, "the name is too long"),
        (errno.EPIPE, "the reader of the pipe has gone"),
        (errno.ENOTDIR, "a file is where a folder should be"),
    ):
        with stage.report_errors("mine") as outcome:
            raise OSError(code, os.strerror(code), "a")
        (line,) = capsys.readouterr().err.splitlines()
        assert outcome.status == 1
        assert line.startswith(f"error in mine: [Errno {code}]")
        assert told in line
        assert "'a'" in line


def shell(line: str, folder: Path, **variables: str) -> Ended:
    """Run `python -m pipeline.store` within a line of bash; it writes the folder's path first."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    environment |= {"PYTHONPATH": str(ROOT), "PIPELINE_CACHE": str(folder), **variables}
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m pipeline.store {line}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.slow
@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_output_that_cannot_be_written_is_one_message_and_none_where_nobody_reads(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    full = shell("> /dev/full", tmp_path, **variables)
    assert full.status == 1
    assert len(full.err.splitlines()) == 1
    assert full.err.startswith("error in store: [Errno 28]")
    unread = shell("| true", tmp_path, **variables)
    assert unread == Ended(stage.READER_GONE, "", "")


@pytest.mark.slow
def test_a_closed_output_is_none_and_one_that_is_not_unicode_shows_the_code(tmp_path: Path) -> None:
    assert shell(">&-", tmp_path) == Ended(0, "", "")
    shown = shell("", tmp_path / "靴", PYTHONIOENCODING="ascii")
    assert (shown.status, shown.err) == (0, "")
    assert shown.out.startswith(str(tmp_path / "\\u9774"))


def test_too_little_memory_is_one_message_with_the_way_out(run_body: Run) -> None:
    def body(params: Params, locale: str) -> None:
        np.empty(2**57)

    ended = run_body(body)
    assert ended.status == 1
    (line,) = ended.err.splitlines()
    assert line.startswith("error in mine: the memory is too small (Unable to allocate 1.00 EiB")
    assert re.search(r", at core/test_stage\.py:\d+\)\. Lower runtime\.threads or runtime\.", line)


@pytest.mark.parametrize("bug", [ZeroDivisionError("of ours"), OSError("of a library")])
def test_a_bug_keeps_its_traceback(run_body: Run, bug: Exception) -> None:
    with pytest.raises(type(bug)) as caught:
        run_body(failing(bug))
    assert caught.value is bug


def test_wrong_arguments_are_usage_and_status_2(
    run_body: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--locale"], ["es"], ["--seed", "1"]):
        with pytest.raises(SystemExit) as ended:
            run_body(begin, *arguments)
        out, err = capsys.readouterr()
        assert (ended.value.code, out) == (2, "")
        assert err.startswith("usage: python -m pipeline.mine")


def test_a_stage_over_all_locales_takes_no_locale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["mine", "--locale", "us"])
    with pytest.raises(SystemExit) as ended:
        stage.run("mine", lambda params: begin(params, "us"))
    assert ended.value.code == 2
    assert "unrecognized arguments: --locale us" in capsys.readouterr().err


def test_an_unknown_locale_is_told_with_the_known_ones(run_body: Run) -> None:
    for locale, hint in (("ess", "; did you mean 'es'?"), ("ES", ""), ("", ""), ("xx", "")):
        ended = run_body(begin, "--locale", locale)
        assert ended.status == 1
        assert ended.err == (
            f"error in mine: --locale {locale}: unknown locale; params.yaml has us, es, jp under "
            f"encoder{hint}\n"
        )


def test_a_mistake_in_params_is_told_before_any_work(project: Path, run_body: Run) -> None:
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("seed: 7", "sede: 7").replace("es: flat", "es: flta"))

    ended = run_body(begin)

    assert ended.status == 1
    assert ended.err.splitlines() == [
        "error in mine: params.yaml:",
        "  demo.seed: missing",
        "  demo.sede: unknown key; did you mean 'seed'?",
        "  index.es: 'flta' is not defined under indexes (defined: flat, sq8, hnsw, ivf-flat, "
        "ivf-pq, rabitq, eden, pq-fastscan, ivf-pq-fastscan); did you mean 'flat'?",
    ]


def work(params: Params, locale: str) -> None:
    list(progress.track([10, 10, 10], 25, "products", lambda size: size))


def test_progress_in_a_file_is_a_line_now_and_then(
    run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    seldom = run_body(work, "--locale", "us")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    every = run_body(work, "--locale", "us")

    lines = every.err.splitlines()
    assert [line.split(" products, ")[0] for line in lines[:3]] == [
        "10 of 25",
        "20 of 25",
        "25 of 25",
    ]
    assert all(" a second, " in line for line in lines[:3])
    assert "\r" not in every.err
    assert len(seldom.err.splitlines()) == 1


def test_progress_of_items_without_size_is_shown_too(
    run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(params: Params, locale: str) -> None:
        list(progress.track(iter([0, 0]), 0, "queries", lambda size: size))

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    ended = run_body(nothing, "--locale", "us")
    assert ended.status == 0
    assert ended.err.startswith("0 of 0 queries, ")


def test_progress_tells_a_note_and_the_time_left_that_it_is_given(
    run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def noted(params: Params, locale: str) -> None:
        with progress.Progress(9, "products", lambda: "half of them reused") as shown:
            shown.advance(3, seconds_left=77.0)

    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
    ended = run_body(noted, "--locale", "us")
    assert ended.status == 0
    assert ended.err.startswith("3 of 9 products, ")
    assert " 77 s left, half of them reused\n" in ended.err


def test_progress_on_a_terminal_is_a_bar(run_body: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    with os.fdopen(terminal, "w", encoding="utf-8") as stderr, monkeypatch.context() as patch:
        patch.setattr(progress, "SECONDS_BETWEEN_LINES", 0)
        patch.setattr(sys, "stderr", stderr)
        assert run_body(work, "--locale", "us").status == 0
    shown = b"".join(read_all(ours)).decode()

    assert "\r" in shown
    assert "products" in shown
    assert " of 25 " not in shown


def read_all(descriptor: int) -> Iterable[bytes]:
    try:
        while data := os.read(descriptor, 1_000):
            yield data
    except OSError:  # how a terminal without writers ends on Linux
        return
    finally:
        os.close(descriptor)
