"""How similar and duplicates scale: time, memory, and what exact search would take instead.

    python -m bench.explore [--sizes 5000,10000,20000] [--folder FOLDER]

The catalogue is made up: texts of 110 random words, and the vectors of `bench.scale_search`. Every
eighth product is a near duplicate of the one before it. Nothing is judged, so the evaluation, which
indexes the words of all products as bm25 does, is not part of the time. An ivf-pq index proposes:
2 * sqrt(products) lists, of which 8 are searched, and 48 bytes a vector.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.measure import children_cpu
from bench.memory import watched
from bench.project import surroundings, write_settings
from bench.scale_search import (
    DIMENSION,
    LOCALE,
    PRODUCTS_A_CENTRE,
    Mixture,
    with_index,
    write_manifest,
)
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.faiss import faiss
from pipeline.core.files import sha256_file
from pipeline.core.params import Params
from pipeline.core.params_file import PARAMS_FILE, check_params
from pipeline.core.text_tables import markdown
from pipeline.vectors.lengths import at_unit_length
from pipeline.vectors.manifest import side_of
from pipeline.vectors.shards import ShardWriter

STAGES = ("index", "similar", "duplicates")
PIECE = 16_384
WORDS, WORDS_A_TEXT, EVERY = 50_000, 110, 8
SEARCHED = 1_024
"""Products whose exact search is timed; all would take as many times longer."""

COLUMNS = ("products", *(f"{stage} {what}" for stage in STAGES for what in ("s", "CPU s", "GB")),
           "overlap@20", "groups", "exact search CPU s")  # fmt: skip


def main() -> int:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.explore", description=__doc__)
    parser.add_argument("--sizes", default="5000,10000,20000", help="products, by commas")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            rows.append(measure(Path(folder), size))
            sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write(markdown(COLUMNS, rows, COLUMNS))
    return 0


def measure(folder: Path, products: int) -> list[str]:
    """Return a row of the table."""
    lists = int(2 * products**0.5)
    fast = {"kind": "ivf-pq", "lists": lists, "probes": 8, "subvectors": 48, "bits": 8}
    settings = with_index("fast", {"fast": fast})
    params = check_params(settings, str(PARAMS_FILE))
    with contextlib.chdir(folder):
        write_settings(settings)
        write_clean(params, products)
        write_vectors(params, products)
        stages = [figure for stage in STAGES for figure in run(stage)]
        found = json.loads(layout.similar_report(LOCALE).read_text())
        groups = json.loads(layout.duplicates_report(LOCALE).read_text())["groups"]
        exact = time_exact(products)
    return [
        f"{products:,}", *stages, f"{found['index_overlap@20']:.3f}", f"{groups:,}",
        f"{exact:,.0f}",
    ]  # fmt: skip


def write_clean(params: Params, products: int) -> None:
    """Write clean tables without judgements, some products at a time."""
    clean, fields = layout.clean(LOCALE), len(params.clean.fields)
    clean.folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    words = np.array([f"w{each:x}" for each in rng.integers(16**5, size=WORDS)])
    with pq.ParquetWriter(clean.products, tables.PRODUCTS, **tables.WRITE_OPTIONS) as file:
        for start in range(0, products, PIECE):
            rows = range(start, min(start + PIECE, products))
            drawn = rng.integers(WORDS, size=(len(rows), WORDS_A_TEXT))
            drawn[EVERY - 1 :: EVERY] = drawn[EVERY - 2 : len(rows) - 1 : EVERY]
            drawn[EVERY - 1 :: EVERY, -1] = 0
            texts = [" ".join(each) for each in words[drawn].tolist()]
            ids = [f"B{row:09d}" for row in rows]
            ends = [[len(text)] * fields for text in texts]
            columns = {"product_id": ids, "text": texts, "field_ends": ends}
            file.write_table(pa.table(columns, tables.PRODUCTS))
    query = pa.table({"query_id": [1], "text": ["none"]}, tables.QUERIES)
    tables.write_table(clean.queries, query, tables.QUERIES)
    tables.write_table(clean.judgements, tables.JUDGEMENTS.empty_table(), tables.JUDGEMENTS)


def vectors(products: int) -> Iterator[Matrix]:
    """Yield the vectors of products, `PIECE` at a time."""
    mixture = Mixture(max(1, products // PRODUCTS_A_CENTRE))
    for number, piece in enumerate(mixture.pieces(products, 0)):
        rng = np.random.default_rng([2, number])
        noise = np.asarray(rng.standard_normal(piece.shape, np.float32))
        piece[EVERY - 1 :: EVERY] = piece[EVERY - 2 : len(piece) - 1 : EVERY]
        piece[EVERY - 1 :: EVERY] += 0.1 / DIMENSION**0.5 * noise[EVERY - 1 :: EVERY]
        yield at_unit_length(piece, "made up")


def write_vectors(params: Params, products: int) -> None:
    """Write shards and manifest for the clean tables."""
    folder, clean = layout.embeddings(LOCALE).folder, layout.clean(LOCALE)
    folder.mkdir(parents=True)
    sides: dict[str, Any] = {}
    writer = ShardWriter(folder, "products", products, DIMENSION, params.embed)
    for piece in vectors(products):
        writer.add(piece)
    ids = tables.read_column(clean.products, tables.PRODUCTS, "product_id", "")
    sides["products"] = side_of(ids, sha256_file(clean.products), writer.finish())
    writer = ShardWriter(folder, "queries", 1, DIMENSION, params.embed)
    writer.add(next(vectors(1)))
    ids = tables.read_column(clean.queries, tables.QUERIES, "query_id", "")
    sides["queries"] = side_of(ids, sha256_file(clean.queries), writer.finish())
    write_manifest(layout.embeddings(LOCALE).manifest, params, sides)


def run(stage: str) -> tuple[str, str, str]:
    """Run a stage in a process of its own; return seconds, CPU seconds and private gigabytes.

    Mapped files are the system's to keep or to drop: they do not count as memory.
    """
    command = [sys.executable, "-m", f"pipeline.{stage}", "--locale", LOCALE]
    started, before = time.monotonic(), children_cpu()
    process = subprocess.Popen(command, env=surroundings(Path()))
    with watched(process.pid) as peak:
        status = process.wait()
    if status:
        raise SystemExit(f"bench.explore: {stage} failed. The lines above say why.")
    figures = time.monotonic() - started, children_cpu() - before, peak.private / 1e9
    sys.stderr.write(f"{stage} {figures}\n")
    return f"{figures[0]:.0f}", f"{figures[1]:.0f}", f"{figures[2]:.1f}"


def time_exact(products: int) -> float:
    """Return the CPU seconds of an exact search for all products, by a search for some."""
    flat = faiss.IndexFlatIP(DIMENSION)
    for piece in vectors(products):
        flat.add(piece)
    asked = min(SEARCHED, products)
    own = flat.reconstruct_n(0, asked)
    started = time.process_time()
    flat.search(own, 21)
    return (time.process_time() - started) * products / asked


if __name__ == "__main__":
    sys.exit(main())
