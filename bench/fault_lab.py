"""A small project in which stages run with faults: kills, short disks, damaged files.

Stages run in processes forked from one that has imported them: a run takes a tenth of a second, so
hundreds are possible.
"""

import itertools
import multiprocessing
import os
import resource
import shutil
import signal
import sys
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.cheap_model import write_model
from bench.project import ROOT, change_settings, keep_locale, read_settings, write_settings
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.systems import SYSTEMS
from pipeline.runs import card as run_card

LOCALE, ENCODER = "es", "e5-small-q4"

ENGINE, GIVEN_RUN = "engine", layout.GIVEN_RUNS / "engine.trec"
"""Another engine, and its run: that of bm25, in TREC's form."""

OUTPUTS: Mapping[str, tuple[Path, ...]] = {
    "demo": (layout.DEMO,),
    "sample": (layout.SAMPLE,),
    "clean": (layout.clean(LOCALE).folder,),
    "embed": (layout.embeddings(LOCALE).folder,),
    "index_entry": (layout.index_entry(LOCALE).build, layout.index_entry(LOCALE).search),
    "index": (layout.index(LOCALE).folder,),
    **{run_card.STAGE_OF[system]: (layout.runs(system, LOCALE).folder,) for system in SYSTEMS},
    "systems": (layout.other_runs(LOCALE).folder,),
    "evaluate": (
        layout.metrics(LOCALE), layout.key_metrics(LOCALE), layout.intervals(LOCALE),
        layout.slices(LOCALE), layout.recall_curve(LOCALE), layout.per_query(LOCALE),
        layout.top(LOCALE), layout.exact(LOCALE), layout.kinds(LOCALE),
        layout.training_plot(LOCALE),
    ),
    "encoder_scores": (layout.encoder_scores(LOCALE), layout.encoder_values(LOCALE)),
    "report": (layout.PAGE, layout.REPORT, layout.SUMMARY),
}  # fmt: skip
"""What each stage writes, in the order of the stages."""

INPUTS: Mapping[str, tuple[str, ...]] = {
    "sample": ("demo",),
    "clean": ("sample",),
    "embed": ("clean",),
    "index": ("embed",),
    "retrieve": ("clean", "embed", "index"),
    "bm25": ("clean",),
    "hybrid": ("clean", "retrieve", "bm25"),
    "systems": ("clean",),
    "evaluate": ("clean", "retrieve", "bm25", "hybrid", "systems"),
    "encoder_scores": ("clean", "embed"),
    "report": ("evaluate", "encoder_scores"),
}
"""The stages whose outputs a stage reads, where it reads more than their JSON.

`rerank` reads nothing here: the project has no reranker.
"""

_WRITING_EVENTS = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree"}
_OPEN_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT

Files = dict[str, bytes]
Fault = Callable[[], None]


@dataclass(frozen=True)
class Ended:
    """How a stage ended: its exit status, or minus the signal that killed it, and its output."""

    status: int
    said: str


@dataclass
class AtWrite:
    """Does something just before the n-th time that a stage makes, renames or removes a file.

    It sees what Python does itself, not what Arrow does; `KillAfter` reaches that.
    """

    number: int
    act: Fault

    def __call__(self) -> None:
        """Start counting."""
        seen = itertools.count(1)

        def count() -> None:
            if next(seen) == self.number:
                self.act()

        _at_each_write(count)


def _at_each_write(act: Callable[[], object]) -> None:
    """Do something just before each time that this process makes, renames or removes a file."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        written = event == "open" and bool(int(arguments[2] or 0) & _OPEN_TO_WRITE)
        if written or event in _WRITING_EVENTS:
            act()

    sys.addaudithook(hook)


def kill() -> None:
    """Kill this process as kill -9 does."""
    os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class KillAfter:
    """Lets the kernel kill the process after this many seconds."""

    seconds: float

    def __call__(self) -> None:
        """Start the clock."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, max(self.seconds, 1e-6))


@dataclass(frozen=True)
class FileLimit:
    """Lets no file grow beyond this many bytes."""

    size: int

    def __call__(self) -> None:
        """Set the limit."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@dataclass(frozen=True)
class Remove:
    """Removes a folder."""

    folder: Path

    def __call__(self) -> None:
        """Remove it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Workshop:
    """A folder with a small project of one locale, in which stages run with faults."""

    def __init__(self, folder: Path, with_engine: bool = False) -> None:
        """Write params.yaml and a tiny model; nothing has run yet.

        Args:
            folder: where.
            with_engine: whether `systems` names a run of `ENGINE`.
        """
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        changes = {
            "demo.products": 100,
            "demo.queries": 24,
            f"encoders.{ENCODER}.weights": {"kind": "folder", "path": str(folder / "model")},
            f"encoders.{ENCODER}.max_tokens": 32,
            "embed.shard_rows": 40,
            "uncertainty.samples": 100,
            "runtime.threads": 1,
        }
        if with_engine:
            changes[f"systems.{LOCALE}"] = {ENGINE: GIVEN_RUN.as_posix()}
        settings = keep_locale(read_settings(ROOT), LOCALE)
        write_settings(change_settings(settings, changes), folder)
        write_model(folder / "model")
        self.cache = folder / ".cache"
        self._fork = multiprocessing.get_context("forkserver")
        # `encoders` before openvino: it turns off the telemetry that openvino would send.
        self._fork.set_forkserver_preload([
            "pipeline.encoders", "openvino", *(f"pipeline.{name}.stage" for name in OUTPUTS),
            "bench.fault_lab",
        ])  # fmt: skip

    def run(self, name: str, fault: Fault | None = None, folder: Path | None = None) -> Ended:
        """Run a stage until it ends, is killed or fails.

        Args:
            name: the stage.
            fault: called in its process before the stage starts.
            folder: where it runs; the project's own folder by default.
        """
        if name == "systems":
            give_run(folder or self.folder)
        said = self.folder / "said"
        process = self._fork.Process(
            target=run_here, args=(name, folder or self.folder, self.cache, fault, said)
        )
        process.start()
        process.join()
        assert process.exitcode is not None
        return Ended(process.exitcode, said.read_text(encoding="utf-8", errors="replace"))

    def run_all(self) -> Files:
        """Run all stages without a fault; return what they wrote.

        Raises:
            PipelineError: one failed.
        """
        for name in OUTPUTS:
            ended = self.run(name)
            if ended.status:
                raise PipelineError(f"{name} failed without a fault: {ended.said}")
        return self.written(OUTPUTS)

    def written(self, names: Iterable[str], folder: Path | None = None) -> Files:
        """Return all files in the outputs of some stages, by path."""
        root = folder or self.folder
        found: Files = {}
        for path in (root / output for name in names for output in OUTPUTS[name]):
            files = [path] if path.is_file() else sorted(path.rglob("*"))
            found |= {str(one.relative_to(root)): one.read_bytes() for one in files
                      if one.is_file()}  # fmt: skip
        return found

    def remove(self, name: str) -> None:
        """Remove a stage's outputs, as DVC does before it runs a stage."""
        for path in (self.folder / output for output in OUTPUTS[name]):
            if path.is_dir():
                shutil.rmtree(path)
            path.unlink(missing_ok=True)

    def forget_kept(self) -> None:
        """Empty the store and forget all terms, so that embed and bm25 do all of their work."""
        for kept in ("vectors", "search"):
            shutil.rmtree(self.cache / kept, ignore_errors=True)

    def left_over(self) -> list[Path]:
        """Return the files and folders that were never finished."""
        return [*self.folder.glob("data/**/.*.partial"), *self.folder.glob("models/**/.*.partial"),
                *self.folder.glob("reports/**/.*.partial")]  # fmt: skip

    def writes(self, name: str) -> int:
        """Remove a stage's outputs and run it; return how many events `AtWrite` counts in it."""
        count = self.folder / "count"
        self.remove(name)
        ended = self.run(name, Count(count))
        assert ended.status == 0, ended.said
        return count.stat().st_size


@dataclass(frozen=True)
class Count:
    """Writes a byte for each event that `AtWrite` counts."""

    path: Path

    def __call__(self) -> None:
        """Start counting."""
        out = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        _at_each_write(lambda: os.write(out, b"."))


def give_run(root: Path) -> None:
    """Write the run of `ENGINE` in a project, once its bm25 has run."""
    path = root / GIVEN_RUN
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = pq.read_table(root / layout.runs("bm25", LOCALE).catalogue).to_pylist()
        line = "{query_id} Q0 {product_id} {rank} {score:.6f} engine\n"
        path.write_text("".join(line.format(**row) for row in rows), encoding="utf-8")


def run_here(name: str, folder: Path, cache: Path, fault: Fault | None, said: Path) -> None:
    """Run a stage in this process with its output in a file; exit with its status."""
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(out, descriptor)
    os.chdir(folder)
    os.environ["PIPELINE_CACHE"] = str(cache)
    body = getattr(import_module(f"pipeline.{name}.stage"), name)
    of_all = name in ("demo", "sample", "report")
    sys.argv = [name] if of_all else [name, "--locale", LOCALE]
    if fault is not None:
        fault()
    sys.exit(stage.run(name, body) if of_all else stage.run_locales(name, body))


def check_absent_or_whole(shop: Workshop, name: str, expected: Files) -> None:
    """Raise unless each output of a stage is as expected or not there.

    Raises:
        AssertionError: one is partial.
    """
    for output in OUTPUTS[name]:
        path = shop.folder / output
        if path.is_dir():
            found = {str(one.relative_to(shop.folder)): one.read_bytes()
                     for one in path.rglob("*") if one.is_file()}  # fmt: skip
            assert found == _within(output, expected), f"{path} is partial"
        elif path.exists():
            assert path.read_bytes() == expected[str(output)], f"{path} is partial"


def was_killed(ended: Ended) -> bool:
    """Return whether a stage was killed; otherwise it was done before.

    Raises:
        AssertionError: it failed by itself.
    """
    assert ended.status <= 0, f"status {ended.status}: {ended.said}"
    return ended.status < 0


def check_one_message(ended: Ended, name: str) -> str:
    """Return the one message of a stage that failed.

    Raises:
        AssertionError: it succeeded, crashed, or gave no message or several.
    """
    assert ended.status == 1, f"{name}: status {ended.status}: {ended.said}"
    assert "Traceback" not in ended.said, ended.said
    errors = [line for line in ended.said.splitlines() if line.startswith("error in ")]
    assert len(errors) == 1, ended.said
    assert errors[0].startswith(f"error in {name}: "), ended.said
    return errors[0]


def flip(path: Path, at: int, bit: int) -> None:
    """Flip a bit of a file; its times stay, as when a disk fails."""
    times, data = path.stat(), bytearray(path.read_bytes())
    data[at] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def damaged(shop: Workshop, name: str) -> list[Path]:
    """Return the files that a stage reads and whose damage it must find: all except JSON and CSV.

    A person may edit those in any editor, so only DVC can find a change in them.
    """
    files = [Path(key) for key in shop.written(INPUTS.get(name, ()))]
    return [path for path in files if path.suffix in (".parquet", ".npy", ".faiss")]


def same_or_refused(shop: Workshop, name: str, expected: Files) -> bool:
    """Run a stage on files that may be damaged; return whether it refused, with one message.

    Raises:
        AssertionError: it neither refused nor wrote the same as from whole files.
    """
    shop.remove(name)
    ended = shop.run(name)
    if ended.status == 0:
        whole = [_within(output, expected) for output in OUTPUTS[name]]
        assert shop.written([name]) == dict(ChainMap(*whole)), f"{name} wrote something else"
        return False
    message = check_one_message(ended, name)
    assert "dvc repro" in message or "write it again" in message, message
    assert not shop.written([name])
    return True


def _within(output: Path, files: Files) -> Files:
    """Return an output's own files."""
    return {key: value for key, value in files.items() if Path(key).is_relative_to(output)}
