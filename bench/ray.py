"""Encoding on a Ray cluster of two workers against this process alone, on the same cores.

    python -m bench.ray [--texts 50000] [--encoder NAME] [--rounds 3]
    python -m bench.ray --retrieve [--products 200000] [--rounds 3]
    python -m bench.ray --bm25 [--folder DIR] [--locale us] [--queries 2000] [--rounds 3]

One process of two threads and a cluster of two workers of one thread each take turns to encode
made-up texts of ESCI's length, all of them new; then the cluster does so once more, with a worker
killed midway. Without --encoder the model is a random BERT of two layers and 32 components, so
cheap that everything except encoding dominates; with it, that entry of params.yaml. The figures go
to reports/bench/ray.json. Starting (the cluster, loading the model) is reported apart: it takes the
same few seconds for any number of texts. With --retrieve or --bm25 they search; see
`bench.ray_ranges`.
"""

import argparse
import re
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import psutil

from bench import proofs, ray_ranges, reports
from bench.measure import Figures
from pipeline.core import stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.log import log
from pipeline.core.params_file import load_params
from pipeline.embed.fill import SideEncoder
from pipeline.embed.stage import embed
from pipeline.encoders.loading import load_on
from pipeline.encoders.remote import RemoteEncoder

LIBRARIES = ("faiss-cpu", "numpy", "ray")
WORKERS = 2
OVERHEAD_PERCENT = 15
"""How much longer the cluster may take than two threads, starting apart."""


_SEEN = Path("seen.json")


def main() -> int:
    """Measure; return 1 if a bound does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.ray")
    parser.add_argument("--texts", type=int, default=50_000, help="how many products")
    parser.add_argument("--encoder", help="a name under encoders in params.yaml")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each executor")
    search = parser.add_mutually_exclusive_group()
    search.add_argument("--retrieve", action="store_true", help="search vectors")
    search.add_argument("--bm25", action="store_true", help="search by words")
    parser.add_argument("--products", type=int, default=200_000, help="how many vectors")
    parser.add_argument(
        "--folder", type=Path, default=Path(), help="of a project with clean tables, for --bm25"
    )
    parser.add_argument("--locale", default="us", help="whose words are searched (default: us)")
    parser.add_argument("--queries", type=int, default=2_000, help="for words, at most")
    arguments = parser.parse_args()
    name = arguments.encoder or "tiny"
    with stage.report_errors("bench.ray") as outcome:
        made = reports.made_by(LIBRARIES)
        if arguments.retrieve or arguments.bm25:
            name = "retrieve" if arguments.retrieve else "bm25"
            figures = _search(arguments)
        else:
            with tempfile.TemporaryDirectory() as folder:
                figures = measure(
                    Path(folder), arguments.texts, arguments.encoder, arguments.rounds
                )
        known = read_json(reports.RAY, "") if reports.RAY.exists() else {}
        write_json(reports.RAY, known | {name: figures | made})
        log.info("%s", figures)
        if not figures["holds"]:
            raise PipelineError(f"{reports.RAY}: a bound does not hold for {name}")
    return outcome.status


def _search(arguments: argparse.Namespace) -> Figures:
    """Search by turns here and on a cluster; say whether the bytes are the same."""
    params, rounds = load_params(), arguments.rounds
    if arguments.retrieve:
        found = ray_ranges.measure(params, arguments.products, rounds, WORKERS, kill_a_worker)
    else:
        stage.check_locale(params, arguments.locale)
        found = ray_ranges.measure_bm25(
            params, arguments.locale, arguments.folder, arguments.queries, rounds, WORKERS,
            kill_a_worker,
        )  # fmt: skip
    return found | {"holds": found["identical_bytes"] and found["killed"]["deaths_told"] == 1}


def measure(folder: Path, texts: int, encoder: str | None, rounds: int) -> Figures:
    """Encode by turns here and on a cluster; compare times and bytes."""
    if encoder is not None and encoder not in load_params().encoders:
        raise PipelineError(
            f"--encoder {encoder}: params.yaml has no such entry under encoders. Name one of them."
        )
    project = proofs.cheap_project(folder, encoder)
    proofs.write_clean(project, texts)
    runs: dict[str, list[Figures]] = {"local": [], "ray": []}
    hashes = []
    for _ in range(rounds):
        for executor, seen in runs.items():
            seen.append(_run(project, executor))
            hashes.append(project.hashes())
    killed = _run(project, "ray", kill_at=texts // 2)
    hashes.append(project.hashes())
    encoding = {executor: median(_encoding(one) for one in seen) for executor, seen in runs.items()}
    overhead = 100 * (encoding["ray"] / encoding["local"] - 1)
    identical = all(one == hashes[0] for one in hashes)
    driver = median(one["cpu_seconds"] for one in runs["ray"])
    return {
        "texts": texts,
        "encoder": encoder or "random BERT, 2 layers, 32 components",
        "workers": WORKERS,
        "runs": runs,
        "encoding_seconds": {name: round(took, 2) for name, took in encoding.items()},
        "overhead_percent": round(overhead, 1),
        "start_seconds": round(median(one["start_seconds"] for one in runs["ray"]), 2),
        "driver_cpu_seconds": round(driver, 2),
        "texts_a_driver_core_feeds_a_second": round(texts / driver),
        "killed": killed,
        "identical_bytes": identical,
        "holds": identical and overhead <= OVERHEAD_PERCENT and killed["deaths_told"] == 1,
    }


def _encoding(seen: Figures) -> float:
    return float(seen["encode_seconds"] - seen["start_seconds"])


def _run(project: proofs.Project, executor: str, kill_at: int | None = None) -> Figures:
    """Run embed with an empty store; kill a worker when this many texts are encoded."""
    project.forget()
    threads = {"local": WORKERS, "ray": 1}[executor]
    project.change({"runtime.executor": executor, "runtime.threads": threads})
    killer = _Killer(project.folder / ".cache/vectors", kill_at)
    with killer:
        lines = project.run("-c", "from bench import ray; ray.watched_embed()")
    seen: Figures = read_json(project.folder / _SEEN, "")
    seen = {key: round(value, 2) for key, value in seen.items()}
    if kill_at is not None:
        seen["workers_killed"] = killer.killed
        seen["deaths_told"] = len(re.findall("a worker of the Ray cluster died", lines))
    return seen


class _Killer:
    """Kills a worker by SIGKILL once a store holds this many vectors."""

    def __init__(self, store: Path, entries: int | None) -> None:
        self.killed = 0
        self._store, self._entries = store, entries
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        if self._entries is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._done.set()
        if self._entries is not None:
            self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            # <hash>-<entries>x<width>.npy; the token counts' are of a handful of components
            names = [
                path.stem.rpartition("-")[2].split("x") for path in self._store.glob("*/*.npy")
            ]
            held = sum(int(entries) for entries, width in names if int(width) >= 32)
            if held >= (self._entries or 0) and kill_a_worker():
                self.killed = 1
                return


def workers() -> list[psutil.Process]:
    """Return the processes that work for clusters which this process or its children started."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it ended meanwhile
            if any(part.startswith("ray::Worker") for part in one.cmdline()):
                found.append(one)
    return found


def kill_a_worker() -> bool:
    """Kill one of the `workers` by SIGKILL; return whether there was one."""
    for one in workers():
        with suppress(psutil.NoSuchProcess):
            one.kill()
            return True
    return False


def watched_embed() -> None:
    """Run embed in this process; write to a file how many seconds its parts took."""
    seconds = {"encode": 0.0, "start": 0.0}
    timed = partial(proofs.timed, seconds)
    with (
        patch.object(SideEncoder, "fill", timed("encode", SideEncoder.fill)),
        patch("pipeline.embed.locale_encoder.load_on", timed("start", load_on)),
        patch.object(RemoteEncoder, "__enter__", timed("start", RemoteEncoder.__enter__)),
        stage.report_errors("embed") as outcome,
    ):
        started = time.monotonic()
        embed(load_params(), proofs.LOCALE)
        seen = {f"{part}_seconds": took for part, took in seconds.items()}
        whole = time.monotonic() - started
        write_json(_SEEN, {**seen, "seconds": whole, "cpu_seconds": time.process_time()})
    sys.exit(outcome.status)


if __name__ == "__main__":
    sys.exit(main())
