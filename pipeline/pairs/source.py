"""The train queries of a source, drawn as `sample` draws and cleaned as `clean` cleans."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean.judgements import clean_judgements
from pipeline.clean.products import CleanedProducts, clean_product_file
from pipeline.clean.texts import clean_queries
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import Clean, Params, Sample
from pipeline.core.trained import Training
from pipeline.pairs.leakage import Evaluated, drop_evaluated
from pipeline.sample import esci, opening
from pipeline.sample.absent import judged_products
from pipeline.sample.asker import Asker
from pipeline.sample.buckets import write_products
from pipeline.sample.columns import SourceFile
from pipeline.sample.draw import count_outside_filters, draw_queries

Counts = dict[str, dict[str, int]]


@dataclass(frozen=True)
class Judged:
    """What a locale can be learned from.

    Attributes:
        queries: columns as in `tables.QUERIES`.
        judgements: columns as in `tables.JUDGEMENTS`; of products that have a text.
        products: the file of the products' texts, a table of `tables.PRODUCTS`.
        counts: what was read, left out and dropped: of judgements, queries and products.
    """

    queries: pa.Table
    judgements: pa.Table
    products: Path
    counts: Counts


@dataclass(frozen=True)
class _Drawn:
    """A locale's queries, and the judgements of those that are not evaluated."""

    queries: pa.Table
    judgements: pa.Table
    counts: Counts


def asker_of(name: str) -> Asker:
    """Return which keys of params.yaml ask for what a model learns from."""
    return Asker("training", f"trained.{name}.locales")


def drawing_of(settings: Training) -> Sample:
    """Return what `sample` would draw: the train queries, and no product but theirs."""
    return Sample(
        source=settings.source, columns=settings.columns, labels=settings.labels,
        version=settings.version, splits=("train",),
        queries=settings.queries, distractors=0, seed=settings.seed,
    )  # fmt: skip


def open_training(params: Params, name: str) -> tuple[SourceFile, SourceFile]:
    """Open the judgements and products that a trained encoder learns from.

    A source without product_locale is of the only locale of params.yaml. If params.yaml has
    others, the source may be of one of those, so it needs the column.
    """
    locales = {*params.language, *params.trained[name].locales}
    return opening.open_tables(drawing_of(params.training), locales, asker_of(name))


def read_judged(
    params: Params, name: str, evaluated: Evaluated, scratch: Path
) -> tuple[int, dict[str, Judged]]:
    """Read, draw and clean what each locale of a trained encoder can be learned from.

    Args:
        params: its section `training` says where the judgements are.
        name: the encoder.
        evaluated: the queries that are left out.
        scratch: an empty folder, for files of products.

    Returns:
        How many rows the source has, and what each locale can be learned from.

    Raises:
        PipelineError: as `sample` and `clean`, or every query is evaluated.
    """
    drawing, asker = drawing_of(params.training), asker_of(name)
    locales, threads = sorted(params.trained[name].locales), params.runtime.thread_count()
    examples_file, products_file = open_training(params, name)
    examples_path, products_path = examples_file.path, products_file.path
    examples = esci.read_examples(examples_file, drawing, locales, asker)
    drawn = {
        each: _draw(examples, examples_file, drawing, each, evaluated, asker) for each in locales
    }
    ids = esci.read_product_ids(products_file, locales, asker)
    chosen = {
        locale: sorted(judged_products(each.judgements, ids[locale], locale, products_path))
        for locale, each in drawn.items()
    }
    for locale in locales:
        (scratch / locale).mkdir()
    _, repeated = write_products(products_file, chosen, scratch)
    paths = examples_path, products_path
    judged = {
        locale: _clean(drawn[locale], locale, params.clean, paths, scratch / locale, threads)
        for locale in locales
    }
    for locale, each in judged.items():
        each.counts["products"] = {"repeated_rows_dropped": repeated[locale]}
    return examples_file.rows + products_file.rows, judged


def _draw(
    examples: esci.Examples,
    file: SourceFile,
    settings: Sample,
    locale: str,
    evaluated: Evaluated,
    asker: Asker,
) -> _Drawn:
    path = file.path
    sampled, judgements = draw_queries(examples.rows, settings, locale, path)
    outside = count_outside_filters(examples.outside_filters, locale, sampled, asker)
    cleaned = clean_queries(sampled)
    kept, dropped = drop_evaluated(cleaned, evaluated)
    if not len(kept):
        raise PipelineError(
            f"{path}: none of the {len(sampled)} train queries of {locale} can be learned from: "
            f"{sum(dropped.values())} are evaluated, by id or text, and "
            f"{len(sampled) - len(cleaned)} have no text. Evaluate the test split alone "
            "(sample.splits), or learn from another source (training.source)."
        )
    gone = tables.row_of(kept["query_id"], cleaned["query_id"]).is_null()
    of_dropped = pc.is_in(
        judgements["query_id"], value_set=cleaned["query_id"].filter(gone).combine_chunks()
    )
    counts = {
        "judgements": {
            "in": len(judgements), "outside_filters": outside,
            "dropped_query_evaluated": pc.sum(of_dropped).as_py() or 0,
        },
        "queries": {
            "in": len(sampled), **_count_spellings(file, examples, sampled, locale),
            "dropped_empty": len(sampled) - len(cleaned), **dropped,
        },
    }  # fmt: skip
    return _Drawn(kept, judgements.filter(pc.invert(of_dropped)), counts)


def _count_spellings(
    file: SourceFile, examples: esci.Examples, queries: pa.Table, locale: str
) -> dict[str, int]:
    """Return how many queries are known by their text, and how many spellings were joined."""
    if not file.lacks("query_id"):
        return {}
    return {
        "named_by_text": len(queries), "spellings_joined": examples.spellings_joined.get(locale, 0),
    }  # fmt: skip


def _clean(
    drawn: _Drawn, locale: str, fields: Clean, paths: tuple[Path, Path], folder: Path, threads: int
) -> Judged:
    examples, given = paths
    sampled = layout.SampleFiles(folder).products
    target = layout.CleanFiles(folder / "clean").products
    target.parent.mkdir()
    products: CleanedProducts = clean_product_file(
        sampled, target, fields, locale, "Run the stage again.", threads, given
    )
    usable = clean_judgements(drawn.judgements, drawn.queries, products.sampled_ids, examples)
    has_text = tables.row_of(products.ids, usable.table["product_id"]).is_valid()
    judgements = usable.table.filter(has_text)
    judged = tables.row_of(judgements["query_id"], drawn.queries["query_id"]).is_valid()
    queries = drawn.queries.filter(judged)
    counts: Counts = {
        "judgements": {
            **drawn.counts["judgements"], **usable.dropped,
            "dropped_product_without_text": len(usable.table) - len(judgements),
            "out": len(judgements),
        },
        "queries": {
            **drawn.counts["queries"],
            "dropped_without_product": len(drawn.queries) - len(queries), "out": len(queries),
        },
    }  # fmt: skip
    return Judged(queries, judgements, target, counts)


def count_shared(judged: Mapping[str, Judged], evaluated: Evaluated) -> dict[str, dict[str, int]]:
    """Return how many products each locale learns from, and how many of them are evaluated too.

    Those are judged for an evaluated query as well: ESCI splits queries, not products.
    """
    found = {}
    for locale, each in judged.items():
        learned = set(each.judgements["product_id"].to_pylist())
        shared = learned & evaluated.products.get(locale, frozenset())
        found[locale] = {"judged_for_evaluated_queries": len(shared), "out": len(learned)}
    return found
