"""How much `sample` would draw of the chosen source, counted without drawing it.

Read are the footers of ESCI's two files, the ids, locales and filters in them, and the texts of a
few thousand products. The draw is `sample`'s own, so the counts are exact; of a catalogue with more
rows than `EXACT_ROWS` the products are counted by their rows instead, which is a bound.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Clean, Demo, Params, Sample
from pipeline.demo.tables import LOCALES
from pipeline.sample import esci as source
from pipeline.sample.draw import draw
from pipeline.text.normalise import join_fields

EXACT_ROWS = 5_000_000
"""The most rows of a catalogue whose product ids are read: a set of more takes gigabytes."""

PROBED_ROW_GROUPS, PROBED_ROWS = 8, 2_048
"""How many row groups of the products are looked into, and how many rows of each."""

PROBED_TEXTS = 512
"""How many texts a locale are made as `clean` would, at most."""

DEMO_LABELS_A_QUERY = 20
"""About how many judgements a query of the demo has."""

TYPICAL_CHARACTERS = 900
"""A product's text in ESCI, about, where nothing could be read of a locale's texts."""

_EXAMPLES = pa.schema([field for field in source.EXAMPLES if field.name not in (
    "example_id", "query", "esci_label")])  # fmt: skip
_IDS = pa.schema(map(tables.SAMPLE_PRODUCTS.field, ("product_id", "product_locale")))


@dataclass(frozen=True)
class Size:
    """What a locale's sample holds.

    Attributes:
        products: how many.
        queries: how many.
        judgements: how many.
        lengths: of some of its products' texts, in characters; int64, shape [texts]. One of 0 is
            of a product without text.
        exact: whether these are the counts; else there are at most as many products.
    """

    products: int
    queries: int
    judgements: int
    lengths: NDArray[np.int64]
    exact: bool


@dataclass(frozen=True)
class Sizes:
    """The whole source, and what would be drawn of it.

    Attributes:
        rows: of both files together.
        product_bytes: what a row of the products' file takes on disk.
        locales: the drawn part of each locale.
        known: how all this is known, in a few words.
    """

    rows: int
    product_bytes: float
    locales: Mapping[str, Size]
    known: str


def measure(params: Params, *, made: bool) -> Sizes:
    """Return what `sample` would draw; a demo that is yet to be made is told by its params.

    Args:
        params: the choices.
        made: whether the demo that they mean is in data/demo; of other sources it tells nothing.

    Raises:
        PipelineError: the source is not there or is none; as `sample` says it.
    """
    folder = Path(params.sample.source)
    if folder == layout.DEMO and not made:
        return _demo_to_be(params)
    examples_path, products_path = folder / layout.EXAMPLES_FILE, folder / layout.PRODUCTS_FILE
    examples_file = source.open_source(examples_path, source.EXAMPLES)
    products_file = source.open_source(products_path, tables.SAMPLE_PRODUCTS)
    locales = list(params.language)
    examples = _examples(examples_file, examples_path, params.sample, locales)
    total = products_file.metadata.num_rows
    lengths = _text_lengths(products_file, products_path, params.clean, locales)
    exact = total <= EXACT_ROWS
    if exact:
        ids = source.read_product_ids(products_file, products_path, locales)
        sizes = {
            locale: _drawn(source.of_locale(examples, locale), ids[locale], params.sample, locale,
                           lengths[locale])
            for locale in locales
        }  # fmt: skip
    else:
        rows = _rows_by_locale(products_file, products_path, locales)
        sizes = {
            locale: _at_most(source.of_locale(examples, locale), rows[locale], params.sample,
                             locale, lengths[locale])
            for locale in locales
        }  # fmt: skip
    return Sizes(
        total + examples_file.metadata.num_rows,
        products_path.stat().st_size / max(total, 1),
        sizes,
        f"counted in {folder}" if exact else f"at most: the rows of {folder}",
    )


def demo_units(demo: Demo) -> dict[str, int]:
    """Return what the stage demo makes."""
    return {
        "products": len(LOCALES) * demo.products,
        "queries": len(LOCALES) * demo.queries,
    }


def _examples(
    file: pq.ParquetFile, path: Path, settings: Sample, locales: Iterable[str]
) -> pa.Table:
    """Return the columns of _EXAMPLES of the rows that the filters of `settings` let pass."""
    kept = [pa.schema([field.with_nullable(True) for field in _EXAMPLES]).empty_table()]
    for table in source.read_batches(file, path, _EXAMPLES):
        mask = pc.is_in(table["split"], value_set=pa.array(settings.splits))
        if settings.version != "all":
            mask = pc.and_(mask, pc.equal(table[f"{settings.version}_version"], 1))
        kept.append(table.filter(mask))
    examples = pa.concat_tables(kept)
    left = set(examples["product_locale"].unique().to_pylist())
    for locale in locales:
        if locale not in left:
            raise PipelineError(
                f"{path}: no query of locale {locale!r} is left after sample.version="
                f"{settings.version} and sample.splits={','.join(settings.splits)} (found: "
                f"{', '.join(sorted(left)) or 'nothing'}); widen them, or take {locale} out of "
                "encoder, index and language in params.yaml"
            )
    return examples


def _drawn(
    examples: pa.Table, ids: set[str], settings: Sample, locale: str, lengths: NDArray[np.int64]
) -> Size:
    queries, judgements, judged = _judged(examples, settings, locale)
    others = len(ids - judged)
    distractors = others if settings.distractors == "all" else min(settings.distractors, others)
    return Size(len(judged & ids) + distractors, queries, judgements, lengths, exact=True)


def _at_most(
    examples: pa.Table, rows: int, settings: Sample, locale: str, lengths: NDArray[np.int64]
) -> Size:
    queries, judgements, judged = _judged(examples, settings, locale)
    most = rows if settings.distractors == "all" else len(judged) + settings.distractors
    return Size(min(rows, most), queries, judgements, lengths, exact=False)


def _judged(examples: pa.Table, settings: Sample, locale: str) -> tuple[int, int, set[str]]:
    """Return how many queries are drawn, how many judgements they have, and of which products."""
    query_ids = set(examples["query_id"].unique().to_pylist())
    drawn = draw(query_ids, settings.queries, settings.seed, locale)
    rows = examples.filter(pc.is_in(examples["query_id"], value_set=pa.array(drawn, pa.int64())))
    return len(drawn), len(rows), set(rows["product_id"].unique().to_pylist())


def _rows_by_locale(file: pq.ParquetFile, path: Path, locales: Iterable[str]) -> dict[str, int]:
    counts = dict.fromkeys(locales, 0)
    columns = pa.schema([tables.SAMPLE_PRODUCTS.field("product_locale")])
    for table in source.read_batches(file, path, columns):
        for locale in counts:
            counts[locale] += len(source.of_locale(table, locale))
    return counts


def _text_lengths(
    file: pq.ParquetFile, path: Path, settings: Clean, locales: list[str]
) -> dict[str, NDArray[np.int64]]:
    """Return the lengths of some products' texts; of a locale that is not met, those of all."""
    lengths: dict[str, list[int]] = {locale: [] for locale in locales}
    columns = ["product_locale", *settings.fields]
    groups = file.metadata.num_row_groups
    chosen = np.unique(np.linspace(0, max(groups - 1, 0), PROBED_ROW_GROUPS).astype(int))
    try:
        for group in chosen.tolist() if groups else []:
            first = next(file.iter_batches(PROBED_ROWS, row_groups=[group], columns=columns), None)
            if first is None:
                continue
            for row in first.to_pylist():
                of_locale = lengths.get(row["product_locale"])
                if of_locale is not None and len(of_locale) < PROBED_TEXTS:
                    text, _ = join_fields(
                        [row[name] for name in settings.fields], settings.separator
                    )
                    of_locale.append(len(text))
    except tables.READ_ERRORS as err:
        raise source.unreadable(path, err) from err
    met = [length for of_locale in lengths.values() for length in of_locale]
    others = np.array(met or [TYPICAL_CHARACTERS], dtype=np.int64)
    return {
        locale: np.array(each, dtype=np.int64) if each else others
        for locale, each in lengths.items()
    }


def _demo_to_be(params: Params) -> Sizes:
    demo, settings = params.demo, params.sample
    queries = demo.queries if settings.queries == "all" else min(settings.queries, demo.queries)
    judgements = queries * DEMO_LABELS_A_QUERY
    size = Size(
        demo.products, queries, judgements, np.array([TYPICAL_CHARACTERS // 2]), exact=False
    )
    return Sizes(
        len(LOCALES) * (demo.products + demo.queries * DEMO_LABELS_A_QUERY),
        100.0,
        dict.fromkeys(params.language, size),
        "at most: by demo in params.yaml, which is to be made",
    )
