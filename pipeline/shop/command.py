r"""Make your own products and labels the source, and set params.yaml to use it.

The two tables are CSV (.csv, .tsv), JSON Lines (.jsonl) or parquet. Products need an id and a text;
labels need a query, a product's id and a label. The tables are checked, and copied as they are:

    python -m pipeline.shop products.csv labels.csv --locale de \
      --column product_id=sku --column product_title=name --column esci_label=grade \
      --label exact=E --label partial=S --label irrelevant=I
"""

import argparse
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.clean.judgements import clean_judgements
from pipeline.clean.products import BATCH_ROWS
from pipeline.clean.texts import clean_products, clean_queries
from pipeline.core import files, layout, outputs, params_edit, params_text, stage, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.languages import language_of
from pipeline.core.log import log
from pipeline.core.options import read_pairs
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import ANY_LANGUAGE_ENCODER, AS_TYPED, ESCI_GAINS, Clean, Params
from pipeline.core.params_file import PARAMS_FILE, check_params, refuse_locale_name
from pipeline.sample import esci, forms, opening
from pipeline.sample.absent import judged_products
from pipeline.sample.asker import SAMPLE
from pipeline.sample.buckets import write_products
from pipeline.sample.draw import draw_queries

ASKER = replace(SAMPLE, options=True)


def settings_of(
    params: Params,
    locale: str,
    language: str | None,
    encoder: str | None,
    sample: Mapping[str, Any],
) -> dict[tuple[str, ...], Any]:
    """Return what must change in params.yaml, by path, for one locale of a source.

    Args:
        params: what params.yaml says.
        locale: the only locale that it will have.
        language: its language; None: that of params.yaml, or the one the locale is named after.
        encoder: its encoder; None: that of params.yaml, or one that knows any language.
        sample: what of the section `sample` changes.

    A locale that is the only one already keeps its encoder, index, reranker, spelling and systems,
    unless `encoder` is given, and its language, unless `language` is.
    """
    is_there = set(params.encoder) == {locale}
    changes: dict[tuple[str, ...], Any] = {
        **{("sample", key): each for key, each in sample.items()},
        ("explore",): [locale] if locale in params.explore else [],
    }
    if language is not None or not is_there:
        changes["language",] = {locale: language_of(locale) if language is None else language}
    if encoder is not None or not is_there:
        changes["encoder",] = {locale: ANY_LANGUAGE_ENCODER if encoder is None else encoder}
        changes["index",] = {locale: "flat"}
        changes["rerank",] = {locale: NO_RERANKER}
        changes["spelling",] = {locale: AS_TYPED}
        changes["systems",] = {locale: {}}
    return changes


def check_tables(params: Params, judged: Path, sold: Path, scratch: Path) -> dict[str, Any]:
    """Read two tables as `sample` and `clean` will, and return what they hold.

    The judgements are not read if `sample.queries` is none.

    Args:
        params: what params.yaml will say, for one locale; `sample.splits` is not used.
        judged: the table of judgements.
        sold: the table of products.
        scratch: an empty folder.

    Returns:
        `splits`, which to evaluate, and the counts `products`, `queries` and `judgements`.

    Raises:
        PipelineError: what `sample` or `clean` would say of them, or no query has a product that it
            should find.
    """
    (locale,) = locales = list(params.language)
    settings = params.sample.model_copy(update={"splits": ("test", "train")})
    judgements, products = opening.open_pair(judged, sold, settings, locales, ASKER)
    rows = esci.read_examples(judgements, settings, locales, ASKER).rows
    ids = esci.read_product_ids(products, locales, ASKER)[locale]
    splits = evaluated(rows["split"].unique().to_pylist())
    rows_evaluated = rows.filter(pc.is_in(rows["split"], value_set=pa.array(splits)))
    sampled, judgements = draw_queries(rows_evaluated, settings, locale, judged)
    judged_products(judgements, ids, locale, sold)
    known = sorted(ids)
    sampled_ids = pa.chunked_array([pa.array(known, pa.string())])
    queries = clean_queries(sampled)
    pairs = clean_judgements(judgements, queries, sampled_ids, judged).table
    if settings.queries != "none":
        _check_queries(len(sampled), len(queries), pairs, judged)
    (scratch / locale).mkdir()
    write_products(products, {locale: known}, scratch)
    _check_texts(scratch / locale, len(ids), params.clean, sold)
    return {
        "splits": splits,
        "products": len(ids),
        "queries": len(rows["query_id"].unique()),
        "judgements": len(rows),
    }


def _check_queries(count: int, with_text: int, pairs: pa.Table, judged: Path) -> None:
    """Refuse labels that nothing can be measured by; warn of queries without a text."""
    relevant = [label for label, gain in zip(tables.LABELS, ESCI_GAINS, strict=True) if gain]
    if not with_text:
        raise PipelineError(
            f"{judged}: none of the {count} queries has a text. Write the texts of the queries."
        )
    if not pc.any(pc.is_in(pairs["label"], value_set=pa.array(relevant))).as_py():
        raise PipelineError(
            f"{judged}: no product of {len(pairs)} judged ones is labelled {', '.join(relevant)}, "
            "so no system can be right. Add such labels, or leave the table out to search only."
        )
    if with_text < count:
        log.warning(
            "warning: %s: %d of %d queries have no text, and are left out",
            judged, count - with_text, count,
        )  # fmt: skip


def _check_texts(sampled: Path, count: int, settings: Clean, sold: Path) -> None:
    """Raise a `PipelineError` if no product has a text."""
    batches = tables.iter_table(
        layout.SampleFiles(sampled).products, tables.SAMPLE_PRODUCTS, BATCH_ROWS, ""
    )
    if not any(len(clean_products(batch, settings)) for batch in batches):
        raise PipelineError(
            f"{sold}: none of the {count} products has a text in {', '.join(settings.fields)}. "
            "Name the columns that have them, such as `--column product_title=NAME`."
        )


def evaluated(splits: Collection[str]) -> list[str]:
    """Return the split to evaluate: that of test queries, so that those of train can be learned."""
    return ["train"] if set(splits) == {"train"} else ["test"]


def _written_files(out: Path) -> set[str]:
    """Return the names of the files that this command writes, if it wrote to this folder."""
    if not (out / layout.SHOP_MARK).exists():
        return set()
    stems = (*layout.EXAMPLES_STEMS, *layout.PRODUCTS_STEMS)
    copies = (f"{stem}{ending}" for stem in stems for ending in forms.ENDINGS)
    return {*copies, layout.SHOP_MARK, layout.SOURCES_FILE}


def _refuse_ending(path: Path) -> None:
    if path.suffix.lower() not in forms.ENDINGS:
        raise PipelineError(
            f"{path}: the name must end in {', '.join(forms.ENDINGS)} (found "
            f"{shorten(path.suffix)}). Rename the file, or write it in one of these forms."
        )


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.shop",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("products", type=Path, help="the table of products")
    parser.add_argument(
        "labels", type=Path, nargs="?",
        help="the table of queries, products and labels; without it, search only",
    )  # fmt: skip
    parser.add_argument("--locale", required=True, help="a name for the catalogue, such as de")
    parser.add_argument(
        "--language",
        help="an ISO 639-1 code, or any (default: the language that the locale has; for a new "
        "locale, its name if that is such a code)",
    )
    parser.add_argument(
        "--encoder",
        help="its encoder (default: the encoder that the locale has; for a new locale, "
        f"{ANY_LANGUAGE_ENCODER})",
    )
    for option, about in (
        ("--column", "your column for one of ESCI's, such as product_id=sku"),
        ("--label", "ESCI's label E, S, C or I for one of yours, such as exact=E"),
    ):
        parser.add_argument(
            option, action="append", default=[], metavar="A=B", help=f"{about}; repeat it"
        )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/shop"),
        help="the folder to write (default: data/shop)",
    )
    return parser.parse_intermixed_args()


def _take(asked: argparse.Namespace) -> tuple[Params, dict[str, Any]]:
    """Check the tables, copy them and write params.yaml; return it and what the tables hold."""
    refuse_locale_name(asked.locale)
    given = {layout.EXAMPLES_STEMS[1]: asked.labels, layout.PRODUCTS_STEMS[1]: asked.products}
    copies = {
        f"{stem}{path.suffix.lower()}": path for stem, path in given.items() if path is not None
    }
    for path in filter(None, (asked.products, asked.labels)):
        _refuse_ending(path)
        opening.check_file(path, ASKER)
    if layout.is_hidden(asked.out):
        raise PipelineError(
            f"--out {asked.out}: .dvcignore hides it from DVC. Name another folder."
        )
    outputs.refuse_artefacts({"--out": asked.out}, folders=True, replaced=True)
    outputs.refuse_to_lose(asked.out, _written_files(asked.out))
    outputs.refuse_overlap(copies.values(), asked.out)
    params_edit.check_writable()
    before = files.read_bytes(PARAMS_FILE, "Run from the root of the project.")
    data = params_text.parse(before, str(PARAMS_FILE))
    current = check_params(data, str(PARAMS_FILE))
    sample = {
        "source": asked.out.as_posix(),
        "columns": read_pairs(asked.column, "--column", "NAME=COLUMN, such as product_id=sku"),
        "labels": read_pairs(asked.label, "--label", "VALUE=LABEL, such as exact=E", last=True),
        "version": "all",
    }
    if asked.labels is None:
        sample |= {"queries": "none", "distractors": "all"}
    elif current.sample.queries == "none":
        sample["queries"] = "all"
    changes = settings_of(current, asked.locale, asked.language, asked.encoder, sample)
    params = check_params(params_edit.replaced(data, changes), str(PARAMS_FILE))
    judged = asked.labels or asked.out / layout.EXAMPLES_FILE
    with files.scratch_beside(PARAMS_FILE) as scratch:
        found = check_tables(params, judged, asked.products, scratch)
    changes["sample", "splits"] = found["splits"]

    def copy_and_change(text: bytes) -> bytes:
        if text != before:
            raise PipelineError(
                f"{PARAMS_FILE}: was edited while the tables were checked. Run the command again."
            )
        with files.atomic_directory(asked.out) as partial:
            (partial / layout.SHOP_MARK).touch()
            if (sources := asked.out / layout.SOURCES_FILE).exists():
                shutil.copyfile(sources, partial / sources.name)
            for name, path in copies.items():
                shutil.copyfile(path, partial / name)
        return after

    after = params_edit.put_all(before, changes, str(PARAMS_FILE))
    # Before the folder is replaced.
    check_params(params_text.parse(after, str(PARAMS_FILE)), str(PARAMS_FILE))
    return params_edit.write(copy_and_change), found


def main() -> int:
    """Copy the tables, set params.yaml, say what comes next; return the exit status."""
    asked = _parse()
    with stage.report_errors("shop") as outcome:
        params, found = _take(asked)
        log.info(
            "shop source=%s locale=%s language=%s encoder=%s products=%d queries=%d judgements=%d",
            asked.out, asked.locale, params.language[asked.locale], params.encoder[asked.locale],
            found["products"], found["queries"], found["judgements"],
        )  # fmt: skip
        sys.stdout.write(
            f"params.yaml uses {asked.out} now. Run `make repro`.\n"
            "Until it has run, the reports and the search are of the tables before.\n"
        )
        if not asked.out.with_name(f"{asked.out.name}.dvc").exists():
            sys.stdout.write(f"For colleagues and `dvc exp run --temp`: `dvc add {asked.out}`.\n")
    return outcome.status
