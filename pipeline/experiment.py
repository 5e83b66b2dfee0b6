"""Try other params: `python -m pipeline.experiment encoder.es=labse index.us=hnsw`.

The changed params are checked before DVC touches anything; then `dvc exp run` runs. If it fails or
is interrupted, params.yaml, dvc.lock, the outputs and reports/ are as they were before. If it
works, its metrics are compared with those before it.
"""

import argparse
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, to_hydra_overrides
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline import git
from pipeline.compare import display
from pipeline.compare.command import compare
from pipeline.compare.revision import WORKSPACE, Revision
from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError, did_you_mean, one_line, shorten
from pipeline.core.log import log
from pipeline.core.params_file import PARAMS_FILE, check_params, load_params
from pipeline.repro.command import interruptible
from pipeline.repro.inputs import check_inputs
from pipeline.repro.repair import protected
from pipeline.repro.runner import DVC, Runner

REPORTS = layout.SUMMARY.parent
MEASURED = (layout.TRADEOFF, layout.COSTS.parent)
"""What is under reports/ and no stage writes: another command may, while an experiment runs."""


def check_changes(changes: Sequence[str]) -> object:
    """Check what params.yaml would be with some changes, such as `encoder.es=labse`.

    Returns:
        Its data with these changes.

    Raises:
        PipelineError: a change cannot be read or names no key, or the changed params break a rule
            or name an input that is not there.
    """
    load_params()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / PARAMS_FILE
        shutil.copyfile(PARAMS_FILE, path)
        for change in changes:
            data = YAML(typ="safe", pure=True).load(path)
            try:
                (parsed,) = to_hydra_overrides([change])
                if not parsed.is_add():
                    _check_key(parsed.key_or_group, data)
                if parsed.is_sweep_override():
                    raise PipelineError(
                        f"{change}: has several values, but an experiment takes one. For a list, "
                        "write key=[a,b]; to queue one experiment per value, run "
                        f"`dvc exp run --queue -S '{change}'`."
                    )
                apply_overrides(path, [change])
            except (
                DvcException, HydraException, OmegaConfBaseException, YAMLError, ValueError,
            ) as err:  # fmt: skip
                why = one_line(err.__cause__ if isinstance(err.__cause__, Exception) else err)
                raise PipelineError(
                    f"{change}: is not a change of a param ({why}). Write key=value, such as "
                    "encoder.es=labse."
                ) from err
        data = YAML(typ="safe", pure=True).load(path)
    where = f"{PARAMS_FILE} with {' '.join(changes)}"
    check_inputs(check_params(data, where), where)
    return data


def _check_key(key: str, data: object) -> None:
    place = data
    for depth, part in enumerate(parts := key.split(".")):
        if not isinstance(place, dict) or part not in place:
            section = ".".join(parts[:depth]) or str(PARAMS_FILE)
            known = [str(each) for each in place] if isinstance(place, dict) else []
            has = f" (it has: {', '.join(known)})" if known else ""
            raise PipelineError(
                f"{key}: {section} has no {part!r}{has}{did_you_mean(part, known) or '.'} To add a "
                f"key, write +{key}=value."
            )
        place = place[part]


@dataclass(frozen=True)
class Before:
    """What an experiment that fails must not change.

    `copy` is a folder that holds a copy of params.yaml and of reports/. `locks` has what each
    lock holds, and its mode. `tried` is the data of params.yaml during the experiment.
    """

    locks: dict[Path, tuple[bytes, int]]
    copy: Path
    tried: object

    @classmethod
    def read(cls, copy: Path, tried: object) -> "Before":
        """Read it from the workspace; `copy` is a folder that is empty or new.

        Raises:
            PipelineError: something under reports/ cannot be copied, such as a pipe.
        """
        locks = {lock: _read(lock) for lock in layout.LOCKS if lock.exists()}
        copy.mkdir(exist_ok=True)
        shutil.copy(PARAMS_FILE, copy / PARAMS_FILE)
        if REPORTS.is_dir():
            try:
                shutil.copytree(
                    REPORTS,
                    copy / REPORTS,
                    ignore=lambda folder, names: [
                        name for name in names if Path(folder) / name in MEASURED
                    ],
                    ignore_dangling_symlinks=True,
                )
            except shutil.Error as err:
                path, _, why = err.args[0][0]
                raise PipelineError(
                    f"{path}: must be a file that can be copied before the experiment "
                    f"({one_line(why)}). Move it away."
                ) from err
        return cls(locks, copy, tried)

    def restore(self) -> str:
        """Bring it back; return a sentence that says so, or what is left to do.

        What a user wrote meanwhile stays: another params.yaml, and what no stage writes.
        """
        changed = _changed(map(str, (PARAMS_FILE, *layout.LOCKS, REPORTS)))
        for lock, kept in self.locks.items():
            _put_back(lock, *kept)
        back = f"{PARAMS_FILE} was edited meanwhile and stays as it is. The"
        if not self._was_edited():
            _put_back(PARAMS_FILE, *_read(self.copy / PARAMS_FILE))
            back = f"{PARAMS_FILE}, the"
        checkout = subprocess.run([*DVC, "checkout", "--quiet"], check=False)
        for copy in (self.copy / REPORTS).rglob("*"):
            if copy.is_file():
                _put_back(copy.relative_to(self.copy), *_read(copy))
        for path in self._new():
            path.unlink()
        git.try_run("restore", "--staged", "--", *changed)  # which DVC has staged
        if checkout.returncode:
            return (
                f"{back} locks and reports/ are as before; bring back the other outputs with "
                "`dvc checkout --force`."
            )
        return f"{back} outputs and reports/ are as before."

    def _was_edited(self) -> bool:
        """Say whether params.yaml is neither as before nor as in the experiment."""
        yaml = YAML(typ="safe", pure=True)
        try:
            data = yaml.load(PARAMS_FILE)
        except (OSError, ValueError, YAMLError):  # gone, or cut by a kill
            return False
        return data not in (self.tried, yaml.load(self.copy / PARAMS_FILE))

    def _new(self) -> Iterator[Path]:
        """Yield the files that stages wrote under reports/ and that were not there before."""
        for artefact in layout.artefacts():
            if REPORTS not in artefact.parents or artefact in MEASURED:
                continue
            for path in (artefact, *artefact.rglob("*")):
                if path.is_file() and not (self.copy / path).exists():
                    yield path


def _read(path: Path) -> tuple[bytes, int]:
    """Return what a file holds, and its mode."""
    return path.read_bytes(), stat.S_IMODE(path.stat().st_mode)


def _put_back(path: Path, content: bytes, mode: int) -> None:
    if not (path.is_file() and _read(path) == (content, mode)):
        with files.atomic_file(path) as partial:
            partial.write_bytes(content)
            partial.chmod(mode)


def _changed(paths: Iterable[str]) -> list[str]:
    """Return the tracked files under some paths that differ from the last commit."""
    command = ("diff", "--name-only", "--relative", "-z", "HEAD", "--")
    listed = git.try_run(*command, *paths) or ""
    return [name for name in listed.split("\0") if name]


def check_identity() -> None:
    """Check what DVC finds out late: it commits edited files before it runs an experiment.

    Raises:
        PipelineError: files are edited, and Git knows no name or no address to commit them under.
    """
    names = [git.try_run("config", key) or "" for key in ("user.name", "user.email")]
    if not all(names) and "GIT_COMMITTER_EMAIL" not in os.environ and _changed(["."]):
        raise PipelineError(
            "git config: user.name and user.email must be set (found "
            f"{shorten(names[0].strip())} and {shorten(names[1].strip())}), because DVC commits "
            "your edits before it runs an experiment. Run `git config user.name NAME` and `git "
            "config user.email ADDRESS`."
        )


def run(changes: Sequence[str]) -> None:
    """Run an experiment with some changes of params.yaml.

    Raises:
        PipelineError: the changed params break a rule, or a stage failed; nothing has changed.
    """
    tried = check_changes(changes)
    check_identity()
    with protected() as descriptor, tempfile.TemporaryDirectory() as folder:
        before = Before.read(Path(folder), tried)
        options = [word for change in changes for word in ("-S", change)]
        try:
            status = Runner(descriptor).run({"exp": ["exp", "run", *options]})["exp"]
        except KeyboardInterrupt:
            log.info(before.restore())
            raise
        if status:
            raise PipelineError(
                f"the experiment failed; the lines above say why. {before.restore()}"
            )
        _compare(before)


def _compare(before: Before) -> None:
    """Print the metrics beside those before the experiment; nothing if there were none."""
    if not (before.copy / layout.PER_QUERY).is_dir():
        return
    try:
        sides = Revision("before", before.copy), Revision(WORKSPACE)
        sys.stdout.write(display.terminal(compare(load_params(), *sides, queries=0)))
    except PipelineError as err:  # such as another sample; the experiment is done all the same
        log.info("no comparison with the metrics before: %s", err)


def main() -> int:
    """Run one experiment; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.experiment",
        description="Check the changed params, then run `dvc exp run` with them.",
    )
    parser.add_argument(
        "changes", nargs="+", metavar="KEY=VALUE", help="such as encoder.es=labse or index.us=hnsw"
    )
    changes = parser.parse_args().changes
    interruptible()
    with stage.report_errors("experiment") as outcome:
        run(changes)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
