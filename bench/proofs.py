"""The slow proofs of the embedding engine: real runs of embed, compared with bounds.

    python -m bench.proofs [reuse] [edit] [memory] [kills]

`reuse` encodes ESCI_DIR, or the demo, with the encoders of params.yaml; the others encode made-up
texts of ESCI's length with a tiny random model. They run in temporary folders; the figures go to
reports/bench/proofs.json.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench import reports
from bench.cheap_model import words, write_model
from bench.measure import Figures
from bench.project import change_settings, read_settings, surroundings, write_settings
from bench.proof_runner import Proof, run_proofs
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, sha256_file, write_json
from pipeline.core.params_file import load_params
from pipeline.core.timings import peak_bytes
from pipeline.embed.fill import GROUP_TEXTS, SideEncoder
from pipeline.embed.stage import embed
from pipeline.embed.write import write_shards
from pipeline.encoders.batching import CPU_BATCH_TOKENS, STEP, Batch
from pipeline.encoders.openvino_engine import OpenVinoEngine

TIMES_FASTER = 50
"""How much faster a run has to be that finds every vector in the store."""

GROWTH_PERCENT = 10
"""How much memory may grow between the two catalogues of `MEMORY_PRODUCTS`."""

MEMORY_PRODUCTS = (20_000, 100_000)
KILLS, KILL_PRODUCTS = 20, 10_000
KILL_SECONDS = 0.02  # in which about a batch is computed, or a segment written
TABLE_ROWS = 16_384
LOCALE, ENCODER, THREADS, SEED = "es", "e5-small-q4", 2, 0

IN_FLIGHT = (2 * THREADS + 2) * CPU_BATCH_TOKENS // STEP
"""How many texts at most are computed and not in a group yet: batches of the shortest ones."""

PROBES = 2
"""How many texts an engine computes as it is loaded: its own first, and the encoder's."""

_COMPUTED, _SEEN = Path("computed"), Path("seen.json")

Seconds = dict[str, float]
"""How long each part took."""


@dataclass(frozen=True)
class Kill:
    """When a process kills itself: this many seconds after an engine computed this many texts."""

    texts: int
    seconds: float


class Project:
    """A folder to run stages in, with params, a cache and a store of vectors of its own.

    Attributes:
        folder: the folder.
        seconds: how long the last process ran.
    """

    def __init__(self, folder: Path, changes: Mapping[str, Any]) -> None:
        """Copy params.yaml with changes: dotted paths of keys, and their values."""
        self.folder = folder
        self.seconds = 0.0
        self._settings = read_settings()
        (folder / ".cache").mkdir()
        self.change(changes)

    def change(self, changes: Mapping[str, Any]) -> None:
        """Set some keys of params.yaml, given as dotted paths."""
        self._settings = change_settings(self._settings, changes)
        write_settings(self._settings, self.folder)

    def run(self, *arguments: str, kill: Kill | None = None) -> str:
        """Run Python with arguments until it ends or is killed; return its standard error.

        Raises:
            PipelineError: it failed, or ended before it was to be killed.
        """
        started = time.monotonic()
        with subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=surroundings(self.folder),
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            _, errors = process.communicate()
        self.seconds = time.monotonic() - started
        if process.returncode != (-signal.SIGKILL if kill else 0):
            raise PipelineError(
                f"python {' '.join(arguments)} ended with status {process.returncode}: {errors}"
            )
        return errors

    def embed(self, kill: Kill | None = None) -> int:
        """Run `watched_embed`; return how many texts embed says it encoded."""
        given = f"proofs.Kill(*{astuple(kill)})" if kill else ""
        watched = f"from bench import proofs; proofs.watched_embed({given})"
        return _encoded(self.run("-c", watched, kill=kill))

    def computed(self) -> int:
        """Return how many texts an engine computed in all watched runs since `forget`."""
        path = self.folder / _COMPUTED
        return path.stat().st_size if path.exists() else 0

    def seen(self) -> Figures:
        """Return the last watched run's peak memory in bytes, and how long its parts took."""
        seen: Figures = read_json(self.folder / _SEEN, "")
        return seen

    def forget(self) -> None:
        """Remove all vectors, those of the store too."""
        for folder in (".cache/vectors", ".cache/rates", "data/embeddings"):
            shutil.rmtree(self.folder / folder, ignore_errors=True)
        (self.folder / _COMPUTED).unlink(missing_ok=True)

    def hashes(self) -> dict[str, str]:
        """Return the hash of every file that embed wrote."""
        written = (self.folder / layout.embeddings(LOCALE).folder).iterdir()
        return {path.name: sha256_file(path) for path in written}


def reuse(folder: Path) -> Figures:
    """A second run finds every vector in the store: how much faster is the whole process?"""
    esci = os.environ.get("ESCI_DIR")
    source = str(Path(esci).absolute()) if esci else str(layout.DEMO)
    # The demo is made larger: few texts take hardly longer than Python takes to start.
    project = Project(folder, {"sample.source": source, "demo.products": 2_000})
    for made in layout.cache().absolute().glob("*"):  # not the store: weights, converted models
        if made not in (layout.store().absolute(), layout.rates().absolute()):
            (folder / ".cache" / made.name).symlink_to(made)
    for each in (*(() if esci else ("demo",)), "sample", "clean"):
        project.run("-m", f"pipeline.{each}")
    project.run("-m", "pipeline.embed", "--plan")  # converts the models where they are not yet
    project.forget()
    encoded = _encoded(project.run("-m", "pipeline.embed"))
    first = project.seconds
    shutil.rmtree(folder / "data/embeddings")
    again = _encoded(project.run("-m", "pipeline.embed"))
    ratio = first / project.seconds
    return {
        "source": "ESCI_DIR" if esci else "demo",
        "encoded": {"first": encoded, "second": again},
        "seconds": {"first": round(first, 2), "second": round(project.seconds, 2)},
        "times_faster": round(ratio, 1),
        "holds": again == 0 and ratio >= TIMES_FASTER,
    }


def edit(folder: Path) -> Figures:
    """One product changed of 2,000 is one text encoded."""
    project = cheap_project(folder)
    write_clean(project, 2_000)
    project.embed()
    before = project.computed()
    write_clean(project, 2_000, edited=1_234)
    reported = project.embed()
    encoded = project.computed() - before - PROBES
    return {
        "products": 2_000,
        "changed": 1,
        "encoded": encoded,
        "holds": encoded == reported == 1,
    }


def memory(folder: Path) -> Figures:
    """Peak memory hardly grows with the catalogue."""
    project = cheap_project(folder)
    peaks, seconds = [], {}
    for products in MEMORY_PRODUCTS:
        write_clean(project, products)
        project.forget()
        project.embed()
        seen = project.seen()
        peaks.append(seen["peak_bytes"])
        seconds[str(products)] = {part: round(took, 1) for part, took in seen["seconds"].items()}
    growth = 100 * (peaks[1] / peaks[0] - 1)
    return {
        "products": MEMORY_PRODUCTS,
        "peak_bytes": peaks,
        "growth_percent": round(growth, 1),
        "seconds": seconds,
        "holds": growth < GROWTH_PERCENT,
    }


def kills(folder: Path) -> Figures:
    """After a kill at any moment, another run ends with the same bytes, and repeats a group."""
    project = cheap_project(folder)
    write_clean(project, KILL_PRODUCTS)
    project.forget()
    texts = project.embed()
    expected = project.hashes()
    rng = np.random.default_rng(SEED)
    done, repeated, identical = [], [], 0
    for _ in range(KILLS):
        project.forget()
        # Not at the very end: there would be nothing left to do.
        kill = Kill(int(rng.integers(texts - 2 * IN_FLIGHT)), float(rng.uniform(0, KILL_SECONDS)))
        project.embed(kill)
        done.append(project.computed())
        project.embed()
        repeated.append(project.computed() - texts)
        identical += project.hashes() == expected
    return {
        "kills": KILLS,
        "identical": identical,
        "texts": texts,
        "computed_before_the_kill": done,
        "computed_again": repeated,
        "computed_again_at_most": max(repeated),
        "holds": identical == KILLS and max(repeated) <= GROUP_TEXTS + IN_FLIGHT,
    }


PROOFS: dict[str, Proof] = {
    "reuse": reuse, "edit": edit, "memory": memory, "kills": kills,
}  # fmt: skip


def timed(seconds: Seconds, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that also adds how long it takes to the seconds of a part."""

    def run(*args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[part] = seconds.get(part, 0.0) + time.monotonic() - started

    return run


def watched_embed(kill: Kill | None = None) -> None:
    """Run embed in this process; write to files what it computed and how long its parts took."""
    seconds: Seconds = {}
    to_kill = [kill] if kill else []

    def counted(engine: OpenVinoEngine, batch: Batch) -> Any:
        vectors = compute(engine, batch)
        with _COMPUTED.open("ab", buffering=0) as computed:
            computed.write(b"." * len(batch.places))
            if to_kill and computed.tell() >= to_kill[0].texts:
                seconds_left = to_kill.pop().seconds
                threading.Timer(seconds_left, os.kill, (os.getpid(), signal.SIGKILL)).start()
        return vectors

    compute = OpenVinoEngine.__call__
    with (
        patch.object(OpenVinoEngine, "__call__", counted),
        patch.object(SideEncoder, "survey", timed(seconds, "scan", SideEncoder.survey)),
        patch.object(SideEncoder, "fill", timed(seconds, "encode", SideEncoder.fill)),
        patch("pipeline.embed.stage.write_shards", timed(seconds, "write", write_shards)),
        stage.report_errors("embed") as outcome,
    ):
        embed(load_params(), LOCALE)
        write_json(_SEEN, {"peak_bytes": peak_bytes(), "seconds": seconds})
    sys.exit(outcome.status)


def _encoded(lines: str) -> int:
    """Return how many texts embed says it encoded."""
    return sum(map(int, re.findall(r" encoded=(\d+) ", lines)))


def cheap_project(folder: Path, encoder: str | None = None) -> Project:
    """Make a project with a tiny model, which is converted already, as in any second run.

    `encoder` names an entry of params.yaml to use in its place.
    """
    runtime = {"runtime.engine": "openvino", "runtime.threads": THREADS}
    if encoder is None:
        model = folder / "model"
        write_model(model)
        weights = {"kind": "folder", "path": str(model)}
        project = Project(folder, {f"encoders.{ENCODER}.weights": weights, **runtime})
    else:
        project = Project(folder, {f"encoder.{LOCALE}": encoder, **runtime})
        for made in ("encoders", "engines", "wheels"):
            ours = layout.cache().absolute() / made
            ours.mkdir(parents=True, exist_ok=True)
            (folder / ".cache" / made).symlink_to(ours)
    write_clean(project, 10)
    project.embed()
    return project


def write_clean(project: Project, products: int, edited: int | None = None) -> None:
    """Write clean tables: distinct texts of 1.1 kB in the mean, and 200 queries."""
    folder = project.folder / layout.clean(LOCALE).folder
    folder.mkdir(parents=True, exist_ok=True)
    fields, known = load_params().clean.fields, words()
    with pq.ParquetWriter(folder / "products.parquet", tables.PRODUCTS) as writer:
        for start in range(0, products, TABLE_ROWS):
            rng = np.random.default_rng([SEED, start])
            rows = range(start, min(start + TABLE_ROWS, products))
            lengths = rng.lognormal(np.log(140), 0.5, len(rows)).astype(int)
            texts = [
                f"{'edited' if row == edited else 'product'} {row} "
                + " ".join(rng.choice(known, length))
                for row, length in zip(rows, lengths, strict=True)
            ]
            columns = {
                "product_id": [f"P{row:09d}" for row in rows],
                "text": texts,
                "field_ends": [[len(text)] * len(fields) for text in texts],
            }
            writer.write_table(pa.table(columns, tables.PRODUCTS))
    queries = {"query_id": range(200), "text": [" ".join(known[at : at + 4]) for at in range(200)]}
    tables.write_table(
        folder / "queries.parquet", pa.table(queries, tables.QUERIES), tables.QUERIES
    )
    counts: dict[str, Any] = {
        kind: {"in": read, "out": read}
        for kind, read in (("products", products), ("queries", 200), ("judgements", 0))
    }
    counts["products"] |= {"fields": fields, "separator": " "}
    write_json(folder / "counts.json", counts)


if __name__ == "__main__":
    sys.exit(run_proofs("proofs", PROOFS, reports.PROOFS))
