"""How fast an encoder's converted model computes by size of batch and use of the cores.

    python -m bench.batches

The model alone is measured, on made-up tokens: no tokenising, nothing filled up. Sides alternate in
short rounds. The report says what share of the machine's peak, measured in the same run, each
reaches. `encoders.batching.CPU_BATCH_TOKENS` rests on it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import numpy as np

from bench import reports
from bench.peak import operations, peak_gflops, precisions
from pipeline.core import stage
from pipeline.core.arrays import Ints
from pipeline.core.files import write_text
from pipeline.core.params import Encoder, Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.core.trained import Precision
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.openvino_engine import compile_graph, infer
from pipeline.encoders.openvino_model import converted_model
from pipeline.encoders.weights import resolve_weights

LENGTHS = (64, 128, 192, 256, 256)
"""Tokens per text, one batch of each in turn."""

SIZES = (512, 1024, 2048)
SECONDS = 0.8
HEADER = ("encoder", "precision", "cores", "tokens per batch", "tokens/s", "least", "most", "peak")


@dataclass
class Side:
    """One way to compute, and the tokens a second of each round."""

    encoder: str
    precision: Precision
    together: bool
    size: int
    compiled: Any
    requests: int
    rates: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Compute for `SECONDS`, and keep the rate."""
        given = [self._batch(length) for length in LENGTHS]
        own = [self.compiled.create_infer_request() for _ in range(self.requests)]

        def compute(request: Any) -> int:
            done = 0
            while time.perf_counter() < until:
                for ids in given:
                    infer(request, ids, np.ones_like(ids))
                    done += ids.size
            return done

        for request in own:
            infer(request, given[0], np.ones_like(given[0]))
        with ThreadPoolExecutor(self.requests) as pool:
            started = time.perf_counter()
            until = started + SECONDS
            done = sum(pool.map(compute, own))
            self.rates.append(done / (time.perf_counter() - started))

    def _batch(self, length: int) -> Ints:
        rows = max(1, self.size // length)
        return np.random.default_rng(length).integers(5, 20_000, (rows, length))


def sides_of(params: Params, name: str, threads: int) -> list[Side]:
    """Return the ways to compute with an encoder on this machine, each compiled."""
    import openvino

    found = []
    weights = resolve_weights(params.encoders[name], name)
    for precision in precisions():
        spec = params.encoders[name].model_copy(update={"precision": precision})
        graph = openvino.Core().read_model(converted_model(spec, weights).folder / "model.xml")
        apart = compile_graph(graph, threads, precision)
        for size in SIZES:
            found.append(Side(name, precision, False, size, apart, threads))
        hint = "bf16" if precision == "bfloat16" else "f32"
        asked = {
            "INFERENCE_PRECISION_HINT": hint,
            "NUM_STREAMS": "1",
            "INFERENCE_NUM_THREADS": str(threads),
        }
        together = openvino.Core().compile_model(graph, "CPU", asked)
        found += [Side(name, precision, True, size, together, 1) for size in SIZES[:1]]
    return found


def table(sides: Sequence[Side], per_token: dict[str, float], peaks: dict[Precision, float]) -> str:
    """Return the rates as a Markdown table."""
    rows = []
    for side in sides:
        rate = median(side.rates)
        cores = "one batch on all" if side.together else "a batch each"
        share = rate * per_token[side.encoder] / (peaks[side.precision] * 1e9)
        rows.append(
            [
                side.encoder, side.precision, cores, f"{side.size:,}",
                f"{rate:,.0f}", f"{min(side.rates):,.0f}",
                f"{max(side.rates):,.0f}", f"{share:.0%}",
            ]
        )  # fmt: skip
    return markdown(HEADER, rows, HEADER[3:])


def operations_per_token(spec: Encoder, name: str) -> float:
    """Return the operations of one token, the mean over `LENGTHS` by tokens."""
    weights = resolve_weights(spec, name)
    graph = converted_model(spec, weights).folder / "model.xml"
    count = operations(graph, transformer_folder(weights.folder))
    # Every length has about the same tokens in its batch.
    return float(np.mean([count(np.array([length])) / length for length in LENGTHS]))


def main() -> int:
    """Measure, write the report, print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.batches")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds (default: 5)")
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome:
        params = load_params()
        threads = params.runtime.model_copy(update={"threads": 0}).thread_count()
        names = sorted(set(params.encoder.values()))
        sides = [side for name in names for side in sides_of(params, name, threads)]
        for number in range(options.rounds):
            for side in sides[:: -1 if number % 2 else 1]:
                side.measure()
        peaks: dict[Precision, float] = {
            precision: peak_gflops(precision, threads) for precision in precisions()
        }
        each = {name: operations_per_token(params.encoders[name], name) for name in names}
        listed = ", ".join(f"{key} {value:,.0f}" for key, value in peaks.items())
        text = (
            f"{threads} cores; their peak, in 1e9 operations a second: {listed}. Medians of "
            f"{options.rounds} rounds.\n\n{table(sides, each, peaks)}"
        )
        text += reports.origin([reports.commit()], reports.machine())
        write_text(reports.BATCHES, text)
        sys.stdout.write(text)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
