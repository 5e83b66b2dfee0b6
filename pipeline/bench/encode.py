"""Encoding, our engines against `SentenceTransformer.encode` with its defaults: `make bench`.

    python -m pipeline.bench.encode [--encoder NAME] [--texts N] [--rounds N] [--no-quality]

Real text: $ESCI_DIR if it is set, else the demo. For each encoder that params.yaml uses, on its
locales' products: how fast and in how much memory each side encodes, how far its vectors are from
the baseline's, and what that costs in nDCG@10. Reading, loading and warming up are not timed;
tokenising is. The figures go to reports/bench/encode.json, the same as a table to encode.md.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import judging, layout, metrics, ranking, stage, tables
from pipeline.bench.side import BASELINE, Role, Side
from pipeline.clean import clean
from pipeline.demo import demo
from pipeline.encoders.engine import Device, choose_engine
from pipeline.encoders.encoder import resolve_engine
from pipeline.encoders.weights import resolve_weights
from pipeline.errors import PipelineError
from pipeline.files import atomic_file, write_json
from pipeline.index import as_searched, build_index
from pipeline.mistakes import did_you_mean
from pipeline.params import FlatIndex, Params, Similarity, load_params
from pipeline.retrieve import search
from pipeline.sample import sample
from pipeline.vectors import Matrix

REPORT = Path("reports/bench/encode.json")
TEXTS = 500
QUERIES = 2_000
WARM_UP_TEXTS = 32
SEED = 5
DEPTH = 10

CPU_SIDES = (
    Side(BASELINE, "cpu"), Side("torch", "cpu"), Side("openvino", "cpu"),
    Side("openvino", "cpu", "int8"),
)  # fmt: skip
CUDA_SIDES = (
    Side(BASELINE, "cuda"), Side("torch", "cuda"), Side("torch", "cuda", "bfloat16"),
    Side("torch", "cuda", "float16"),
)  # fmt: skip

CPU_FLAGS = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"}
LIBRARIES = ("numpy", "openvino", "sentence-transformers", "tokenizers", "torch", "transformers")

Figures = dict[str, Any]
Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Catalogue:
    """The cleaned texts of a locale, and which products are judged for which queries."""

    products: list[str]
    queries: list[str]
    judgements: judging.Judgements


@dataclass
class Measured:
    """What one side did: a value a round, and the vectors of all products that it encoded."""

    products: Matrix
    queries: Matrix | None = None
    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    peak_bytes: int = 0


class Process:
    """A side in its process; loads while others do, answers one request at a time."""

    def __init__(self, name: str, side: Side, folder: Path) -> None:
        """Start it; it writes vectors to `folder`."""
        self._file = folder / f"{name} {side}.npy"
        self._what = f"{name} on {side}"
        # What limits threads would limit the baseline alone.
        limits = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pipeline.bench.side", name, *astuple(side)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={key: value for key, value in os.environ.items() if key not in limits},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def encode(self, texts: Sequence[str], role: Role) -> tuple[Matrix, Figures]:
        """Return the vectors of texts, and the seconds and peak_bytes."""
        answer = self._ask({"role": role, "texts": texts, "file": str(self._file)})
        return np.load(self._file, allow_pickle=False), answer

    def count(self, texts: Sequence[str], role: Role) -> int:
        """Return how many tokens the side reads of the texts."""
        tokens: int = self._ask({"role": role, "texts": texts})["tokens"]
        return tokens

    def _ask(self, request: Figures) -> Figures:
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise PipelineError(
                f"{self._what} ended with status {self._process.wait()} and no answer; see above"
            )
        answer: Figures = json.loads(line)
        return answer


def read_catalogues(params: Params, queries: int, scratch: Path) -> dict[str, Catalogue]:
    """Sample and clean $ESCI_DIR, or the demo, in a scratch folder; return it by locale.

    Args:
        params: what is to be read, but for the source and the sample.
        queries: at most how many queries a locale, with all products judged for them, and how many
            products beside those.
        scratch: an empty folder.
    """
    given = os.environ.get("ESCI_DIR") or (layout.DEMO if layout.DEMO.exists() else None)
    source = Path(given).resolve() if given else layout.DEMO
    drawn = {
        "source": str(source), "version": "all", "splits": ("train", "test"),
        "queries": queries, "distractors": queries,
    }  # fmt: skip
    params = params.model_copy(update={"sample": params.sample.model_copy(update=drawn)})
    catalogues = {}
    with contextlib.chdir(scratch):
        if given is None:
            demo(params)
        sample(params)
        for locale in params.locales:
            clean(params, locale)
            catalogues[locale] = read_catalogue(locale)
    return catalogues


def read_catalogue(locale: str) -> Catalogue:
    """Read a locale's cleaned tables."""
    folder, remedy = layout.clean(locale), f"run `dvc repro clean@{locale}`"
    path = folder / "judgements.parquet"
    products = tables.read_table(folder / "products.parquet", tables.PRODUCTS, remedy)
    queries = tables.read_table(folder / "queries.parquet", tables.QUERIES, remedy)
    judged = tables.read_table(path, tables.JUDGEMENTS, remedy)
    # A judged product without text can't be found; its code lies behind those of all others.
    known = [*products["product_id"].to_pylist(), *judged["product_id"].to_pylist()]
    columns = (
        (queries["query_id"], "query_id"),
        (pa.chunked_array([known]), "product_id"),
        (pa.chunked_array([tables.LABELS]), "label"),
    )
    rows, codes, labels = (
        tables.rows_of(values, judged[column], path, remedy) for values, column in columns
    )
    judgements = judging.Judgements.from_pairs(rows, codes, labels, len(queries))
    return Catalogue(products["text"].to_pylist(), queries["text"].to_pylist(), judgements)


def ndcg(
    judgements: judging.Judgements, products: Matrix, queries: Matrix, similarity: Similarity
) -> float:
    """Return the nDCG@10 of exact search."""
    index = build_index(FlatIndex(kind="flat"), products.shape[1], similarity, [products])
    _, found = search(index, as_searched(queries, similarity, "queries"), DEPTH)
    rows, places = np.nonzero(found != ranking.NO_PRODUCT)
    run = judging.judge(rows, found[rows, places], judgements)
    return metrics.means({"ndcg": metrics.ndcg(run, DEPTH)})["ndcg"]


def shares(total: int, size: int, rounds: int) -> list[Rows]:
    """Return which rows each round takes: the next `size` of a seeded order that begins again."""
    order = np.random.default_rng(SEED).permutation(total)
    return [
        order.take(np.arange(start, start + size), mode="wrap")
        for start in range(0, rounds * size, size)
    ]


def measure(
    processes: Mapping[Side, Process], texts: Sequence[str], rounds: Sequence[Rows]
) -> dict[Side, Measured]:
    """Have every side encode the same texts in each round; every other round in reverse order."""
    measured = {}
    for side, process in processes.items():
        vectors, _ = process.encode(texts[:WARM_UP_TEXTS], "passage")
        measured[side] = Measured(np.full((len(texts), vectors.shape[1]), np.nan, np.float32))
    for number, rows in enumerate(rounds):
        part = [texts[row] for row in rows]
        for side in list(processes)[:: -1 if number % 2 else 1]:
            one = measured[side]
            one.products[rows], answer = processes[side].encode(part, "passage")
            one.seconds.append(answer["seconds"])
            one.peak_bytes = answer["peak_bytes"]
            rate = len(part) / answer["seconds"]
            stage.log.info("round %d of %d: %s: %.1f texts/s", number + 1, len(rounds), side, rate)
    for side, process in processes.items():
        for rows in rounds:
            measured[side].tokens.append(process.count([texts[row] for row in rows], "passage"))
    return measured


def complete(
    processes: Mapping[Side, Process],
    measured: Mapping[Side, Measured],
    products: Sequence[str],
    queries: Sequence[str],
) -> None:
    """Have every side encode the products that no round took, and the queries."""
    for side, process in processes.items():
        stage.log.info("for nDCG: %s", side)
        one = measured[side]
        rest = np.flatnonzero(np.isnan(one.products[:, 0]))
        if rest.size:
            one.products[rest], _ = process.encode([products[row] for row in rest], "passage")
        one.queries, _ = process.encode(queries, "query")


def figures(one: Measured, base: Measured, texts: int) -> Figures:
    """Return a side's figures beside its baseline's; `texts` were encoded in each round."""
    ratios = [ours / own for ours, own in zip(base.seconds, one.seconds, strict=True)]
    rates = [tokens / seconds for tokens, seconds in zip(one.tokens, one.seconds, strict=True)]
    there = ~np.isnan(base.products[:, 0])
    return {
        "cosine_distance": float(f"{_distance(one.products[there], base.products[there]):.2g}"),
        "peak_megabytes": round(one.peak_bytes / 1e6),
        "ratio": {
            "max": round(max(ratios), 2),
            "median": round(median(ratios), 2),
            "min": round(min(ratios), 2),
        },
        "texts_per_second": round(median(texts / seconds for seconds in one.seconds), 1),
        "tokens": sum(one.tokens),
        "tokens_per_second": round(median(rates)),
    }


def _distance(left: Matrix, right: Matrix) -> float:
    """Return the largest cosine distance of two rows with the same number."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    # Half the squared distance, which unlike 1 - cosine loses no digits between near vectors.
    return float(np.square(a - b).sum(axis=1).max() / 2)


def qualities(
    one: Measured, base: Figures | None, catalogues: Mapping[str, Catalogue], similarity: Similarity
) -> Figures:
    """Return a side's nDCG@10 by locale, and how far it is from its baseline's figures."""
    assert one.queries is not None
    found, product, query = {}, 0, 0
    for locale, each in catalogues.items():
        products = one.products[product : (product := product + len(each.products))]
        queries = one.queries[query : (query := query + len(each.queries))]
        found[locale] = ndcg(each.judgements, products, queries, similarity)
    reference = base["ndcg@10"] if base else found
    lost = {locale: round(value - reference[locale], 5) for locale, value in found.items()}
    return {"ndcg@10": found, "ndcg@10_difference": lost}


def compare(
    params: Params, name: str, catalogues: Mapping[str, Catalogue], options: argparse.Namespace
) -> Figures:
    """Measure all sides of an encoder on the catalogues of its locales."""
    spec = params.encoders[name]
    products = [text for each in catalogues.values() for text in each.products]
    queries = [text for each in catalogues.values() for text in each.queries]
    size = min(options.texts or len(products), len(products))
    stage.log.info("%s: %d of %d products a round", name, size, len(products))
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = {
            side: stack.enter_context(Process(name, side, folder)) for side in _sides(params, name)
        }
        measured = measure(processes, products, shares(len(products), size, options.rounds))
        if options.quality:
            complete(processes, measured, products, queries)
    by_side: dict[str, Figures] = {}
    for side, one in measured.items():
        base = Side(BASELINE, side.device)
        found = figures(one, measured[base], size)
        if options.quality:
            found |= qualities(one, by_side.get(str(base)), catalogues, spec.similarity)
        by_side[str(side)] = found
    return {
        "locales": list(catalogues),
        "max_tokens": spec.max_tokens,
        "rounds": options.rounds,
        "sides": by_side,
        "texts_a_round": size,
    }


def _sides(params: Params, name: str) -> list[Side]:
    """Return the sides that this machine and the model allow; converts the model if need be."""
    weights = resolve_weights(params.encoders[name], name)
    sides = []
    for side in CPU_SIDES + (CUDA_SIDES if _device(params, name) == "cuda" else ()):
        try:
            if side.engine != BASELINE:
                resolve_engine(side.spec(params, name), weights, side.runtime(params))
        except PipelineError as err:
            stage.log.warning("warning: %s on %s is left out: %s", name, side, err)
        else:
            sides.append(side)
    return sides


def _device(params: Params, name: str) -> Device:
    side = Side("torch", "cpu")
    runtime = side.runtime(params).model_copy(update={"device": "auto"})
    return choose_engine(side.spec(params, name), runtime).device


def machine(params: Params) -> Figures:
    """Return what of this machine decides speed."""
    told = Path("/proc/cpuinfo")
    words = set(re.findall(r"\w+", told.read_text())) if told.exists() else set()
    return {
        "cores": params.runtime.model_copy(update={"threads": 0}).thread_count(),
        "cpu": platform.machine(),
        "cpu_flags": sorted(words & CPU_FLAGS),
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": platform.python_version(),
    }


def table(encoders: Mapping[str, Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| encoder | side | texts/s | tokens/s | × baseline [min, max] | cosine distance "
        "| nDCG@10 | peak MB |",
        "|---|---|--:|--:|--:|--:|---|--:|",
    ]
    for name, encoder in encoders.items():
        for side, found in encoder["sides"].items():
            ratio = found["ratio"]
            cells = (
                name, side, found["texts_per_second"], found["tokens_per_second"],
                f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]",
                found["cosine_distance"], _told(found), found["peak_megabytes"],
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _told(found: Figures) -> str:
    values, lost = found.get("ndcg@10", {}), found.get("ndcg@10_difference", {})
    return ", ".join(f"{locale} {values[locale]:.4f} ({lost[locale]:+.4f})" for locale in values)


def _chosen(params: Params, asked: str | None) -> Iterable[str]:
    used = dict.fromkeys(params.encoder.values())
    if asked is not None and asked not in used:
        raise PipelineError(
            f"--encoder {asked}: no locale uses it; params.yaml has {', '.join(used)} under "
            f"encoder{did_you_mean(asked, used)}"
        )
    return used if asked is None else (asked,)


def _options() -> argparse.Namespace:
    def at_least(least: int) -> Any:
        def number(text: str) -> int:
            if int(text) < least:
                raise ValueError
            return int(text)

        return number

    parser = argparse.ArgumentParser(prog="python -m pipeline.bench.encode")
    parser.add_argument("--encoder", help="one that params.yaml uses; all of those if left out")
    parser.add_argument("--rounds", type=at_least(1), default=3, help="default: 3")
    parser.add_argument(
        "--texts", type=at_least(0), default=TEXTS,
        help=f"products that a side encodes in each round, other ones while they last; 0: all; "
        f"default: {TEXTS}",
    )  # fmt: skip
    parser.add_argument(
        "--queries", type=at_least(1), default=QUERIES,
        help="a locale's queries, with all products judged for them and as many others; default: "
        f"{QUERIES} (with the whole of ESCI, 100 take about as long as its excerpts)",
    )  # fmt: skip
    parser.add_argument(
        "--no-quality", dest="quality", action="store_false",
        help="no nDCG: encodes nothing but the timed texts",
    )  # fmt: skip
    return parser.parse_args()


def main() -> int:
    """Measure, print the table, write the report; return the exit status."""
    options = _options()
    with stage.told_to_the_user("bench") as outcome:
        params = load_params()
        names = _chosen(params, options.encoder)
        with TemporaryDirectory() as scratch:
            catalogues = read_catalogues(params, options.queries, Path(scratch))
        encoders = {}
        for name in names:
            own = {
                locale: catalogues[locale]
                for locale in catalogues
                if params.encoder[locale] == name
            }
            encoders[name] = compare(params, name, own, options)
        write_json(REPORT, {"encoders": encoders, "machine": machine(params)})
        shown = table(encoders)
        with atomic_file(REPORT.with_suffix(".md")) as partial:
            partial.write_text(shown, encoding="utf-8")
        sys.stdout.write(shown)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
