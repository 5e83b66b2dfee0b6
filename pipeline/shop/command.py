r"""Make a source of your own products and labels, and set params.yaml to use it.

The two tables are CSV (.csv, .tsv), JSON Lines (.jsonl) or parquet. Products need an id and a text;
labels need a query, a product's id and a label. Everything else is filled in:

    python -m pipeline.shop products.csv labels.csv --locale de \
      --column product_id=sku --column product_title=name --column esci_label=grade \
      --label exact=E --label partial=S --label irrelevant=I
"""

import argparse
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.core import files, layout, params_edit, params_text, stage, tables
from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.languages import LANGUAGES
from pipeline.core.params import NAME, NO_RERANKER
from pipeline.core.params_file import PARAMS_FILE, check_params
from pipeline.shop import convert
from pipeline.shop.read import read_texts

ENCODER = "e5-small-q4"
"""The encoder of the shipped params.yaml that knows any language."""

PRODUCT_COLUMNS = ("product_id", *convert.PRODUCT_TEXTS)
LABEL_COLUMNS = (*convert.LABELS_NEEDED, *convert.LABELS_OPTIONAL)


def read_source(
    paths: tuple[Path, Path], locale: str, columns: Mapping[str, str], labels: Mapping[str, str]
) -> tuple[pa.Table, pa.Table]:
    """Return products and judgements in ESCI's form.

    Args:
        paths: the tables of products and of labels.
        locale: the locale of all rows.
        columns: the tables' own name of a column by ESCI's.
        labels: ESCI's label by the tables' own.

    Raises:
        PipelineError: a table is unreadable, or lacks what is needed.
    """
    products, judged = (read_texts(path) for path in paths)
    named = _columns_of(columns, paths, (products, judged))
    where = tuple(map(str, paths))
    products = convert.products(convert.rename(products, named[0], where[0]), locale, where[0])
    judged = convert.judgements(
        convert.rename(judged, named[1], where[1]), locale, labels, where[1]
    )
    return products, judged


def use_source(
    text: bytes, source: Path, splits: set[str], locale: str, language: str, encoder: str
) -> bytes:
    """Return the text of params.yaml with one locale, of a source; all else stays.

    Raises:
        PipelineError: the result would break a rule, such as an encoder that is not there.
    """
    data = params_text.parse(text, str(PARAMS_FILE))
    explored = data.get("explore") if isinstance(data, dict) else None
    is_explored = isinstance(explored, list) and locale in explored
    for path, value in (
        (("encoder",), {locale: encoder}),
        (("index",), {locale: "flat"}),
        (("language",), {locale: language}),
        (("rerank",), {locale: NO_RERANKER}),
        (("sample", "source"), source.as_posix()),
        (("sample", "version"), "all"),
        (("sample", "splits"), sorted(splits, reverse=True)),
        (("explore",), [locale] if is_explored else []),
    ):
        text = params_edit.put(text, path, value, str(PARAMS_FILE))
    check_params(params_text.parse(text, str(PARAMS_FILE)), str(PARAMS_FILE))
    return text


def _refuse_to_lose(out: Path) -> None:
    """Raise a `PipelineError` if a folder that would be replaced is not an earlier source."""
    if not out.exists():
        return
    if not out.is_dir():
        raise PipelineError(f"--out {out} is a file. Name a folder that is absent or empty.")
    others = {path.name for path in out.iterdir()} - {layout.PRODUCTS_FILE, layout.EXAMPLES_FILE}
    if others:
        raise PipelineError(
            f"--out {out}: the folder would be replaced, but holds {min(others)}, which this "
            "command did not write. Name a folder that is absent or empty."
        )


def _columns_of(
    columns: Mapping[str, str], paths: tuple[Path, Path], read: tuple[pa.Table, pa.Table]
) -> list[dict[str, str]]:
    """Return the names that concern each table: product_id may be in both, under two names."""
    known = (PRODUCT_COLUMNS, LABEL_COLUMNS)
    for name, theirs in columns.items():
        everything = dict.fromkeys((*known[0], *known[1]))
        if name not in everything:
            raise PipelineError(
                f"--column {name}={theirs}: there is no column {name} to fill (there are: "
                f"{', '.join(everything)}){did_you_mean(name, everything) or '.'} Correct it."
            )
        holders = [table for names, table in zip(known, read, strict=True) if name in names]
        if not any(theirs in table.column_names for table in holders):
            files_of = [
                str(path) for names, path in zip(known, paths, strict=True) if name in names
            ]
            found = dict.fromkeys(each for table in holders for each in table.column_names)
            raise PipelineError(
                f"--column {name}={theirs}: {' and '.join(files_of)} "
                f"{'has' if len(files_of) == 1 else 'have'} no column {theirs} (found: "
                f"{', '.join(found)}){did_you_mean(theirs, found) or '.'} Correct it."
            )
    return [
        {
            name: theirs
            for name, theirs in columns.items()
            if name in names and theirs in table.column_names
        }
        for names, table in zip(known, read, strict=True)
    ]


def _pairs(asked: list[str], option: str) -> dict[str, str]:
    pairs = {}
    for each in asked:
        left, equals, right = each.partition("=")
        if not (left and equals and right):
            raise PipelineError(f"{option} {each}: must be NAME=VALUE. Correct it.")
        if left in pairs:
            raise PipelineError(f"{option} {left} is given twice. Keep one.")
        pairs[left] = right
    return pairs


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.shop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("products", type=Path, help="the table of products")
    parser.add_argument("labels", type=Path, help="the table of queries, products and labels")
    parser.add_argument("--locale", required=True, help="a name for the catalogue, such as de")
    parser.add_argument(
        "--language", help="an ISO 639-1 code, or any (default: the locale if it is such a code)"
    )
    parser.add_argument("--encoder", default=ENCODER, help=f"its encoder (default: {ENCODER})")
    for option, about in (
        ("--column", "your column for one of ESCI's, such as product_id=sku"),
        ("--label", "ESCI's label E, S, C or I for one of yours, such as exact=E"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="A=B", help=f"{about}; repeat it"
        )
    parser.add_argument(
        "--out", type=Path, default=Path("data/shop"), help="the folder to write (data/shop)"
    )
    return parser.parse_args()


def main() -> int:
    """Write the source, set params.yaml, say what comes next; return the exit status."""
    asked = _parse()
    with stage.report_errors("shop") as outcome:
        if not re.fullmatch(NAME, asked.locale) or params_text.is_read_otherwise(asked.locale):
            raise PipelineError(
                f"--locale {asked.locale}: must be of small letters, digits and hyphens, such as "
                "de. Correct it."
            )
        labels = _pairs(asked.label, "--label")
        if wrong := sorted(set(labels.values()) - set(tables.LABELS)):
            raise PipelineError(f"--label: {wrong[0]} is not E, S, C or I. Correct it.")
        files.refuse_artefacts({"--out": asked.out}, layout.artefacts(), folders=True)
        before = files.read_bytes(PARAMS_FILE, "Run from the root of the project.")
        language = asked.language or (asked.locale if asked.locale in LANGUAGES else "any")
        _refuse_to_lose(asked.out)
        paths = (asked.products, asked.labels)
        files.refuse_overlap(paths, asked.out)
        columns = _pairs(asked.column, "--column")
        products, judged = read_source(paths, asked.locale, columns, labels)
        splits = set(judged["split"].unique().to_pylist())
        after = use_source(before, asked.out, splits, asked.locale, language, asked.encoder)
        with files.atomic_directory(asked.out) as partial:
            pq.write_table(products, partial / layout.PRODUCTS_FILE, **tables.WRITE_OPTIONS)
            pq.write_table(judged, partial / layout.EXAMPLES_FILE, **tables.WRITE_OPTIONS)
        with files.atomic_file(PARAMS_FILE, follow_links=True) as partial:
            partial.write_bytes(after)
        stage.log.info(
            "shop source=%s locale=%s language=%s encoder=%s products=%d queries=%d judgements=%d",
            asked.out, asked.locale, language, asked.encoder,
            len(products), len(judged["query_id"].unique()), len(judged),
        )  # fmt: skip
        sys.stdout.write(f"params.yaml uses {asked.out} now. Run `make repro`.\n")
    return outcome.status
