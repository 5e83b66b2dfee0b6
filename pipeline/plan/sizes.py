"""How much `sample` will draw of the source, counted without drawing it.

It reads the judgements and the ids of the products, as `sample` does, and the texts of a few
thousand products. A demo that is not made yet is known by its params.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.params import Clean, Demo, Params
from pipeline.demo.tables import LOCALES
from pipeline.sample import esci as source
from pipeline.sample.draw import draw

PROBED_ROW_GROUPS, PROBED_ROWS = 8, 2_048
"""How many row groups of the products are read for their texts, and how many rows of each."""

DEMO_JUDGEMENTS, DEMO_CHARACTERS = 20, 300
"""About how many judgements a query of the demo has, and how long a product's text is."""

TYPICAL_CHARACTERS = 900
"""About how long a product's text is in ESCI, for a locale of which no text was read."""


@dataclass(frozen=True)
class Size:
    """What a locale's sample holds: numbers of rows.

    `lengths` are those of some products' texts in characters; int64, shape [texts].
    """

    products: int
    queries: int
    judgements: int
    lengths: NDArray[np.int64]


@dataclass(frozen=True)
class Sizes:
    """The rows of the source, each locale's sample, and whether they are counted or at most so."""

    rows: int
    locales: Mapping[str, Size]
    counted: bool


def demo_units(demo: Demo) -> dict[str, int]:
    """Return what the stage demo makes."""
    return {"products": len(LOCALES) * demo.products, "queries": len(LOCALES) * demo.queries}


def measure(params: Params, *, made: bool) -> Sizes:
    """Return what `sample` will draw.

    Args:
        params: the choices.
        made: whether data/demo is the demo that they mean; irrelevant for other sources.

    Raises:
        PipelineError: the source is missing or cannot be used; the message is that of `sample`.
    """
    folder, settings = Path(params.sample.source), params.sample
    if folder == layout.DEMO and not made:
        return _demo_to_be(params)
    examples_path, products_path = folder / layout.EXAMPLES_FILE, folder / layout.PRODUCTS_FILE
    examples_file = source.open_source(examples_path, source.EXAMPLES)
    products_file = source.open_source(products_path, tables.SAMPLE_PRODUCTS)
    locales = list(params.language)
    examples = source.read_examples(examples_file, examples_path, settings, locales).rows
    ids = source.read_product_ids(products_file, products_path, locales)
    lengths = _text_lengths(products_file, products_path, params.clean, locales)
    sizes = {}
    for locale in locales:
        rows = source.of_locale(examples, locale)
        query_ids = set(rows["query_id"].to_pylist())
        drawn = draw(query_ids, settings.queries, settings.seed, locale)
        rows = rows.filter(pc.is_in(rows["query_id"], value_set=pa.array(drawn, pa.int64())))
        judged = set(rows["product_id"].to_pylist())
        others = len(ids[locale] - judged)
        if settings.distractors != "all":
            others = min(settings.distractors, others)
        products = len(judged & ids[locale]) + others
        sizes[locale] = Size(products, len(drawn), len(rows), lengths[locale])
    total = products_file.metadata.num_rows + examples_file.metadata.num_rows
    return Sizes(total, sizes, counted=True)


def _text_lengths(
    file: pq.ParquetFile, path: Path, settings: Clean, locales: list[str]
) -> dict[str, NDArray[np.int64]]:
    """Return the lengths of some products' texts, before `clean` normalises them."""
    groups = np.linspace(0, file.num_row_groups - 1, PROBED_ROW_GROUPS).astype(int)
    columns, found = ["product_locale", *settings.fields], []
    try:
        for group in np.unique(groups).tolist() if file.num_row_groups else []:
            found += list(file.iter_batches(PROBED_ROWS, row_groups=[group], columns=columns))[:1]
    except tables.READ_ERRORS as err:
        raise source.unreadable(path, err) from err
    lengths: dict[str, list[NDArray[np.int64]]] = {locale: [] for locale in locales}
    for batch in found:
        total = sum(
            pc.fill_null(pc.utf8_length(batch[name]), 0).to_numpy(zero_copy_only=False) + 1
            for name in settings.fields
        )
        names = batch["product_locale"].to_numpy(zero_copy_only=False)
        for locale, of_locale in lengths.items():
            of_locale.append(np.asarray(total, dtype=np.int64)[names == locale])
    typical = np.array([TYPICAL_CHARACTERS])
    joined = {locale: np.concatenate([*each, typical[:0]]) for locale, each in lengths.items()}
    return {locale: each if len(each) else typical for locale, each in joined.items()}


def _demo_to_be(params: Params) -> Sizes:
    demo, asked = params.demo, params.sample.queries
    queries = demo.queries if asked == "all" else min(asked, demo.queries)
    size = Size(demo.products, queries, queries * DEMO_JUDGEMENTS, np.array([DEMO_CHARACTERS]))
    rows = len(LOCALES) * (demo.products + demo.queries * DEMO_JUDGEMENTS)
    return Sizes(rows, dict.fromkeys(params.language, size), counted=False)
