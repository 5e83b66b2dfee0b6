import os
import pty
import subprocess
import sys
import termios
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from pipeline.core import timings as rates
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.stage import check_locale
from tests.conftest import RunStage
from tests.helpers.artefacts import ROOT

pytestmark = pytest.mark.slow

# A stage of one's own: what the shared edge makes of its body.
STAGE = """
import sys, time
from pathlib import Path
from pipeline.core import progress, stage
from pipeline.core.errors import PipelineError

def body(params, locale):
{body}

if __name__ == "__main__":
    sys.exit(stage.run_locales("mine", body))
"""

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run_body(project: Path) -> Run:
    """Return what runs a stage with the given lines as its body."""

    def run(
        lines: str, *arguments: str, stderr: int = subprocess.PIPE
    ) -> "subprocess.CompletedProcess[str]":
        body = "\n".join(f"    {line}" for line in lines.splitlines())
        (project / "mine.py").write_text(STAGE.format(body=body), encoding="utf-8")
        return subprocess.run(
            [sys.executable, "mine.py", *arguments],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
        )

    return run


def test_a_stage_runs_the_locale_it_is_given_and_times_it(run_body: Run) -> None:
    result = run_body("stage.log.info('at work on %s', locale)", "--locale", "es")

    assert (result.returncode, result.stdout) == (0, "")
    said, timed = result.stderr.splitlines()
    assert said == "at work on es"
    assert timed.startswith("stage=mine locale=es seconds=")


def test_a_stage_runs_every_locale_in_the_order_of_params_when_given_none(run_body: Run) -> None:
    result = run_body("stage.log.info(locale)")

    assert result.returncode == 0
    assert result.stderr.splitlines()[::2] == ["us", "es", "jp"]


def test_what_a_stage_did_is_kept_in_the_cache_with_its_time_and_memory(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    assert run_body("return stage.Done('way', products=len(locale))").returncode == 0
    kept, damaged = rates.read_records()
    assert not damaged
    assert [one.last.locale for one in kept] == ["es", "jp", "us"]
    for each in kept:
        assert (each.last.stage, each.last.kind, each.last.units) == (
            "mine",
            "way",
            {"products": 2},
        )
        assert each.last.peak_bytes > 1_000_000
        assert each.largest == each.last


@pytest.mark.parametrize("lines", ["pass", "raise PipelineError('no')"])
def test_a_stage_that_counts_nothing_or_fails_leaves_no_record(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch, lines: str
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    run_body(lines, "--locale", "es")
    assert not (project / "cache").exists()


def test_a_stage_is_done_whether_or_not_its_record_can_be_kept(
    project: Path, run_body: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    (project / "cache").mkdir()
    (project / "cache/rates").write_text("no folder")
    done = run_body("return stage.Done(products=1)", "--locale", "es")
    assert done.returncode == 0
    assert "the cost of mine is not kept for the next plan" in done.stderr


def test_bad_input_is_one_message_without_traceback_and_status_1(run_body: Run) -> None:
    result = run_body("raise PipelineError('data/x.parquet is missing. Run `dvc repro x`')")

    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "error in mine: data/x.parquet is missing. Run `dvc repro x`\n"


@pytest.mark.parametrize(
    ("failing", "told"),
    [
        ("raise OSError(28, 'No space left on device', 'a')", "the disk is full"),
        ("raise OSError(122, 'Disk quota exceeded', 'a')", "the disk quota is used up"),
        ("raise OSError(30, 'Read-only file system', 'a')", "the disk is read-only"),
        ("raise PermissionError(13, 'Permission denied', 'a')", "permission is missing"),
        ("raise OSError(24, 'Too many open files', 'a')", "ulimit -n"),
        ("raise OSError(5, 'Input/output error', 'a')", "the disk failed"),
        ("raise OSError(40, 'Too many levels of symbolic links', 'a')", "a link leads to itself"),
        ("raise OSError(36, 'File name too long', 'a')", "the name is too long"),
        ("raise OSError(20, 'Not a directory', 'a')", "a file is where a folder should be"),
    ],
)
def test_what_the_system_refuses_is_one_message_with_the_way_out(
    run_body: Run, failing: str, told: str
) -> None:
    result = run_body(failing)

    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    assert line.startswith("error in mine: [Errno ")
    assert told in line
    assert "'a'" in line


@pytest.mark.parametrize("bug", ["1 / 0", "[][0]", "raise OSError('of a library')"])
def test_a_bug_keeps_its_traceback(run_body: Run, bug: str) -> None:
    result = run_body(bug)

    assert result.returncode == 1
    assert result.stderr.startswith("Traceback (most recent call last):")
    assert bug in result.stderr


@pytest.mark.parametrize("arguments", [["--local"], ["--locale"], ["es"], ["--seed", "1"]])
def test_wrong_arguments_are_usage_and_status_2(run_stage: RunStage, arguments: list[str]) -> None:
    result = run_stage("clean", *arguments)

    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("usage: python -m pipeline.clean")


def test_a_stage_over_all_locales_takes_no_locale(run_stage: RunStage) -> None:
    result = run_stage("sample", "--locale", "us")

    assert result.returncode == 2
    assert "unrecognized arguments: --locale us" in result.stderr


@pytest.mark.parametrize(
    ("locale", "hint"), [("ess", "; did you mean 'es'?"), ("ES", ""), ("", ""), ("xx", "")]
)
def test_an_unknown_locale_is_told_with_the_known_ones(
    run_body: Run, params: Params, locale: str, hint: str
) -> None:
    told = f"--locale {locale}: unknown locale; params.yaml has us, es, jp under encoder{hint}"

    with pytest.raises(PipelineError) as caught:
        check_locale(params, locale)
    assert str(caught.value) == told
    if locale in ("ess", ""):
        result = run_body("raise AssertionError('no work is begun')", "--locale", locale)
        assert (result.returncode, result.stderr) == (1, f"error in mine: {told}\n")


def test_a_mistake_in_params_is_told_before_any_work(project: Path, run_body: Run) -> None:
    path = project / "params.yaml"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace("seed: 7", "sede: 7").replace("es: flat", "es: flta"))

    result = run_body("raise AssertionError('no work is begun')")

    assert result.returncode == 1
    assert result.stderr.splitlines() == [
        "error in mine: params.yaml:",
        "  demo.seed: missing",
        "  demo.sede: unknown key; did you mean 'seed'?",
        "  index.es: 'flta' is not defined under indexes (defined: flat, sq8, hnsw, ivf-flat, "
        "ivf-pq, rabitq, eden, pq-fastscan); did you mean 'flat'?",
    ]


WORK = """\
progress.SECONDS_BETWEEN_LINES = {seconds}
for one in progress.track([10, 10, 10], 30, "products", lambda size: size):
    time.sleep(0.01)
"""


def test_progress_in_a_file_is_a_line_now_and_then(run_body: Run) -> None:
    every, seldom = (
        run_body(WORK.format(seconds=seconds), "--locale", "us") for seconds in (0, 30)
    )

    lines = every.stderr.splitlines()
    assert [line.split(" products, ")[0] for line in lines[:3]] == [
        "10 of 30",
        "20 of 30",
        "30 of 30",
    ]
    assert all(" a second, " in line for line in lines[:3])
    assert "\r" not in every.stderr
    assert len(seldom.stderr.splitlines()) == 1


def test_progress_of_items_without_size_is_shown_too(run_body: Run) -> None:
    result = run_body(
        "progress.SECONDS_BETWEEN_LINES = 0\n"
        "list(progress.track(iter([0, 0]), 0, 'queries', lambda size: size))",
        "--locale", "us",
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("0 of 0 queries, ")


def test_progress_tells_a_note_and_the_time_left_that_it_is_given(run_body: Run) -> None:
    result = run_body(
        "progress.SECONDS_BETWEEN_LINES = 0\n"
        "with progress.Progress(9, 'products', lambda: 'half of them reused') as shown:\n"
        "    shown.advance(3, seconds_left=77.0)",
        "--locale", "us",
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert result.stderr.startswith("3 of 9 products, ")
    assert " 77 s left, half of them reused\n" in result.stderr


def test_progress_on_a_terminal_is_a_bar(run_body: Run) -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    result = run_body(WORK.format(seconds=0), "--locale", "us", stderr=terminal)
    os.close(terminal)
    shown = b"".join(read_all(ours)).decode()

    assert result.returncode == 0
    assert "\r" in shown
    assert "products" in shown
    assert " of 30 " not in shown


def read_all(descriptor: int) -> Iterable[bytes]:
    try:
        while data := os.read(descriptor, 1_000):
            yield data
    except OSError:  # how a terminal without writers ends on Linux
        return
    finally:
        os.close(descriptor)
