"""Clean one locale: data/sample/<locale> -> data/clean/<locale>, with every drop counted."""

from pathlib import Path

import pyarrow as pa

from pipeline.clean.judgements import Pairs, clean_judgements
from pipeline.clean.products import CleanedProducts, clean_product_file, refuse_other_locales
from pipeline.clean.spelling import correct_queries
from pipeline.clean.texts import clean_queries, count_cut
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import atomic_directory, write_json
from pipeline.core.log import log
from pipeline.core.params import CORRECTED, Params
from pipeline.text.normalise import MAX_CHARACTERS


def clean(params: Params, locale: str) -> stage.Done:
    """Read a locale's sample and write its cleaned tables and `counts.json`."""
    source, remedy = layout.sample(locale), layout.rerun_hint("sample")
    threads = params.runtime.thread_count()
    sampled_queries = tables.read_table(source.queries, tables.SAMPLE_QUERIES, remedy)
    sampled = tables.read_table(source.judgements, tables.SAMPLE_JUDGEMENTS, remedy)
    refuse_other_locales(sampled_queries, locale, source.queries, remedy)
    refuse_other_locales(sampled, locale, source.judgements, remedy)
    queries = clean_queries(sampled_queries)
    with atomic_directory(layout.clean(locale).folder) as folder:
        out = layout.CleanFiles(folder)
        products = clean_product_file(
            source.products, out.products, params.clean, locale, remedy, threads
        )
        pairs = clean_judgements(sampled, queries, products.sampled_ids, source.judgements)
        judged = tables.row_of(pairs.table["query_id"], queries["query_id"]).is_valid()
        kept_queries = queries.filter(judged)
        if len(sampled_queries) and not len(kept_queries):
            raise PipelineError(
                f"{source.folder}: none of its {len(sampled_queries)} queries has a text and a "
                "judged product. Draw others (sample in params.yaml)."
            )
        spelling = {}
        if params.spelling[locale] == CORRECTED:
            kept_queries, spelling["spelling"] = correct_queries(kept_queries, out)
        tables.write_table(out.queries, kept_queries, tables.QUERIES)
        tables.write_table(out.judgements, pairs.table, tables.JUDGEMENTS)
        cut = count_cut(sampled_queries, ["query"])
        counts = {
            "judgements": _count_judgements(sampled, pairs, products),
            "products": {**params.clean.model_dump(), **_count_products(products)},
            "queries": {
                "cut": cut,
                "dropped_empty": len(sampled_queries) - len(queries),
                "dropped_without_judgement": len(queries) - len(kept_queries),
                "in": len(sampled_queries),
                "out": len(kept_queries),
            },
            **spelling,
        }
        write_json(out.counts, counts)
    _warn_of_cut(source.products, products.fields_cut)
    _warn_of_cut(source.queries, cut)
    log.info(
        "clean locale=%s queries=%d products=%d judgements=%d",
        locale, len(kept_queries), len(products.ids), len(pairs.table),
    )  # fmt: skip
    return stage.Done(
        products=len(products.sampled_ids),
        queries=len(sampled_queries),
        judgements=len(sampled),
        threads=threads,
    )


def _count_judgements(sampled: pa.Table, pairs: Pairs, products: CleanedProducts) -> dict[str, int]:
    without_text = tables.row_of(products.ids, pairs.table["product_id"]).null_count
    return {
        "in": len(sampled),
        "out": len(pairs.table),
        "product_without_text": without_text,
        **pairs.dropped,
    }


def _count_products(products: CleanedProducts) -> dict[str, int]:
    return {
        "dropped_empty": len(products.sampled_ids) - len(products.ids),
        "fields_cut": products.fields_cut,
        "in": len(products.sampled_ids),
        "out": len(products.ids),
        "sharing_a_text": products.sharing_a_text,
    }


def _warn_of_cut(path: Path, cut: int) -> None:
    if cut:
        log.warning(
            "warning: %s: %d texts are longer than %d characters; the rest of each is left out",
            path, cut, MAX_CHARACTERS,
        )  # fmt: skip
