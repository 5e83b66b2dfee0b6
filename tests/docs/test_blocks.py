"""The code blocks of README and docs run as they are, and print what they quote.

They run in order, page by page, in a clone in which the pipeline has run with the default encoders.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.artefacts import ROOT
from tests.helpers.pages import PAGES, RUN, Block, blocks_of, links_of
from tests.helpers.repository import GIT_IDENTITY, PATH, call, commit_all

pytestmark = [pytest.mark.slow, pytest.mark.dvc, pytest.mark.weights, pytest.mark.thorough]

REMOTE = "/mnt/share/esci"
"""The README's folder of a DVC remote; a temporary folder takes its place."""

ANYTHING = "…"
"""Alone on a line: any lines. Within a line: any text."""

END = "--- end of command, status"

PATIENCE_SECONDS = 900
"""For one block. A command that serves until it is stopped would hold up the tests for ever."""


def runnable(page: Path) -> list[Block]:
    """Return the blocks of a page that are to be run."""
    return [
        block
        for block in blocks_of(page)
        if block.language in RUN and not block.note.startswith("not run")
    ]


def in_reading_order() -> list[Path]:
    """Return the pages with blocks to run, in the order of the README's table of pages.

    The order decides what runs: an experiment that a later page repeats comes from DVC's cache.
    """
    linked = {link: place for place, link in enumerate(links_of(PAGES[0]))}  # its last place
    rest = sorted(PAGES[1:], key=lambda page: linked.get(str(page), len(linked)))
    return [page for page in (PAGES[0], *rest) if runnable(page)]


@dataclass(frozen=True)
class Clone:
    """A clone of this project, its Git remote, and the environment that commands run in."""

    folder: Path
    origin: Path
    environment: dict[str, str]

    def git(self, *arguments: str) -> str:
        """Run git in the clone."""
        return call(self.folder, self.environment, "git", *arguments)

    def bash(self, script: str, folder: Path) -> tuple[int, str]:
        """Run a script as a reader would; `make` takes the environment as it is."""
        shared = self.origin.parent / "share"
        script = re.sub(r"\bmake ", "make --old-file=.venv/.installed ", script)
        done = subprocess.run(
            ["bash", "-c", script.replace(REMOTE, str(shared))],
            cwd=folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            timeout=PATIENCE_SECONDS,
        )
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def reproduced(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone after `dvc repro`, committed and pushed."""
    top = tmp_path_factory.mktemp("docs")
    cache = os.environ.get("PIPELINE_CACHE", str(ROOT / ".cache"))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment = {
        **kept, **GIT_IDENTITY, "PATH": PATH, "PIPELINE_CACHE": cache,
        "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    clone = Clone(top / "clone", top / "origin.git", environment)
    listed = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    for name in call(ROOT, environment, *listed).split("\0"):
        if (ROOT / name).is_file():
            (clone.folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, clone.folder / name)
    if (ROOT / ".dvc/cache").is_dir():  # saves running what has run
        without = shutil.ignore_patterns("runs")  # else experiments of others would not run
        shutil.copytree(ROOT / ".dvc/cache", clone.folder / ".dvc/cache", ignore=without)
    call(top, environment, "git", "init", "--quiet", "--bare", str(clone.origin))
    commit_all(clone.folder, environment, "pipeline")
    call(clone.folder, environment, "dvc", "repro")
    clone.git("add", "--all")
    clone.git("commit", "--quiet", "--allow-empty", "--message", "results")
    clone.git("branch", "--force", "baseline")
    clone.git("remote", "add", "origin", str(clone.origin))
    clone.git("push", "--quiet", "--set-upstream", "origin", "HEAD")
    return clone


@pytest.fixture
def clone(reproduced: Clone) -> Iterator[Clone]:
    """The reproduced clone; what a page does to it is undone."""
    yield reproduced
    reproduced.git("reset", "--quiet", "--hard", "baseline")
    reproduced.git("push", "--quiet", "--force", "origin", "HEAD")
    shutil.rmtree(reproduced.origin.parent / "colleague", ignore_errors=True)
    call(reproduced.folder, reproduced.environment, "dvc", "checkout", "--quiet", "--force")


@pytest.mark.parametrize("page", in_reading_order(), ids=str)
def test_the_blocks_of_a_page_run_and_print_what_they_quote(clone: Clone, page: Path) -> None:
    for block in runnable(page):
        folder = clone.folder
        if block.note == "in a clone":
            folder = clone.origin.parent / "colleague"
            call(clone.folder, clone.environment, "git", "clone", str(clone.origin), str(folder))
        elif block.note.startswith("in "):
            folder = clone.folder / block.note.removeprefix("in ")
        if block.language == "console":
            check_console(clone, block, folder)
            continue
        script = f"set -e\n{block.code}"
        if block.language == "python":
            script = f"python - <<'EOF'\n{block.code}EOF\n"
        status, printed = clone.bash(script, folder)
        assert status == 0, f"{page}:{block.line}\n{printed}"


def check_console(clone: Clone, block: Block, folder: Path) -> None:
    """Run the commands of a block, and compare what each prints with what is quoted below it."""
    commands: list[tuple[str, list[str]]] = []
    for line in block.code.splitlines():
        if line.startswith("$ "):
            commands.append((line[2:], []))
        else:
            commands[-1][1].append(line)
    script = "".join(
        f'{command}\nstatus=$?; echo "{END} $status"; (exit $status)\n' for command, _ in commands
    )
    _, printed = clone.bash(script, folder)
    parts = re.split(rf"{END} (\d+)\n", printed)
    for number, (command, quoted) in enumerate(commands):
        said, status = parts[2 * number], parts[2 * number + 1]
        asked = number + 1 < len(commands) and commands[number + 1][0] == "echo $?"
        assert status == "0" or asked, f"{command}\n{said}"
        assert re.search(pattern_of(quoted), said), f"{block.page}:{block.line} {command}\n{said}"


def pattern_of(quoted: list[str]) -> str:
    """Return a pattern of the lines that are quoted, with any text for each `ANYTHING`."""
    lines = [
        r"(?:.*\n)*?" if line == ANYTHING else f"{re.escape(line).replace(ANYTHING, '.*')}\\s*\n"
        for line in quoted
    ]
    return r"(?m)^" + "".join(lines)


def test_a_quote_matches_its_lines_in_order_and_nothing_else() -> None:
    printed = "first\nsecond 1.5 s\nthird\nfourth\n"
    for right in (["first", "…", "fourth"], ["…", "second … s", "third", "…"], ["third"]):
        assert re.search(pattern_of(right), printed)
    for wrong in (["fourth", "…", "first"], ["first", "third"], ["second 9… s"]):
        assert not re.search(pattern_of(wrong), printed)
