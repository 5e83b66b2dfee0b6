"""Measure bm25 beside the library `bm25s`, used as its README shows: index and search apart.

    python -m bench.bm25 [--locale us] [--queries N] [--rounds 3]

It takes the clean tables of this folder, such as `search` in a project of `bench.scale`. In each
round every side runs once, and each round begins with another one. bm25s finds as many products. It
has its own, fewer terms: words of two letters or more, without stop words. Its scores are float32.
This project also reads its table and ranks the judged products.

Prints JSON: seconds by round of each side, and the median over the rounds of the seconds of bm25s
over those of this project: more than 1 where this project is faster.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import bm25s
import Stemmer

from pipeline.bm25.analysers import Analyser, analyser_for
from pipeline.bm25.postings import collect
from pipeline.bm25.search import TermIndex
from pipeline.bm25.stage import search_all
from pipeline.bm25.texts import count_products, terms_of_queries
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.runs.inputs import Inputs, read_inputs

PARTS = ("index", "search")


@dataclass(frozen=True)
class Task:
    """What is indexed and searched for; each side returns the seconds of `PARTS`."""

    params: Params
    locale: str
    analyser: Analyser
    inputs: Inputs
    queries: int

    def texts(self, side: str) -> list[str]:
        """Return the products or the queries."""
        schema = {"products": tables.PRODUCTS, "queries": tables.QUERIES}[side]
        path, remedy = layout.clean(self.locale).side(side), "Run the stage clean."
        return list(tables.read_column(path, schema, "text", remedy).to_pylist())

    def ours(self) -> tuple[float, float]:
        """Measure this project on all threads."""
        return self._ours(self.params)

    def ours_on_one(self) -> tuple[float, float]:
        """Measure this project on one thread."""
        runtime = self.params.runtime.model_copy(update={"threads": 1})
        return self._ours(self.params.model_copy(update={"runtime": runtime}))

    def _ours(self, params: Params) -> tuple[float, float]:
        threads, products = params.runtime.thread_count(), len(self.inputs.products)
        started = time.perf_counter()
        pieces = count_products(self.locale, self.analyser, products, params.runtime)
        index = TermIndex.of(collect(pieces), params.bm25, threads)
        indexed = time.perf_counter()
        queries = terms_of_queries(self.locale, self.analyser)
        for _ in search_all(index, queries[: self.queries], params, self.inputs):
            pass
        return indexed - started, time.perf_counter() - indexed

    def theirs(self) -> tuple[float, float]:
        """Measure bm25s on all threads."""
        products, queries = self.texts("products"), self.texts("queries")[: self.queries]
        stemmer = Stemmer.Stemmer(self.analyser.language)
        words = {"stopwords": self.analyser.language, "stemmer": stemmer, "show_progress": False}
        depth = min(self.params.retrieve.depth, len(products))
        threads = self.params.runtime.thread_count()
        started = time.perf_counter()
        retriever = bm25s.BM25()
        retriever.index(bm25s.tokenize(products, **words), show_progress=False)
        indexed = time.perf_counter()
        found = bm25s.tokenize(queries, **words)
        retriever.retrieve(found, k=depth, show_progress=False, n_threads=threads)
        return indexed - started, time.perf_counter() - indexed


def measure(task: Task, rounds: int) -> dict[str, object]:
    """Run every side once a round; return seconds and ratios."""
    sides: dict[str, Callable[[], tuple[float, float]]] = {
        "here": task.ours, "here, one thread": task.ours_on_one, "bm25s": task.theirs,
    }  # fmt: skip
    seconds: dict[str, dict[str, list[float]]] = {
        name: {part: [] for part in PARTS} for name in sides
    }
    names = list(sides)
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            for part, took in zip(PARTS, sides[name](), strict=True):
                seconds[name][part].append(round(took, 3))
    theirs = seconds["bm25s"]
    ratios = {
        name: {
            part: round(median(b / a for a, b in zip(took[part], theirs[part], strict=True)), 2)
            for part in PARTS
        }
        for name, took in seconds.items()
        if name != "bm25s"
    }
    return {"seconds": seconds, "times_as_fast_as_bm25s": ratios}


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.bm25")
    parser.add_argument("--locale", default="us")
    parser.add_argument("--queries", type=int, help="the first ones (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with stage.report_errors("bench.bm25") as outcome:
        params = load_params()
        stage.check_locale(params, options.locale)
        analyser = analyser_for(params.language[options.locale])
        if not analyser.name.startswith("snowball"):
            raise PipelineError(
                f"--locale {options.locale}: bm25s, as its README uses it, needs a language with a "
                f"stemmer (found {analyser.language}). Choose another locale."
            )
        inputs = read_inputs(options.locale)
        queries = min(options.queries or len(inputs.queries), len(inputs.queries))
        task = Task(params, options.locale, analyser, inputs, queries)
        found = {
            "locale": options.locale,
            "products": len(inputs.products),
            "queries": queries,
            "threads": params.runtime.thread_count(),
            **measure(task, options.rounds),
        }
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
