"""Real text with judgements, and the nDCG@10 of its vectors."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from pipeline.clean.stage import clean
from pipeline.core import layout, tables
from pipeline.core.arrays import Matrix
from pipeline.core.params import FlatIndex, Params, Similarity
from pipeline.demo.stage import demo
from pipeline.evaluate import judged_run, metrics
from pipeline.index.build import build_index
from pipeline.retrieve.neighbours import search
from pipeline.runs.inputs import read_judgements
from pipeline.sample.stage import sample
from pipeline.tradeoff.command import judged
from pipeline.vectors.lengths import to_index_form

DEPTH = 10


@dataclass(frozen=True)
class Catalogue:
    """A locale's cleaned texts, and which products are judged for which queries."""

    products: list[str]
    queries: list[str]
    judgements: judged_run.Judgements


def read_catalogues(params: Params, queries: int, scratch: Path) -> dict[str, Catalogue]:
    """Sample and clean the source in an empty folder; return it by locale.

    At most `queries` queries of each locale are drawn, with all products that are judged for them
    and as many others.
    """
    given = os.environ.get("ESCI_DIR") or (layout.DEMO if layout.DEMO.exists() else None)
    drawn = {
        "source": str(Path(given).resolve() if given else layout.DEMO),
        "version": "all",
        "splits": ("train", "test"),
        "queries": queries,
        "distractors": queries,
    }
    params = params.model_copy(update={"sample": params.sample.model_copy(update=drawn)})
    with contextlib.chdir(scratch):
        if given is None:
            demo(params)
        sample(params)
        for locale in params.locales:
            clean(params, locale)
        return {locale: read_catalogue(locale) for locale in params.locales}


def read_catalogue(locale: str) -> Catalogue:
    """Read a locale's cleaned tables."""
    folder, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    products = tables.read_table(folder.products, tables.PRODUCTS, remedy)
    queries = tables.read_table(folder.queries, tables.QUERIES, remedy)
    _, _, pairs = read_judgements(locale)
    judgements = judged_run.Judgements.from_pairs(*pairs, len(queries))
    return Catalogue(products["text"].to_pylist(), queries["text"].to_pylist(), judgements)


def ndcg(
    judgements: judged_run.Judgements, products: Matrix, queries: Matrix, similarity: Similarity
) -> float:
    """Return the nDCG@10 of exact search through the products."""
    index = build_index(FlatIndex(kind="flat"), products.shape[1], similarity, [products])
    _, found = search(index, to_index_form(queries, similarity, "queries"), DEPTH)
    return metrics.means({"ndcg": metrics.ndcg(judged(found, judgements), DEPTH)})["ndcg"]
