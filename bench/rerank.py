"""What reranking takes: milliseconds a query by depth and precision, and tokens a second.

    python -m bench.rerank [--locale us] [--reranker NAME]

Pairs are those of the locale's first queries and their first products in the run that
`reranking.run` names. Nothing is read from the store of scores or kept there. Beside it, the
locale's encoder encodes the same products: its tokens a second are what reranking is compared with.
Without --reranker, the model is the encoder with a head of random weights, which is as fast as one
that was trained. Sides alternate in rounds; the report has the medians.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import numpy as np

from bench import reports
from bench.peak import precisions
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_text
from pipeline.core.params import Params, Reranker
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.core.trained import Precision
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.pairs import Pair, PairScorer, load_scorer
from pipeline.encoders.weights import resolve_weights
from pipeline.rerank.documents import read_documents
from pipeline.rerank.reorder import in_window
from pipeline.runs import files as run_files
from pipeline.runs.inputs import read_inputs

DEPTHS = (50, 100)
HEADER = ("side", "precision", "depth", "ms a query", "least", "most", "tokens/s", "of embed's")


@dataclass
class Side:
    """One way to compute some queries' pairs, or to encode their products.

    `seconds` are those of each round.
    """

    name: str
    precision: Precision
    depth: int
    queries: int
    compute: TextEncoder | PairScorer
    texts: Sequence[str] | Sequence[Pair]
    tokens: int = 0
    seconds: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Tokenise and compute everything once, and keep the time."""
        started = time.perf_counter()
        tokenise = (
            self.compute.tokenizer("passage")
            if isinstance(self.compute, TextEncoder)
            else self.compute.tokenizer
        )
        tokens = tokenise(self.texts)  # type: ignore[arg-type]
        run = (
            self.compute.encode_tokens
            if isinstance(self.compute, TextEncoder)
            else self.compute.score_tokens
        )
        for _ in run(enumerate(tokens)):
            pass
        self.seconds.append(time.perf_counter() - started)
        self.tokens = sum(len(each.ids) for each in tokens)


def read_pairs(params: Params, locale: str, spec: Reranker, queries: int) -> list[list[Pair]]:
    """Return the pairs of the first queries, as deep as the deepest of `DEPTHS`."""
    inputs, clean = read_inputs(locale), layout.clean(locale)
    path = layout.runs(params.reranking.run, locale).catalogue
    _, (rows, codes, scores) = next(run_files.iter_run(path, inputs, queries, "Run `dvc repro`."))
    inside = in_window((rows, codes, scores), max(DEPTHS))
    rows, codes = rows[inside], codes[inside]
    texts = tables.read_column(clean.queries, tables.QUERIES, "text", "").to_pylist()
    documents = read_documents(clean.products, np.unique(codes), spec, params.clean, "")
    found: list[list[Pair]] = [[] for _ in range(int(rows.max(initial=-1)) + 1)]
    for row, code in zip(rows.tolist(), codes.tolist(), strict=True):
        found[row].append((texts[row], documents[code]))
    return found


def with_random_head(params: Params, locale: str, folder: Path) -> Reranker:
    """Write the locale's encoder with a head for one score into a folder, and return its entry."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)  # the same weights each time, so that they are converted once
    weights = resolve_weights(params.encoder_of(locale), params.encoder[locale])
    source = transformer_folder(weights.folder)
    AutoModelForSequenceClassification.from_pretrained(source, num_labels=1).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return Reranker.model_validate(
        {
            "weights": {"kind": "folder", "path": str(folder)}, "fields": "all",
            "max_tokens": params.encoder_of(locale).max_tokens, "labels": 1, "gains": None,
            "activation": "identity", "languages": ("any",), "precision": "float32",
        }
    )  # fmt: skip


def sides_of(params: Params, locale: str, spec: Reranker, name: str, queries: int) -> list[Side]:
    """Return the sides, their models loaded."""
    runtime = params.runtime.local()
    pairs = read_pairs(params, locale, spec, queries)
    weights = resolve_weights(spec, name)
    encoder = params.encoder_of(locale)
    found = []
    for precision in precisions():
        scorer = load_scorer(spec.model_copy(update={"precision": precision}), weights, runtime)
        for depth in DEPTHS:
            some = [pair for each in pairs for pair in each[:depth]]
            found.append(Side("rerank", precision, depth, len(pairs), scorer, some))
        other = encoder.model_copy(update={"precision": precision})
        embed = load_encoder(other, resolve_weights(other, params.encoder[locale]), runtime)
        texts = [document for each in pairs for _, document in each]
        found.append(Side("embed", precision, max(DEPTHS), len(pairs), embed, texts))
    return found


def table(sides: Sequence[Side]) -> str:
    """Return the figures as a Markdown table; ratios are of the same round."""
    embeds = {side.precision: side for side in sides if side.name == "embed"}
    rows = []
    for side in sides:
        embed = embeds[side.precision]
        each = [1000 * seconds / side.queries for seconds in side.seconds]
        ratios = [
            side.tokens / mine / (embed.tokens / theirs)
            for mine, theirs in zip(side.seconds, embed.seconds, strict=True)
        ]
        rows.append(
            [
                side.name, side.precision, str(side.depth), f"{median(each):,.0f}",
                f"{min(each):,.0f}", f"{max(each):,.0f}",
                f"{side.tokens / median(side.seconds):,.0f}", f"{median(ratios):.2f}",
            ]
        )  # fmt: skip
    return markdown(HEADER, rows, HEADER[2:])


def main() -> int:
    """Measure, write the report, print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.rerank")
    parser.add_argument("--locale", default="us")
    parser.add_argument("--reranker", help="a name that `rerank` can choose")
    parser.add_argument("--queries", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--rounds", type=int, default=5, help="how many rounds (default: 5)")
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome, tempfile.TemporaryDirectory() as scratch:
        params = load_params()
        stage.check_locale(params, options.locale)
        if options.reranker is None:
            name = "random-head"
            spec = with_random_head(params, options.locale, Path(scratch))
        else:
            name = options.reranker
            known = params.reranker_named(name) if name in params.reranker_names() else None
            if known is None:
                raise PipelineError(
                    f"--reranker {name}: no such reranker (there are: "
                    f"{', '.join(params.reranker_names())}). Name one."
                )
            spec = known
        sides = sides_of(params, options.locale, spec, name, options.queries)
        for number in range(options.rounds):
            for side in sides[:: -1 if number % 2 else 1]:
                side.measure()
        text = (
            f"{name}, {spec.max_tokens} tokens at most, {options.locale}: "
            f"{sides[0].queries} queries, {params.runtime.thread_count()} threads, medians of "
            f"{options.rounds} rounds.\n\n{table(sides)}"
        )
        text += reports.origin([reports.commit()], reports.machine())
        write_text(reports.RERANK, text)
        sys.stdout.write(text)
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
