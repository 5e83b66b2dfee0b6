"""What indexes find and cost on real vectors, of more products than there are.

    python -m bench.indexes [--locale us] [--index NAME]... [--products 1200000] [--lists 2048]
                            [--noise 0.3]

It takes the clean tables and vectors of this folder. Its products are repeated until there are as
many as asked for; a copy has noise on its vector, of `--noise` times the vector's length, and the
labels of its product. `pipeline.tradeoff` then measures the indexes of `indexes` below, or those
that `--index` names, for the locale's queries: the first 100 products of each. Of 1.2 million
products, an index with lists takes some minutes, and hnsw many.

The figures go to reports/bench/indexes-<products>.json, and as a table to the .md file beside it.
Those of indexes that were not measured now stay there if they are of the same products, settings,
threads, CPU and FAISS.
"""

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench import reports
from bench.measure import Figures
from bench.scale_search import params_with
from pipeline.core import layout, stage, tables
from pipeline.core.arrays import Matrix
from pipeline.core.files import read_json, sha256_file, write_json, write_text
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.tradeoff.command import alone, tradeoff
from pipeline.vectors.manifest import Manifest, SideCut, read_manifest, side_of
from pipeline.vectors.shards import ShardReader, ShardWriter

HEADER = (
    "index", "overlap@10", "overlap@100", "nDCG@10", "bytes a vector", "mapped", "build, s",
    "p50, ms", "p95, ms", "queries/s", "over flat's",
)  # fmt: skip


RESCORE = 10
"""How many times as many products an index of codes finds as are wanted: codes hardly tell the
copies of a product apart."""


def indexes(lists: int) -> dict[str, dict[str, Any]]:
    """Return the entries of `indexes` that are measured; the number behind a name is of probes."""
    probes = [max(1, lists // part) for part in (16, 8)]
    fast = {"kind": "ivf-pq-fastscan", "lists": lists, "subvectors": 192, "rescore": RESCORE}
    return {
        "flat": {"kind": "flat"},
        "sq8": {"kind": "sq8", "rescore": RESCORE},
        "hnsw": {"kind": "hnsw", "m": 32, "ef_construction": 200, "ef_search": 1_000},
        f"ivf-flat-{probes[0]}": {"kind": "ivf-flat", "lists": lists, "probes": probes[0]},
        "rabitq": {"kind": "rabitq", "bits": 2, "rescore": RESCORE},
        "eden": {"kind": "eden", "bits": 2, "rescore": RESCORE},
        "pq-fastscan": {"kind": "pq-fastscan", "subvectors": 192, "rescore": RESCORE},
        **{
            f"ivf-pq-fastscan-{searched}": {**fast, "probes": searched} for searched in probes
        },
        f"ivf-pq-{probes[0]}": {
            "kind": "ivf-pq", "lists": lists, "probes": probes[0], "subvectors": 96,
            "bits": 8, "rescore": RESCORE,
        },
    }  # fmt: skip


def grow(
    params: Params, manifest: Manifest, locale: str, products: int, noise: float, target: Path
) -> None:
    """Write the clean tables and the vectors of a locale to a folder, with more products."""
    source = ShardReader(manifest, "products", locale)
    vectors = source.take(np.arange(manifest.products.rows)).astype(np.float32)
    clean = layout.clean(locale)
    ids = tables.read_column(clean.products, tables.PRODUCTS, "product_id", "Run clean.")
    names = ids.to_pylist()
    copies = -(-products // len(names))
    # Sorted, as a table of products is; the copies of one are beside it.
    every = sorted(
        (name_of(name, copy), row)
        for copy in range(copies)
        for row, name in enumerate(names[: products - copy * len(names)])
    )
    rows = np.array([row for _, row in every])
    is_copy = np.array([len(each) > len(names[row]) for each, row in every])
    fields = len(params.clean.fields)
    grown = pa.table(
        {
            "product_id": [name for name, _ in every], "text": [""] * len(every),
            "field_ends": [[0] * fields] * len(every),
        },
        tables.PRODUCTS,
    )  # fmt: skip
    out = target / clean.folder
    out.mkdir(parents=True)
    tables.write_table(out / clean.products.name, grown, tables.PRODUCTS)
    (out / clean.queries.name).symlink_to(clean.queries.resolve())
    judged = tables.read_table(clean.judgements, tables.JUDGEMENTS, "Run clean.").to_pylist()
    there = {name for name, _ in every}
    labels = [
        {**each, "product_id": name}
        for each in judged
        for name in (name_of(each["product_id"], copy) for copy in range(copies))
        if name in there
    ]
    labels.sort(key=lambda each: (each["query_id"], each["product_id"]))
    grown_labels = pa.Table.from_pylist(labels, tables.JUDGEMENTS)
    tables.write_table(out / clean.judgements.name, grown_labels, tables.JUDGEMENTS)
    folder = target / layout.embeddings(locale).folder
    folder.mkdir(parents=True)
    writer = ShardWriter(folder, "products", len(every), manifest.dimension, params.embed)
    for piece in noisy(vectors, rows, is_copy, noise):
        writer.add(piece)
    for path in layout.embeddings(locale).folder.glob("queries-*.npy"):
        (folder / path.name).symlink_to(path.resolve())
    hashed = sha256_file(out / clean.products.name)
    none = {"texts_cut": 0, "tokens_cut": 0}
    rows_cut = {"texts": len(every), "tokens": len(every), "fields": {"all": none}, **none}
    cut = manifest.truncation.model_copy(update={"products": SideCut.model_validate(rows_cut)})
    side = side_of(grown["product_id"], hashed, writer.finish())
    whole = manifest.model_copy(update={"products": side, "truncation": cut})
    write_json(folder / layout.embeddings(locale).manifest.name, whole.model_dump(mode="json"))


def name_of(product: str, copy: int) -> str:
    """Return the product_id of a copy of a product; copy 0 is the product itself."""
    return product if copy == 0 else f"{product}-{copy:06d}"


def noisy(vectors: Matrix, rows: np.ndarray, is_copy: np.ndarray, noise: float) -> Iterator[Matrix]:
    """Yield vectors by row, those of copies with noise, at the length that they had."""
    for number, at in enumerate(np.array_split(np.arange(len(rows)), -(-len(rows) // 65_536))):
        piece = vectors[rows[at]]
        lengths = np.linalg.norm(piece, axis=1, keepdims=True)
        drawn = np.random.default_rng([1, number]).standard_normal(piece.shape, np.float32)
        drawn *= noise * lengths / np.linalg.norm(drawn, axis=1, keepdims=True)
        piece += drawn * is_copy[at, np.newaxis]
        yield piece * (lengths / np.linalg.norm(piece, axis=1, keepdims=True))


def measure(locale: str, names: list[str], products: int, lists: int, noise: float) -> None:
    """Measure indexes, or all where `names` is empty, and write the report.

    Args:
        locale: whose products are repeated.
        names: of `indexes`.
        products: how many there will be.
        lists: how many inverted lists there are.
        noise: that of `grow`.
    """
    params = load_params()
    stage.check_locale(params, locale)
    manifest = read_manifest(params, locale)
    about = {"real": manifest.products.rows, "dimension": manifest.dimension,
             "lists": lists, "noise": noise, **reports.made_by()}  # fmt: skip
    report = reports.indexes(products).resolve()
    known = read_json(report, "Remove it.") if report.exists() else {"found": None}
    params, path = params_with("flat", indexes(lists)), layout.tradeoff(locale)
    with alone(), tempfile.TemporaryDirectory() as scratch:
        grow(params, manifest, locale, products, noise, Path(scratch))
        with contextlib.chdir(scratch):
            if known["found"]:
                path.parent.mkdir(parents=True)
                write_json(path, known["found"])
            try:
                tradeoff(params, locale, names)
            finally:  # a run that is stopped keeps what it has measured
                found = read_json(path, "") if path.exists() else None
                if found and found != known["found"]:
                    _write(report, about, found, known)


def _write(path: Path, about: Figures, found: Figures, known: Figures) -> None:
    """Write the report: a `TradeOff`, the commit of each of its indexes, and what they are of."""
    before = known["found"]["indexes"] if known["found"] else []
    commits = {
        each["index"]: known["commits"][each["index"]] if each in before else about["commit"]
        for each in found["indexes"]
    }
    report = {key: value for key, value in about.items() if key != "commit"}
    report |= {"found": found, "commits": commits}
    write_json(path, report)
    write_text(path.with_suffix(".md"), describe(report))


def describe(report: Figures) -> str:
    """Return a report as Markdown: what was measured, a table, and of what code it is."""
    found = report["found"]
    real = min(report["real"], found["products"])
    copies = f" and copies with noise of {report['noise']:g} of their length"
    return (
        f"{found['products']:,} products: {real:,} of {found['locale']} "
        f"({found['encoder']}, {report['dimension']} components)"
        f"{copies * (found['products'] > real)}; {found['queries']:,} queries, "
        f"{report['lists']:,} lists, {found['threads']} threads, {found['cpu_model']}, FAISS "
        f"{found['faiss_version']}.\n\n{table(found)}"
        f"{reports.origin(report['commits'].values(), report['machine'])}"
    )


def table(found: Figures) -> str:
    """Return the figures of reports/tradeoff/<locale>.json as a Markdown table."""
    flat = next((each for each in found["indexes"] if each["index"] == "flat"), None)
    rows = [
        [
            each["index"], f"{each['overlap@10']:.4f}", f"{each['overlap@100']:.4f}",
            "-" if each["ndcg@10"] is None else f"{each['ndcg@10']:.4f}",
            f"{each['bytes_per_vector']:.0f}", "yes" if each["mapped"] else "no",
            f"{each['build_seconds']:.1f}",
            f"{each['p50_milliseconds']:.2f}", f"{each['p95_milliseconds']:.2f}",
            f"{each['queries_per_second']:,.0f}",
            f"{each['queries_per_second'] / flat['queries_per_second']:.1f}" if flat else "-",
        ]
        for each in found["indexes"]
    ]  # fmt: skip
    left_out = "".join(f"\n{name}: {why}\n" for name, why in found["left_out"].items())
    return markdown(HEADER, rows, [name for name in HEADER[1:] if name != "mapped"]) + left_out


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.indexes")
    parser.add_argument("--locale", default="us")
    parser.add_argument("--products", type=int, default=1_200_000, help="default: 1200000")
    parser.add_argument("--lists", type=int, default=2_048, help="default: 2048")
    parser.add_argument("--noise", type=float, default=0.3, help="default: 0.3")
    parser.add_argument(
        "--index", action="append", default=[], metavar="NAME",
        help="measure this one and keep the others; may be repeated (default: all)",
    )  # fmt: skip
    options = parser.parse_args()
    known = indexes(options.lists)
    if unknown := set(options.index) - set(known):
        parser.error(f"unknown index: {', '.join(sorted(unknown))} (known: {', '.join(known)})")
    return options


def main() -> int:
    """Measure, write the report, print the table; return the exit status."""
    options = _options()
    with stage.report_errors("bench") as outcome:
        measure(options.locale, options.index, options.products, options.lists, options.noise)
        report = reports.indexes(options.products).with_suffix(".md")
        sys.stdout.write(report.read_text("utf-8"))
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
