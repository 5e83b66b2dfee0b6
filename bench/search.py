"""Measure the search of this folder's artefacts: start, latency by system, many clients at once.

    python -m bench.search [--locale us] [--queries 100] [--clients 20] [--seconds 60]

With `--made-up`, run in the folder `search` of a project of `bench.scale` that has an index: its
vectors are made up, and queries are encoded all the same.

Prints JSON: seconds until a server answers (the first time the terms are made, so run it twice),
milliseconds of one query by system with its encoding, and what clients got who asked without a
pause: right answers, wrong ones, and refusals (503), with the server's memory before, meanwhile,
and at the end. `killed_start_seconds`: a start after a kill. `cpu`: the milliseconds of all cores
together, to which other work on the machine adds less.
"""

import argparse
import http.client
import json
import random
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import psutil

from bench.project import ROOT, keep_locale, read_settings, write_settings
from bench.scale_search import INDEXES, LOCALE
from pipeline.core import files, layout
from pipeline.core.contract import contract_of
from pipeline.core.params_file import load_params
from pipeline.core.systems import System
from pipeline.encoders.weights import resolve_weights
from pipeline.search.answer import Answer
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.question import Question

SEED = 3
COMPARED = 20
"""How many queries the clients ask; each answer is compared with that to one client alone."""


@dataclass
class Server:
    """A server in a process of its own."""

    locale: str
    process: "subprocess.Popen[str]" = field(init=False)
    port: int = field(init=False)
    seconds: float = field(init=False)
    cpu_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        """Start it, and wait for its first answer."""
        started = time.perf_counter()
        command = [sys.executable, "-m", "pipeline.serve", "--port", "0", "--locale", self.locale]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if line.startswith("http://"):
                self.port = int(line.split()[0].rpartition(":")[2])
                break
        self.get("/healthz")
        self.seconds = round(time.perf_counter() - started, 2)
        used = psutil.Process(self.process.pid).cpu_times()
        self.cpu_seconds = round(used.user + used.system, 2)

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the text of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status == 503 and response.headers["Retry-After"] is None:
                return 0, "a refusal without Retry-After"
            return response.status, response.read().decode()
        finally:
            connection.close()

    def megabytes(self) -> int:
        """Return the memory that is its own: mapped files do not count."""
        held: int = psutil.Process(self.process.pid).memory_full_info().uss
        return held // 10**6

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self.process.kill()
        self.process.communicate()


def take_for_encoded() -> None:
    """Let the made-up vectors of this folder be those of the encoder that us has as shipped."""
    settings = keep_locale(read_settings(ROOT), LOCALE)
    settings["indexes"] |= INDEXES
    settings["index"] = {LOCALE: files.read_json(layout.index(LOCALE).card, "")["index"]}
    write_settings(settings)
    params, path = load_params(), layout.embeddings(LOCALE).manifest
    spec, name = params.encoder_of(LOCALE), params.encoder[LOCALE]
    made = {
        "encoder": name,
        "contract": contract_of(spec),
        "weights_sha256": resolve_weights(spec, name).sha256,
    }
    files.write_json(path, files.read_json(path, "") | made)
    shutil.copy(Path("..") / layout.clean(LOCALE).counts, layout.clean(LOCALE).counts)


def texts_of(engine: Engine, count: int) -> list[str]:
    """Return queries that nobody judged, so that each is encoded: words of judged ones, mixed."""
    drawn = random.Random(SEED)  # noqa: S311
    words = [text.split() for text in engine.judged.rows]
    found: list[str] = []
    while len(found) < count:
        first, second = drawn.choice(words), drawn.choice(words)
        text = " ".join([*first[: 1 + len(first) // 2], *second[len(second) // 2 :]])
        if text not in engine.judged.rows:
            found.append(text)
    return found


def milliseconds(work: Callable[[str], Any], values: list[str]) -> dict[str, float]:
    """Return the p50, the p95 and the mean CPU time of some calls, after one that is left out."""
    work(values[0])
    taken, busy = [], time.process_time()
    for value in values:
        started = time.perf_counter()
        work(value)
        taken.append(1000 * (time.perf_counter() - started))
    busy = 1000 * (time.process_time() - busy) / len(values)
    return {f"p{q}": round(float(np.percentile(taken, q)), 1) for q in (50, 95)} | {
        "cpu": round(busy, 1)
    }


def latencies(engine: Engine, texts: list[str]) -> dict[str, Any]:
    """Return milliseconds by system, filtered by a brand, and of similar products."""

    def search(system: System, text: str) -> Answer:
        return engine.search(Question(text, (system,)))

    found: dict[str, Any] = {
        system: milliseconds(partial(search, system), texts)
        for system in engine.params.systems_of(engine.locale)
    }
    if "brand" in engine.shown.facets:
        brand = {"brand": engine.shown.facets["brand"].shown[0].as_py()}
        found["hybrid, a brand"] = milliseconds(
            lambda text: engine.search(Question(text, ("hybrid",), filters=brand)), texts
        )
    rows = np.random.default_rng(SEED).integers(len(engine.shown.ids), size=len(texts))
    ids = [engine.shown.ids[int(row)].as_py() for row in rows]
    found["similar"] = milliseconds(lambda one: engine.similar(one, 10), ids)
    return found


def crowd(server: Server, texts: list[str], clients: int, seconds: float) -> dict[str, Any]:
    """Let clients ask without a pause, and return what they got."""
    paths = ["/api/search?" + urlencode({"q": text}) for text in texts[:COMPARED]]
    alone = {path: server.get(path) for path in paths}
    assert all(status == 200 for status, _ in alone.values())
    got: Counter[str] = Counter()
    lock, until = threading.Lock(), time.monotonic() + seconds

    def ask(number: int) -> None:
        drawn = random.Random(number)  # noqa: S311
        while time.monotonic() < until:
            path = drawn.choice(paths)
            answer = server.get(path)
            kind = "right" if answer == alone[path] else "refused" if answer[0] == 503 else "wrong"
            with lock:
                got[kind] += 1
            if kind == "refused":
                time.sleep(0.05)

    before, samples = server.megabytes(), []
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        time.sleep(seconds / 10)
        samples.append(server.megabytes())
    for thread in threads:
        thread.join()
    return {
        "clients": clients, "seconds": seconds,
        **{kind: got[kind] for kind in ("right", "wrong", "refused")},
        "megabytes_before": before, "megabytes": samples, "megabytes_after": server.megabytes(),
    }  # fmt: skip


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.search")
    parser.add_argument("--locale", default=next(iter(load_params().locales)))
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--made-up", action="store_true", help="the vectors are of bench.scale")
    arguments = parser.parse_args()
    if arguments.made_up:
        take_for_encoded()
    first = Server(arguments.locale)
    first.kill()
    server = Server(arguments.locale)
    started = time.perf_counter()
    engine = open_engine(arguments.locale)
    opened = time.perf_counter() - started
    engine.warm()
    texts = texts_of(engine, arguments.queries)
    found = {
        "locale": arguments.locale,
        "products": len(engine.shown.ids),
        "index": engine.params.index[arguments.locale],
        "start_seconds": first.seconds,
        "start_cpu_seconds": first.cpu_seconds,
        "killed_start_seconds": server.seconds,
        "open_seconds": round(opened, 2),
        "milliseconds": latencies(engine, texts),
        "at_once": crowd(server, texts, arguments.clients, arguments.seconds),
    }
    server.kill()
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
