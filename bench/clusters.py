"""How clusters scales: the time of its parts and its memory, by the number of products.

    python -m bench.clusters [--sizes 10000,100000,1200000] [--folder FOLDER]
    python -m bench.clusters --demo

The second compares the clusters of the demo with its products' true types, which no stage knows.

Vectors are those of `bench.scale_search`, in 32-bit floats on disk; titles are 15 of 50,000 random
words, rare ones and frequent ones as in a language. Each size has a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import cast

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score, v_measure_score

from bench.memory import watched
from bench.scale_search import DIMENSION, PRODUCTS_A_CENTRE, Mixture
from pipeline.catalogue.colours import cluster_colours
from pipeline.catalogue.raster import Frame, draw_raster
from pipeline.clusters.counts import Counter
from pipeline.clusters.directions import Directions
from pipeline.clusters.kmeans import (
    Clustering,
    cluster_products,
    default_clusters,
    default_leaf_size,
)
from pipeline.clusters.map import draw_map
from pipeline.clusters.names import common_terms, name_groups
from pipeline.clusters.surfaces import surfaces_for
from pipeline.core import layout, tables
from pipeline.core.arrays import Ints, Matrix
from pipeline.core.cpu import core_count
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.demo.marketplace import load_wording
from pipeline.demo.tables import draw_products
from pipeline.vectors.manifest import read_manifest
from pipeline.vectors.shards import ShardReader

SEED = 17
WORDS, WORDS_A_TITLE, TITLES_AT_ONCE = 50_000, 15, 16_384
PARTS = ("k-means", "names", "map", "picture")
AGREEMENT = ("locale", "types", "clusters AMI", "V", "leaves AMI", "V ")
COLUMNS = ("products", "clusters", "leaves", *(f"{part} s" for part in PARTS), "CPU s", "peak GB")


class MadeUp:
    """Vectors on disk that are read as those of a `ShardReader`."""

    def __init__(self, path: Path, rows: int) -> None:
        """Open the file."""
        self.rows = rows
        self._vectors = np.memmap(path, np.float32, "r", shape=(rows, DIMENSION))

    def check(self) -> None:
        """Check nothing: the file was written just now."""

    def take(self, rows: Ints) -> Matrix:
        """Return some rows."""
        return np.asarray(self._vectors[rows])


def main() -> int:
    """Measure each size, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m bench.clusters", description=__doc__)
    parser.add_argument("--sizes", default="10000,100000", help="products, by commas")
    parser.add_argument("--folder", type=Path, help="where to work; by default a temporary one")
    parser.add_argument("--demo", action="store_true", help="compare with the demo's true types")
    parser.add_argument("--one", nargs=2, metavar=("FILE", "ROWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        sys.stdout.write(json.dumps(measure(Path(given.one[0]), int(given.one[1]))))
        return 0
    if given.demo:
        params = load_params()
        demo = [agree_with_types(params, locale) for locale in params.locales]
        sys.stdout.write(markdown(AGREEMENT, demo, AGREEMENT[1:]))
        return 0
    if given.folder:
        given.folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for size in map(int, given.sizes.split(",")):
        with tempfile.TemporaryDirectory(dir=given.folder) as folder:
            rows.append(run(Path(folder) / "vectors.f32", size))
            sys.stderr.write(f"{rows[-1]}\n")
    sys.stdout.write(markdown(COLUMNS, rows, COLUMNS))
    return 0


def agree_with_types(params: Params, locale: str) -> list[str]:
    """Return how clusters and leaves of the demo agree with the types: AMI, V-measure."""
    vectors = Directions(ShardReader(read_manifest(params, locale), "products", locale))
    wanted, leaf_size = default_clusters(vectors.rows), default_leaf_size(vectors.rows)
    found = cluster_products(vectors, wanted, leaf_size, params.clusters.seed, core_count())
    drawn = draw_products(load_wording(locale), locale, params.demo)
    type_of = {product.product_id: product.type for product in drawn}
    clean, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    ids = tables.read_column(clean, tables.PRODUCTS, "product_id", remedy).to_pylist()
    types = [type_of[each] for each in ids]
    figures = [
        f"{agreement(types, groups):.3f}"
        for groups in (found.cluster, found.leaf)
        for agreement in (adjusted_mutual_info_score, v_measure_score)
    ]
    return [locale, f"{len(set(types))}", *figures]


def run(path: Path, products: int) -> list[str]:
    """Return a row of the table: write the vectors, then measure in another process."""
    with path.open("wb") as file:
        for piece in Mixture(max(1, products // PRODUCTS_A_CENTRE)).pieces(products, 0):
            file.write(piece.data)
    command = [sys.executable, "-m", "bench.clusters", "--one", str(path), str(products)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with watched(process.pid) as peak:
        out, _ = process.communicate()
    found = json.loads(out)
    seconds = [f"{found[part]:.1f}" for part in PARTS]
    counts = [f"{found[name]:,}" for name in ("products", "clusters", "leaves")]
    # What is mapped is the system's to keep or to drop.
    return [*counts, *seconds, f"{found['cpu']:.0f}", f"{peak.private / 1e9:.2f}"]


def measure(path: Path, products: int) -> dict[str, float]:
    """Return what each part took, in seconds, all CPU seconds, and how many groups there are."""
    seconds: dict[str, float] = {}
    started = time.monotonic()

    def done(part: str) -> None:
        nonlocal started
        seconds[part] = time.monotonic() - started
        started = time.monotonic()

    vectors = Directions(cast(ShardReader, MadeUp(path, products)))
    wanted, leaf_size = default_clusters(products), default_leaf_size(products)
    found = cluster_products(vectors, wanted, leaf_size, SEED, core_count())
    done("k-means")
    name(found)
    done("names")
    places, _ = draw_map(vectors, SEED, core_count())
    done("map")
    colours = cluster_colours(found.clusters)
    draw_raster(places, found.cluster, colours, Frame.around(places))
    done("picture")
    return {
        "products": products, "clusters": found.clusters, "leaves": found.leaves, **seconds,
        "cpu": time.process_time(),
    }  # fmt: skip


def name(found: Clustering) -> None:
    """Name the groups of made-up titles."""
    rng = np.random.default_rng(SEED)
    words = np.array([f"w{''.join(chr(97 + int(sign)) for sign in str(i))}" for i in range(WORDS)])
    counter = Counter(surfaces_for("en"))
    for start in range(0, len(found.leaf), TITLES_AT_ONCE):
        groups = found.leaf[start : start + TITLES_AT_ONCE]
        drawn = (WORDS ** rng.random((len(groups), WORDS_A_TITLE))).astype(int) - 1
        titles = [" ".join(each) for each in words[drawn].tolist()]
        counter.add(titles, [""] * len(titles), groups)
    leaves, terms = counter.finish()
    left_out = common_terms(leaves.within(found.cluster_of_leaf), np.bincount(found.cluster))
    for level in (found.cluster_of_leaf, np.arange(found.leaves)):
        name_groups(leaves, terms, found.leaf, level, found.centroids, left_out)


if __name__ == "__main__":
    sys.exit(main())
