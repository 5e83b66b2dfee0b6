"""What correcting the spelling of queries brings: `corrected` against `typed`.

    python -m bench.spelling --source DIR [--split test] [--folder build/spelling]

Three sources, each in the locales that can be corrected: DIR, which has ESCI's two parquet files;
DIR with a typo in each query, one drawn edit of a word of four letters or more; the demo, with
1,500 queries a locale. Queries of the split are searched for in all products of the source, by the
first three systems.

The report of the test queries is reports/bench/spelling.md. That of the train queries, by which
constants are chosen, is only printed. Its statistics are those of `pipeline.compare`: the mean, the
paired difference with its bootstrap interval, and p by paired randomisation, adjusted (Holm) over
the systems, measures and locales of a group of queries. A query that stays as typed has a
difference of 0, which changes no p: it is the same over all queries and over the corrected ones.
"""

import argparse
import contextlib
import os
import shutil
import sys
from importlib import import_module
from pathlib import Path

from bench import reports
from bench.spelling_report import DEMO, TITLES, TYPOS, Found, Sides, write_report
from bench.typos import mistype
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_text
from pipeline.core.languages import UNSPACED
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import AS_TYPED, CORRECTED, Params
from pipeline.core.params_file import load_params
from pipeline.demo.stage import demo
from pipeline.evaluate.per_query_reader import read_per_query
from pipeline.sample import columns, forms
from pipeline.sample.stage import sample

STAGES = ("clean", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate")
DEMO_QUERIES = 1500
SEED = 29
MARK = ".bench-spelling"
"""The empty file by which a folder is known that an earlier run made."""


def main() -> int:
    """Measure, write the report, print it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.spelling")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--folder", type=Path, default=Path("build/spelling"))
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome:
        params, folder, measured = load_params(), options.folder.resolve(), reports.commit()
        source, split = options.source.resolve(), options.split
        check_source(source, folder)
        check_folder(folder)
        os.environ.setdefault(layout.CACHE_VARIABLE, str(layout.cache().resolve()))
        params = params.model_copy(
            update={
                "rerank": dict.fromkeys(params.rerank, NO_RERANKER),
                "systems": {locale: {} for locale in params.systems},
            }
        )
        found = {name: run(params, name, source, split, folder / name) for name in TITLES}
        text = write_report(params, found, split)
        text += f"`python -m bench.spelling --source DIR --split {split}`, commit {measured}.\n"
        if split == "test":
            write_text(reports.SPELLING, text)
        sys.stdout.write(text)
    return outcome.status


def check_source(source: Path, folder: Path) -> None:
    """Check that a folder has ESCI's two parquet files with all their columns.

    Raises:
        PipelineError: it has not, or it is in the folder that is emptied.
    """
    if source.is_relative_to(folder):
        raise PipelineError(f"--source {source} is in --folder {folder}. Name another --folder.")
    needed = {layout.EXAMPLES_FILE: columns.EXAMPLES, layout.PRODUCTS_FILE: tables.SAMPLE_PRODUCTS}
    for name, schema in needed.items():
        if not (source / name).is_file():
            raise PipelineError(
                f"--source: {source / name} is missing. Name a folder with {' and '.join(needed)}."
            )
        there = forms.open_form(source / name).schema.names
        if lacking := [each for each in schema.names if each not in there]:
            raise PipelineError(
                f"--source: {source / name} lacks {', '.join(lacking)}. Name a folder with ESCI's "
                "own columns."
            )


def check_folder(folder: Path) -> None:
    """Check that what is replaced in a folder was made here.

    Raises:
        PipelineError: a folder that would be replaced has no mark.
    """
    for project in (folder / name for name in TITLES):
        if project.exists() and not (project / MARK).exists():
            raise PipelineError(
                f"--folder {folder}: {project} would be replaced, and was not made by this "
                "command. Name another folder, or move it away."
            )


def run(params: Params, name: str, source: Path, split: str, project: Path) -> Found:
    """Run the stages of a source in a new folder, with each spelling."""
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    (project / MARK).touch()
    locales = [each for each in params.locales if params.language[each] not in UNSPACED]
    with contextlib.chdir(project):
        if name == DEMO:
            source = layout.DEMO
            params = updated(params, "demo", queries=DEMO_QUERIES)
            demo(params)
        if name == TYPOS:
            source = mistype(source, project / "source", locales, SEED)
        # The sources' columns and labels are ESCI's own.
        drawn = {"columns": {}, "labels": {}, "version": "all", "splits": (split,)}
        drawn |= {"queries": "all", "distractors": "all"}
        params = updated(params, "sample", source=str(source), **drawn)
        sample(params)
        return {locale: run_locale(params, locale) for locale in locales}


def run_locale(params: Params, locale: str) -> Sides:
    """Run the stages of a locale with each spelling."""
    found = []
    for spelling in (AS_TYPED, CORRECTED):
        each = params.model_copy(update={"spelling": {**params.spelling, locale: spelling}})
        for name in STAGES:
            getattr(import_module(f"pipeline.{name}.stage"), name)(each, locale)
        path = layout.per_query(locale)
        table, _ = read_per_query(path.read_bytes(), str(path), locale, "Run it again.")
        found.append(table)
    return Sides(*found)


def updated(params: Params, section: str, **values: object) -> Params:
    """Return the settings with some of a section changed."""
    return params.model_copy(
        update={section: getattr(params, section).model_copy(update=dict(values))}
    )


if __name__ == "__main__":
    sys.exit(main())
