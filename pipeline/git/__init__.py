"""What `git` itself says: also in a subfolder of the repository and in a worktree.

Files of a commit are read without a checkout, and nothing that it holds decides how.
"""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.core.outputs import refuse_artefacts
from pipeline.core.text_tables import printable

_EXPERIMENTS = "refs/exps"
"""DVC keeps an experiment as refs/exps/aa/bbbb/NAME, aabbbb the commit that it started from."""

_STARTED_FROM = rf"{_EXPERIMENTS}/[0-9a-f]{{2}}/[0-9a-f]{{38,62}}"
_EXPERIMENT = rf"{_STARTED_FROM}/[^/]+"

_NAMED = ("refs/heads", "refs/tags", _EXPERIMENTS)


@dataclass(frozen=True)
class Entry:
    """An entry of a folder in a commit; `mode` is Git's, `size` is 0 for what has no contents."""

    mode: str
    name: str
    sha: str
    size: int

    @property
    def is_file(self) -> bool:
        """Whether it is a plain file; a link is none."""
        return self.mode.startswith("100")


def run(*arguments: str, where: str = "") -> str:
    """Return what git prints.

    Args:
        arguments: those of git.
        where: what it reads of a commit, which must be there; messages begin with it.

    Raises:
        PipelineError: git is not there, or it fails.
    """
    return _bytes(*arguments, where=where).decode("utf-8", "surrogateescape")


def try_run(*arguments: str) -> str | None:
    """Return what git prints, None where `run` raises."""
    try:
        return run(*arguments)
    except PipelineError:
        return None


def prefix() -> Path:
    """Return the path from the repository's root to this folder.

    Raises:
        PipelineError: this folder is in no Git repository.
    """
    return Path(run("rev-parse", "--show-prefix").strip("\n"))


_DOUBT = re.compile(r"^warning: ((?:log for|refname) .*?)\.?$", re.MULTILINE)
"""What git says, untranslated, of a revision that may mean another commit."""


def find_commit(name: str) -> str | None:
    """Return the commit that a revision or an experiment names, or None.

    Raises:
        PipelineError: several experiments have this name, or git warns that it may mean another
            commit, such as where a branch's log is younger than the time asked for.
    """
    try:  # without --quiet, which silences the warnings too
        found = _ran("rev-parse", "--verify", "--end-of-options", f"{name}^{{commit}}")
    except PipelineError:
        pass
    else:
        if doubt := _DOUBT.search(found.stderr.decode("utf-8", "replace")):
            raise PipelineError(
                f"{name}: git warns: {printable(doubt[1])}. Name the commit itself."
            )
        return found.stdout.decode().strip()
    listed = run("for-each-ref", "--format=%(objectname) %(refname)", _EXPERIMENTS)
    lines = [line.split(" ", 1) for line in listed.splitlines()]
    form = rf"{_STARTED_FROM}/{re.escape(name)}"
    commits = sorted({commit for commit, ref in lines if re.fullmatch(form, ref)})
    if len(commits) > 1:
        raise PipelineError(
            f"{name}: {len(commits)} experiments have this name ({', '.join(commits)}). Name the "
            "commit of one."
        )
    return commits[0] if commits else None


def list_commits() -> dict[str, list[str]]:
    """Return every branch, tag and experiment of the repository, and HEAD: names by commit.

    The commit of HEAD comes first, then the others by the date of their commit, the newest first.
    """
    form = "%(if)%(*objectname)%(then)%(*objectname)%(else)%(objectname)%(end) %(refname)"
    order = ("--sort=refname", "--sort=-creatordate")
    listed = run("for-each-ref", *order, f"--format={form}", *_NAMED).splitlines()
    found: dict[str, list[str]] = {}
    if head := try_run("rev-parse", "--verify", "--quiet", "HEAD"):
        found[head.strip()] = ["HEAD"]
    for line in listed:
        commit, _, ref = line.partition(" ")
        if ref.startswith(f"{_EXPERIMENTS}/") and not re.fullmatch(_EXPERIMENT, ref):
            continue  # DVC's own, such as its queue
        name = ref.rsplit("/", 1)[1] if ref.startswith(_EXPERIMENTS) else ref.split("/", 2)[2]
        found.setdefault(commit, []).append(name)
    return found


def names_an_object(name: str) -> bool:
    """Return whether Git knows the name, be it of a commit or not."""
    return try_run("rev-parse", "--verify", "--quiet", "--end-of-options", name) is not None


def entries(commit: str, path: str) -> list[Entry]:
    """Return what a commit has at a path from this folder: itself, or all in it if it ends in /."""
    listed = run("ls-tree", "-z", "-l", commit, "--", path, where=f"{path} of {commit[:7]}")
    return [_entry(line) for line in listed.split("\0") if line]


def find_file(commit: str, path: Path) -> Entry | None:
    """Return a plain file of a commit, None where it has none at this path from this folder."""
    return next((each for each in entries(commit, path.as_posix()) if each.is_file), None)


def read(entry: Entry) -> bytes:
    """Return the contents of a file.

    Raises:
        PipelineError: the repository does not have them whole.
    """
    return _bytes("cat-file", "blob", entry.sha, where=entry.name)


_ENDINGS = {
    "--out": (".html",),
    "--markdown": (".md", ".markdown"),
    "--json": (".json",),
    "--csv": (".csv",),
}


def refuse_project_files(given: Mapping[str, Path | None]) -> None:
    """Check that no option names an artefact, or a file of another kind that is in Git.

    Args:
        given: the path that each of `_ENDINGS` names, None where it is left out.

    Raises:
        PipelineError: one does, links followed, or two options name one file.
    """
    refuse_artefacts(given)
    for option, path in given.items():
        endings = _ENDINGS[option]
        if path is not None and path.suffix.lower() not in endings and _tracks(path):
            raise PipelineError(
                f"{option} {path}: Git tracks this file, and its name does not end in "
                f"{endings[0]}. Name another path."
            )


def _tracks(path: Path) -> bool:
    """Say whether Git tracks a file, in whichever repository it is."""
    real = Path(os.path.realpath(path))
    return real.parent.is_dir() and (
        try_run("-C", str(real.parent), "ls-files", "--error-unmatch", "--", real.name) is not None
    )


def _entry(line: str) -> Entry:
    about, _, name = line.partition("\t")
    mode, _, sha, size = about.split()
    return Entry(mode, name, sha, int(size) if size.isdecimal() else 0)


def _bytes(*arguments: str, where: str = "") -> bytes:
    """Return what git prints."""
    return _ran(*arguments, where=where).stdout


def _ran(*arguments: str, where: str = "") -> "subprocess.CompletedProcess[bytes]":
    """Run git, untranslated; `where` is what it reads of a commit, which must be there."""
    try:
        return subprocess.run(
            ["git", *arguments],  # noqa: S607 (the user's own git)
            capture_output=True,
            check=True,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as err:
        raise PipelineError("git is not installed, or is not on the PATH. Install it.") from err
    except subprocess.CalledProcessError as err:
        said = err.stderr.decode("utf-8", "replace")
        failed = f"git {arguments[0]} failed: {' '.join(said.split())}"
        if where:
            failed = (
                f"{where}: {failed}. The repository is damaged, or lacks what it names. `git fsck` "
                "says what; fetch it from another clone."
            )
        raise PipelineError(failed) from err
