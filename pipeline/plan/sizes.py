"""How much `sample` will draw of the source, counted without drawing it.

It reads the judgements and the ids of the products, as `sample` does, but no text. The demo is
known by its params instead: it may not be made yet.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core import layout
from pipeline.core.params import Params
from pipeline.demo.tables import LOCALES
from pipeline.sample import esci, opening
from pipeline.sample.absent import judged_products
from pipeline.sample.columns import SourceFile
from pipeline.sample.draw import draw_queries

DEMO_JUDGEMENTS, DEMO_CHARACTERS = 20, 300
"""How many judgements a query of the demo has at most, and about how long a product's text is."""


@dataclass(frozen=True)
class Size:
    """What a locale's sample holds; `characters` is about how long a product's text is."""

    products: int
    queries: int
    judgements: int
    characters: int


def measure(params: Params) -> tuple[int, Mapping[str, Size]]:
    """Return the rows of the source and, by locale, what `sample` will draw.

    Raises:
        PipelineError: the source is missing or cannot be used; the message is that of `sample`.
    """
    folder, settings = Path(params.sample.source), params.sample
    if folder == layout.DEMO:
        return _measure_demo(params)
    locales = list(params.language)
    examples_file, products_file = opening.open_tables(settings, locales)
    examples = esci.read_examples(examples_file, settings, locales).rows
    ids = esci.read_product_ids(products_file, locales)
    characters, sizes = bytes_per_row(products_file, params.clean.fields), {}
    for locale in locales:
        queries, judgements = draw_queries(examples, settings, locale, examples_file.path)
        judged = judged_products(judgements, ids[locale], locale, products_file.path)
        others = len(ids[locale]) - len(judged)
        if settings.distractors != "all":
            others = min(settings.distractors, others)
        sizes[locale] = Size(len(judged) + others, len(queries), len(judgements), characters)
    return products_file.rows + examples_file.rows, sizes


def bytes_per_row(file: SourceFile, fields: Collection[str]) -> int:
    """Return about how many bytes of these columns a row has."""
    names = [file.theirs[field] for field in fields if not file.lacks(field)]
    return file.form.bytes_of(names) // file.rows


def _measure_demo(params: Params) -> tuple[int, Mapping[str, Size]]:
    demo, asked = params.demo, params.sample.queries
    most = {"all": demo.queries, "none": 0}
    queries = most[asked] if isinstance(asked, str) else min(asked, demo.queries)
    size = Size(demo.products, queries, queries * DEMO_JUDGEMENTS, DEMO_CHARACTERS)
    rows = len(LOCALES) * (demo.products + demo.queries * DEMO_JUDGEMENTS)
    return rows, dict.fromkeys(params.language, size)
