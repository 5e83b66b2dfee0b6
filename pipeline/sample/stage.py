"""Draw queries, judgements and catalogue from ESCI's files: `sample.source` -> data/sample/.

The source is read by streaming. Memory holds the judgements, each with its query's text, the ids
of the products, and the texts of some products: first a few batches of `esci.BATCH_ROWS`, which
are read ahead, and then `buckets.BUCKET_ROWS`, which are sorted.
"""

from pathlib import Path

import pyarrow as pa

from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.log import log
from pipeline.core.outputs import refuse_overlap
from pipeline.core.params import Params, Sample
from pipeline.sample import esci, opening
from pipeline.sample.absent import judged_products
from pipeline.sample.buckets import write_products
from pipeline.sample.columns import SourceFile
from pipeline.sample.draw import count_outside_filters, draw, draw_queries, sources_of


def sample(params: Params) -> stage.Done:
    """Read `sample.source` and write each locale's queries, judgements, products and counts."""
    settings, locales = params.sample, list(params.language)
    folder = Path(settings.source)
    examples_path, products_path = opening.find_tables(folder)
    sources_path = folder / layout.SOURCES_FILE
    refuse_overlap([folder, examples_path, products_path, sources_path], layout.SAMPLE)
    examples_file, products_file = opening.open_tables(settings, locales)
    examples = esci.read_examples(examples_file, settings, locales)
    others = {
        "judgements": esci.warn_of_other_locales(examples.rows_by_locale, examples_path, locales)
    }
    ids = esci.read_product_ids(products_file, locales)
    sources = esci.read_sources(sources_path)
    with atomic_directory(layout.SAMPLE) as out:
        chosen, counts = {}, {}
        for locale in locales:
            queries, judgements = draw_queries(examples.rows, settings, locale, examples_path)
            chosen[locale] = _choose_products(
                ids.pop(locale), judgements, settings, locale, products_path
            )
            of_queries = sources_of(queries["query_id"], sources)
            files_of = layout.SampleFiles(out / locale)
            files_of.folder.mkdir()
            tables.write_table(files_of.queries, queries, tables.SAMPLE_QUERIES)
            tables.write_table(files_of.judgements, judgements, tables.SAMPLE_JUDGEMENTS)
            tables.write_table(files_of.sources, of_queries, tables.SAMPLE_SOURCES)
            counts[locale] = {
                "judgements": len(judgements),
                "judgements_outside_filters": count_outside_filters(
                    examples.outside_filters, locale, queries
                ),
                "products": len(chosen[locale]),
                "queries": len(queries),
                "queries_without_source": of_queries["source"].null_count,
                **_count_filled(
                    examples_file, queries, judgements, examples.spellings_joined.get(locale, 0)
                ),
            }
        rows_of, repeated = write_products(products_file, chosen, out)
        for locale in locales:
            counts[locale]["products_repeated_rows_dropped"] = repeated[locale]
            write_json(layout.SampleFiles(out / locale).counts, counts[locale])
            _report(locale, counts[locale])
        others["products"] = esci.warn_of_other_locales(rows_of, products_path, locales)
        write_json(layout.other_locales(out), others)
    return stage.Done(
        rows=products_file.rows + examples_file.rows,
        **{
            unit: sum(count[unit] for count in counts.values())
            for unit in ("products", "queries", "judgements")
        },
    )


def _count_filled(
    file: SourceFile, queries: pa.Table, judgements: pa.Table, joined: int
) -> dict[str, int]:
    """Return how much of a sample was filled in, by a source that lacks columns of ESCI's."""
    counts = {}
    if file.lacks("query_id"):
        counts["queries_named_by_text"] = len(queries)
        counts["query_spellings_joined"] = joined
    if file.lacks("split"):
        counts["judgements_taken_as_test"] = len(judgements)
    return counts


def _choose_products(
    ids: set[str], judgements: pa.Table, settings: Sample, locale: str, path: Path
) -> list[str]:
    """Return the judged products that the source has, and the drawn distractors, sorted."""
    judged = judged_products(judgements, ids, locale, path)
    distractors = draw(ids - judged, settings.distractors, settings.seed, locale)
    chosen = sorted([*sorted(judged), *distractors])  # two sorted lists are merged, which is quick
    if not chosen:
        raise PipelineError(
            f"{path}: no product of locale {locale!r} is judged or drawn. Raise sample.distractors."
        )
    return chosen


def _report(locale: str, counts: dict[str, int]) -> None:
    log.info(
        "sample locale=%s queries=%d products=%d judgements=%d",
        locale, counts["queries"], counts["products"], counts["judgements"],
    )  # fmt: skip
