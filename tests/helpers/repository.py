"""A repository of this pipeline for tests that run git, make or dvc in one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.helpers.artefacts import ROOT
from tests.helpers.processes import run_module

GIT_IDENTITY = {
    f"GIT_{who}_{what}": value
    for who in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "Test"), ("EMAIL", "test@example.invalid"))
}

GIT_SECONDS = 120
"""What any one git command may take."""

PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
"""The search path with this interpreter's own commands, dvc among them, in front."""


def call(
    folder: Path,
    environment: dict[str, str],
    *command: str,
    status: int = 0,
    timeout: float | None = None,
) -> str:
    """Run a command, check its exit status, return what it printed."""
    done = run(folder, environment, *command, timeout=timeout)
    printed = done.stdout + done.stderr
    assert done.returncode == status, printed
    return printed


def run(
    folder: Path, environment: dict[str, str], *command: str, timeout: float | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a command; dvc and Python modules are forked (`run_module`)."""
    module = command if command[0] == "dvc" else ()
    if command[:2] in (("python", "-m"), (sys.executable, "-m")):
        module = command[2:]
    if module:
        return run_module(*module, folder=folder, environment=environment, timeout=timeout)
    return subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


def copy_project(names: tuple[str, ...], folder: Path) -> None:
    """Copy files and folders of this project, named from its root, to `folder`."""
    for name in names:
        source, target = ROOT / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)


def commit_all(folder: Path, environment: dict[str, str], message: str) -> None:
    """Make a git repository of `folder`, where it is none, and commit all that is in it."""
    for command in (("init",), ("add", "."), ("commit", "--message", message)):
        git, *rest = command
        quiet = [] if git == "add" else ["--quiet"]
        call(folder, environment, "git", git, *quiet, *rest, timeout=GIT_SECONDS)
