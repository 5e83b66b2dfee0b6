"""Export a locale's catalogue, queries and judgements in BEIR's form, which MTEB's tasks have too.

`python -m pipeline.beir --locale es --out DIR` writes into DIR/es

    corpus.jsonl     a product a line: _id, title (empty), text (what an encoder reads)
    queries.jsonl    a query a line: _id, text
    qrels/test.tsv   grades E 100, S 10, C 1, I 0 of the queries with an E, S or C: for nDCG
    qrels/exact.tsv  grades E 1, others 0 of the queries with an E: for MRR, recall, MAP

for tools that evaluate an encoder on such data sets. A tool averages over every query of the qrels
that it gets, so each measure needs its own: see docs/trec.md. Prefixes such as "query: " are not in
the texts: the tool must add them.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import files_into
from pipeline.trec import (
    QRELS_E,
    QRELS_GAIN,
    export_locales,
    qrels_lines,
    read_judged,
    write_lines,
)

QRELS = {"test": QRELS_GAIN, "exact": QRELS_E}
"""Which judgements each split has."""

ROWS = 10_000


def export(locale: str, out: Path) -> None:
    """Write a locale's catalogue, queries and judgements into a folder.

    Raises:
        PipelineError: an artefact is missing or damaged, nothing is judged, or an id holds
            white space.
    """
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    ids, judgements, (rows, codes, labels) = read_judged(locale)
    products = tables.iter_table(clean.products, tables.PRODUCTS, ROWS, remedy)
    queries = tables.iter_table(clean.queries, tables.QUERIES, ROWS, remedy)
    with files_into(out) as folder:
        write_lines(
            folder / "corpus.jsonl",
            (_line(_id=one, title="", text=text) for one, text in _texts(products, "product_id")),
        )
        write_lines(
            folder / "queries.jsonl",
            (_line(_id=str(one), text=text) for one, text in _texts(queries, "query_id")),
        )
        for split, qrels in QRELS.items():
            kept = judgements.filter(pa.array(qrels.kept(rows, codes, labels, ids)))
            write_lines(folder / "qrels" / f"{split}.tsv", _tsv(qrels_lines(kept, qrels.grades)))


def _texts(pieces: Iterator[pa.Table], key: str) -> Iterator[tuple[object, str]]:
    for piece in pieces:
        yield from zip(piece[key].to_pylist(), piece["text"].to_pylist(), strict=True)


def _line(**fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False)


def _tsv(trec_lines: Iterator[str]) -> Iterator[str]:
    yield "query-id\tcorpus-id\tscore"
    for line in trec_lines:
        query, _, product, grade = line.split(" ")
        if '"' in product:
            raise PipelineError(
                f"product_id {shorten(product)} holds a quotation mark, which tools read as the "
                "start of a text in a TSV file. Change the id in the source."
            )
        yield f"{query}\t{product}\t{grade}"


def main() -> int:
    """Export the locales; return the exit status."""
    return export_locales("beir", __doc__, lambda _, locale, out: export(locale, out / locale))


if __name__ == "__main__":
    sys.exit(main())
