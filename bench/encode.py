"""Our engines against `SentenceTransformer.encode` with its defaults, in one run, on real text.

    python -m bench.encode [--encoder NAME] [--texts N] [--rounds N] [--no-quality]

The text is that of $ESCI_DIR, else of the demo. For each encoder that params.yaml uses, on the
products of its locales: how fast and in how much memory each side encodes, how far its vectors are
from the baseline's, and what that does to nDCG@10. Tokenising is timed; loading and a small warm-up
are not. In the same run the machine's own peak is measured, before the rounds and after, and each
side's share of it; see `peak`. The figures go to reports/bench/encode.json, as tables to encode.md.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bench import reports
from bench.measure import Figures
from bench.peak import operations, peak_gflops, precisions
from bench.quality import Catalogue, ndcg, read_catalogues
from bench.side import BASELINE, Side
from pipeline.core import layout, stage
from pipeline.core.arrays import Matrix
from pipeline.core.cpu import bfloat16_instructions, cpu_flags, cpu_model
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json, write_text
from pipeline.core.log import log
from pipeline.core.params import Params, Similarity
from pipeline.core.params_file import load_params
from pipeline.encoders.encoder import Role
from pipeline.encoders.engine import Device, choose_engine
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.openvino_model import converted_model
from pipeline.encoders.tokens import Tokenizer
from pipeline.encoders.weights import resolve_weights

WARM_UP_TEXTS = 32
SEED = 5

SIDES: dict[Device, tuple[Side, ...]] = {
    "cpu": (
        Side(BASELINE, "cpu"), Side("torch", "cpu"), Side("openvino", "cpu"),
        *((Side("openvino", "cpu", "bfloat16"),) if bfloat16_instructions() else ()),
        Side("openvino", "cpu", "int8"),
    ),
    "cuda": (
        Side(BASELINE, "cuda"), Side("torch", "cuda"), Side("torch", "cuda", "bfloat16"),
        Side("torch", "cuda", "float16"),
    ),
}  # fmt: skip
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
LIBRARIES = ("openvino", "sentence-transformers", "tokenizers", "torch", "transformers")

Rows = NDArray[np.int64]


@dataclass
class Measured:
    """What a side did: seconds of each round, vectors (NaN where none yet), memory at the end."""

    products: Matrix
    seconds: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    ndcg: dict[str, float] = field(default_factory=dict)


class Process:
    """A side in its own process; several load at once, each answers one request at a time."""

    def __init__(self, name: str, side: Side, folder: Path) -> None:
        """Start it; vectors come through a file in `folder`."""
        self._what = f"{name} on {side}"
        self._file = folder / f"{self._what}.npy"
        # Whatever limits threads would limit the baseline alone.
        limits = {"OMP_NUM_THREADS", "MKL_NUM_THREADS"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.side", name, *astuple(side)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={key: value for key, value in os.environ.items() if key not in limits},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def encode(self, texts: Sequence[str], role: Role) -> tuple[Matrix, Figures]:
        """Return the vectors of texts, and `seconds` and `peak_bytes`."""
        assert self._process.stdin
        assert self._process.stdout
        request = {"role": role, "texts": texts, "file": str(self._file)}
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            status = self._process.wait()
            raise PipelineError(f"{self._what} ended with status {status}; it says why above")
        return np.load(self._file, allow_pickle=False), json.loads(answer)


def shares(total: int, size: int, rounds: int) -> list[Rows]:
    """Return the rows of each round: the next `size` in a seeded order that begins again."""
    order = np.random.default_rng(SEED).permutation(total)
    return [
        order.take(np.arange(number * size, (number + 1) * size), mode="wrap")
        for number in range(rounds)
    ]


def compare(
    params: Params, name: str, catalogues: Mapping[str, Catalogue], options: argparse.Namespace
) -> Figures:
    """Measure all sides of an encoder on the catalogues of its locales.

    In each round every side encodes the same texts; their order turns around after each.
    """
    spec = params.encoders[name]
    texts = [text for each in catalogues.values() for text in each.products]
    size = min(options.texts or len(texts), len(texts))
    rounds = shares(len(texts), size, options.rounds)
    sides, lengths, needed = _prepare(params, name, texts)
    measured: dict[Side, Measured] = {}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        processes = {side: stack.enter_context(Process(name, side, folder)) for side in sides}
        for side, process in processes.items():
            vectors, _ = process.encode(texts[:WARM_UP_TEXTS], "passage")
            measured[side] = Measured(np.full((len(texts), vectors.shape[1]), np.nan, np.float32))
        for number, rows in enumerate(rounds):
            part = [texts[row] for row in rows]
            for side in sides[:: -1 if number % 2 else 1]:
                one = measured[side]
                one.products[rows], took = processes[side].encode(part, "passage")
                one.seconds.append(took["seconds"])
                one.peak_bytes = took["peak_bytes"]
                log.info("%s round %d: %s %.1f s", name, number + 1, side, one.seconds[-1])
        for side in sides if options.quality else ():
            _add_quality(measured[side], processes[side], texts, catalogues, spec.similarity)
            log.info("%s nDCG@10: %s %s", name, side, measured[side].ndcg)
    tokens = [int(lengths[rows].sum()) for rows in rounds]
    work = [needed(lengths[rows]) for rows in rounds]
    return {
        "operations": work,
        "locales": list(catalogues),
        "max_tokens": spec.max_tokens,
        "sides": {
            str(side): figures(one, measured[Side(BASELINE, side.device)], size, tokens)
            for side, one in measured.items()
        },
        "texts": size,
        "tokens": tokens,
    }


def _prepare(
    params: Params, name: str, texts: Sequence[str]
) -> tuple[list[Side], Rows, Callable[[Rows], float]]:
    """Return the sides, the texts' lengths in tokens, and what counts the operations of lengths.

    Models are converted first.
    """
    weights = resolve_weights(params.encoders[name], name)
    reference = SIDES["cpu"][1]
    spec, runtime = reference.spec(params, name), reference.runtime(params)
    auto = choose_engine(spec, runtime.model_copy(update={"device": "auto"})).device
    sides = [*SIDES["cpu"], *(SIDES["cuda"] if auto == "cuda" else ())]
    for side in sides:
        if side.engine != BASELINE:
            resolve_engine(side.spec(params, name), weights, side.runtime(params))
    converted = converted_model(spec, weights)
    where = f"encoders.{name}"
    tokenizer = Tokenizer(converted.tokenizer(), spec.passage_prefix, spec.max_tokens, where)
    lengths = np.array([len(text.ids) for text in tokenizer(texts)])
    return (
        sides,
        lengths,
        operations(converted.folder / "model.xml", transformer_folder(weights.folder)),
    )


def _add_quality(
    one: Measured,
    process: Process,
    texts: Sequence[str],
    catalogues: Mapping[str, Catalogue],
    similarity: Similarity,
) -> None:
    """Encode the products that no round took, and the queries; add the nDCG of each locale."""
    rest = np.flatnonzero(np.isnan(one.products[:, 0])).tolist()
    if rest:
        one.products[rest], _ = process.encode([texts[row] for row in rest], "passage")
    start = 0
    for locale, each in catalogues.items():
        products = one.products[start : (start := start + len(each.products))]
        queries, _ = process.encode(each.queries, "query")
        one.ndcg[locale] = ndcg(each.judgements, products, queries, similarity)


def figures(one: Measured, base: Measured, texts: int, tokens: Sequence[int]) -> Figures:
    """Return a side's figures beside its baseline's.

    Args:
        one: the side.
        base: the baseline, on the same device.
        texts: how many were encoded in each round.
        tokens: how many those had.
    """
    ratios = [theirs / ours for theirs, ours in zip(base.seconds, one.seconds, strict=True)]
    spread = {"max": max(ratios), "median": median(ratios), "min": min(ratios)}
    rates = [count / seconds for count, seconds in zip(tokens, one.seconds, strict=True)]
    found = {
        "cosine_distance": float(f"{cosine_distance(one.products, base.products):.2g}"),
        "peak_megabytes": round(one.peak_bytes / 1e6),
        "seconds": one.seconds,
        "ratio": {key: round(value, 2) for key, value in spread.items()},
        "texts_per_second": round(median(texts / seconds for seconds in one.seconds), 1),
        "tokens_per_second": round(median(rates)),
    }
    if one.ndcg:
        lost = {locale: round(value - base.ndcg[locale], 5) for locale, value in one.ndcg.items()}
        found |= {"ndcg@10": one.ndcg, "ndcg@10_difference": lost}
    return found


def cosine_distance(left: Matrix, right: Matrix) -> float:
    """Return the largest cosine distance of two rows in one place; rows of NaN are left out."""
    a, b = left.astype(np.float64), right.astype(np.float64)
    a /= np.linalg.norm(a, axis=1, keepdims=True)
    b /= np.linalg.norm(b, axis=1, keepdims=True)
    # Half the squared distance, which unlike 1 - cosine loses no digits where vectors are near.
    return float(np.nanmax(np.square(a - b).sum(axis=1)) / 2)


def add_shares(encoders: Mapping[str, Figures], peaks: Mapping[str, Figures]) -> None:
    """Add to each CPU side the share of the peak of its precision; the median of the rounds."""
    for encoder in encoders.values():
        for name, found in encoder["sides"].items():
            _, device, precision = name.split(" ")
            seconds = found.pop("seconds")
            if device == "cpu":
                most = peaks[precision]["all_threads"] * 1e9
                rates = zip(encoder["operations"], seconds, strict=True)
                found["share_of_peak"] = round(median(all_ / s / most for all_, s in rates), 2)


def about(machine: Figures, peaks: Mapping[str, Figures]) -> str:
    """Return a sentence on the machine and its peaks, before the table."""
    flags = ", ".join(f"`{flag}`" for flag in machine["cpu_flags"])
    most = ", ".join(
        f"{precision} {found['all_threads']:,} ({found['one_thread']:,} on one thread)"
        for precision, found in peaks.items()
    )
    return (
        f"{machine['cpu_model']}, {machine['cores']} cores, with {flags}. Its peak in 1e9 "
        f"operations a second: {most}.\n\n"
    )


def table(encoders: Mapping[str, Figures]) -> str:
    """Return the figures as a Markdown table."""
    lines = [
        "| encoder | side | texts/s | tokens/s | × baseline [least, most] | share of peak "
        "| cosine distance | nDCG@10 (beside baseline) | peak MB |",
        "|---|---|--:|--:|--:|--:|--:|---|--:|",
    ]
    for name, encoder in encoders.items():
        for side, found in encoder["sides"].items():
            ratio, lost = found["ratio"], found.get("ndcg@10_difference", {})
            cells = (
                name, side, found["texts_per_second"], f"{found['tokens_per_second']:,}",
                f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]",
                f"{found['share_of_peak']:.0%}" if "share_of_peak" in found else "",
                found["cosine_distance"],
                ", ".join(f"{at} {found['ndcg@10'][at]:.4f} ({lost[at]:+.4f})" for at in lost),
                f"{found['peak_megabytes']:,}",
            )  # fmt: skip
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _peaks(params: Params) -> dict[str, Figures]:
    threads = params.runtime.model_copy(update={"threads": 0}).thread_count()
    return {
        precision: {
            "all_threads": round(peak_gflops(precision, threads)),
            "one_thread": round(peak_gflops(precision, 1)),
        }
        for precision in (*precisions(), "int8")
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.encode")
    for name, default, about in (
        ("encoder", None, "an encoder that params.yaml uses (default: all of them)"),
        ("rounds", 3, "how many rounds (default: 3)"),
        ("texts", 500, "products per round, new ones while they last; 0: all (default: 500)"),
        (
            "queries",
            2000,
            "queries per locale, and products besides the judged ones (default: 2000)",
        ),
    ):
        kind = str if default is None else int
        parser.add_argument(f"--{name}", default=default, type=kind, help=about)
    parser.add_argument(
        "--no-quality", dest="quality", action="store_false",
        help="skip nDCG: encode only the products of the rounds",
    )  # fmt: skip
    options = parser.parse_args()
    if options.rounds < 1 or options.queries < 1 or options.texts < 0:
        parser.error("--rounds and --queries must be at least 1, --texts at least 0")
    return options


def main() -> int:
    """Measure, write the report, print the table; return the exit status."""
    options = _options()
    with stage.report_errors("bench") as outcome:
        params = load_params()
        made = reports.made_by(LIBRARIES)
        used = set(params.encoder.values())
        if options.encoder not in {None, *used}:
            raise PipelineError(
                f"--encoder {options.encoder}: no locale uses it. Name one that encoder in "
                f"params.yaml has: {', '.join(sorted(used))}."
            )
        with TemporaryDirectory() as scratch:
            catalogues = read_catalogues(params, options.queries, Path(scratch))
        encoders, before = {}, _peaks(params)
        for name in sorted(used if options.encoder is None else {options.encoder}):
            own = {key: each for key, each in catalogues.items() if params.encoder[key] == name}
            encoders[name] = compare(params, name, own, options)
        peaks = {
            precision: {key: max(value, before[precision][key]) for key, value in found.items()}
            for precision, found in _peaks(params).items()
        }
        add_shares(encoders, peaks)
        here = made["machine"] | {"cpu_model": cpu_model()}
        here["cpu_flags"] = sorted(cpu_flags() & (reports.CPU_FLAGS | BFLOAT16_FLAGS))
        report = {
            "commit": made["commit"],
            "encoders": encoders,
            "machine": here,
            "peak_gflops": peaks,
            "source": "ESCI_DIR" if os.environ.get("ESCI_DIR") else "demo",
        }
        write_json(layout.ENCODE_BENCH, report)
        text = about(here, peaks) + table(encoders) + reports.origin([made["commit"]], here)
        write_text(layout.ENCODE_BENCH.with_suffix(".md"), text)
        sys.stdout.write(text)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
