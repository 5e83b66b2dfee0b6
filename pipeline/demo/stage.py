"""Write a generated catalogue in ESCI's files and schema: nothing -> data/demo."""

import pyarrow.parquet as pq

from pipeline.core import files, layout, stage, tables
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.demo.marketplace import load_wording
from pipeline.demo.tables import LOCALES, generate


def demo(params: Params) -> stage.Done:
    """Write the catalogue to data/demo."""
    wordings = {locale: load_wording(locale) for locale in LOCALES}
    examples, products, sources = generate(wordings, params.demo)
    with files.atomic_directory(layout.DEMO) as folder:
        pq.write_table(examples, folder / layout.EXAMPLES_FILE, **tables.WRITE_OPTIONS)
        pq.write_table(products, folder / layout.PRODUCTS_FILE, **tables.WRITE_OPTIONS)
        rows = zip(*sources.to_pydict().values(), strict=True)
        lines = ["query_id,source", *(f"{query},{source}" for query, source in rows)]
        (folder / layout.SOURCES_FILE).write_text(
            "\n".join(lines) + "\n", encoding="utf-8", newline="\n"
        )
    log.info("%d judgements, %d products in %s", len(examples), len(products), layout.DEMO)
    return stage.Done(
        products=len(LOCALES) * params.demo.products, queries=len(LOCALES) * params.demo.queries
    )
