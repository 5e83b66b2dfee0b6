"""What training brings: each recipe of bench/training.yaml against what it starts from.

    python -m bench.training --source DIR --folder FOLDER [--only NAME ...] [--jobs 2]

The source has ESCI's two parquet files. Its test queries, with all products, are evaluated; its
train queries are learned from. In FOLDER a clone of the last commit trains the recipes, `--jobs` at
a time, and runs `dvc repro report` for each experiment. What is there already is not done again; a
folder of another commit, and results of another commit, source or params, are refused.

The tables, also in FOLDER/results.md, have for each measure the mean, the paired difference from
what the experiment is compared with, its bootstrap interval, and * where p < .05 by paired
randomisation, adjusted (Holm) for all differences of the table; for nDCG@10 also how many queries
won, lost and tied. A system `rerank` is compared with the hybrid run that it reorders. Full lists
are the queries with 40 judged products or more: most others of the sample have one. The last table
is ESCI's task 2, the label of each judged pair: a reranker's F1 beside that of a threshold on BM25
and of the most frequent label.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict
from ruamel.yaml import YAML

from bench.project import Settings, read_settings, write_settings
from pipeline import git
from pipeline.core import layout, stage, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file, write_json, write_text
from pipeline.core.params import Params, Uncertainty
from pipeline.core.params_file import PARAMS_FILE, check_params
from pipeline.core.text_tables import markdown
from pipeline.evaluate import uncertainty
from pipeline.evaluate.per_query import Card
from pipeline.evaluate.per_query_reader import read_per_query, values
from pipeline.evaluate.uncertainty import Interval

RECIPES = Path(__file__).with_suffix(".yaml")
BASE = "base"
MADE_OF = "made_of.json"
METRICS = "metrics"
GUESSES = {"reranker": "", "bm25 threshold": "bm25_", "most frequent label": "majority_"}
"""Who guesses the labels, and how the keys of its F1 begin in the metrics."""
MEASURES = ("dense.ndcg@10", "hybrid.ndcg@10", "dense.recall@100")
RERANKED, FIRST = "rerank.ndcg@10", "hybrid.ndcg@10"
COUNTED = ("dense.ndcg@10", FIRST, RERANKED)
"""The measures of which queries are counted."""
FULL_LIST = 40
"""Judged products of a query whose whole list was judged: the sample's lists have 40 to 78."""


class Experiment(BaseModel):
    """What one row changes in params.yaml, and what it is compared with."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    locales: tuple[str, ...]
    encoder: str | None = None
    rerank: str | None = None
    dimension: int | None = None
    tuned_share: float | None = None
    weight: float | None = None
    against: str = BASE

    def models(self) -> list[str]:
        """Return the names of the encoder and the reranker, where it has one."""
        return [name for name in (self.encoder, self.rerank) if name is not None]

    def apply(self, data: dict[str, Any]) -> None:
        """Change params."""
        for locale in self.locales:
            data["encoder"][locale] = self.encoder or data["encoder"][locale]
            data["rerank"][locale] = self.rerank or data["rerank"][locale]
        if self.weight is not None:
            data["reranking"]["weight"] = self.weight
        section = "trained" if self.encoder in data["trained"] else "encoders"
        own = {"dimension": self.dimension, "tuned_share": self.tuned_share}
        for key, value in own.items():
            if value is not None:
                data[section][self.encoder][key] = value


@dataclass(frozen=True)
class Difference:
    """One measure of one row."""

    row: str
    locale: str
    column: str
    after: float
    interval: Interval
    p: float
    won: int
    lost: int
    tied: int


def main() -> int:
    """Train, evaluate, write the tables, print them; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.training")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--only", nargs="*", help="experiments (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time (default: 2)")
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome:
        recipes = YAML(typ="safe", pure=True).load(RECIPES)
        experiments = chosen(recipes["experiments"], options.only)
        source, project = options.source.resolve(), options.folder / "project"
        data = prepare(options.folder, source, recipes["trained"])
        origin = origin_of(project, source)
        params = check_params(data, str(PARAMS_FILE))
        used = [name for each in experiments.values() for name in each.models()]
        train(project, params, used, options.jobs)
        for name, experiment in experiments.items():
            evaluate(options.folder, name, experiment, data, origin)
        text = report(options.folder, experiments, params)
        text += f"\nOf the commit {origin['commit'][:7]}.\n"
        write_text(options.folder / "results.md", text)
        sys.stdout.write(text)
    return outcome.status


def chosen(given: Mapping[str, Any], only: Sequence[str] | None) -> dict[str, Experiment]:
    """Return experiments, the unchanged one first, and what each is compared with."""
    found = {name: Experiment.model_validate(each) for name, each in given.items()}
    found = {BASE: Experiment(locales=()), **found}
    names = list(found) if only is None else [BASE, *only]
    for name in names:
        if name not in found:
            raise PipelineError(
                f"--only {name}: no such experiment (there are: {', '.join(found)}). Name one."
            )
    wanted = {*names, *(found[name].against for name in names)}
    return {name: each for name, each in found.items() if name in wanted}


def prepare(folder: Path, source: Path, trained: Mapping[str, Any]) -> Settings:
    """Clone the project's last commit into a folder, unless it is there; return the params.

    Raises:
        PipelineError: params.yaml has uncommitted changes; the folder's clone is of another commit.
    """
    project = folder / "project"
    if git.run("status", "--porcelain", "--", str(PARAMS_FILE)):
        raise PipelineError(
            f"{PARAMS_FILE}: has changes that are not committed, and the tables name the last "
            "commit. Commit or undo them."
        )
    if not project.exists():
        folder.mkdir(parents=True, exist_ok=True)
        git.run("clone", "--quiet", ".", str(project))
    here, there = commit_of(Path()), commit_of(project)
    if here != there:
        raise PipelineError(
            f"{project}: is of the commit {there[:7]}, and this one is {here[:7]}. Give another "
            "--folder: vectors and trained weights are in the cache."
        )
    data = read_settings()
    whole = {"source": str(source), "version": "all", "queries": "all"}
    data["sample"] |= {**whole, "splits": ["test"], "distractors": "all"}
    data["training"] |= {**whole, "dev_share": 0.1}
    data["trained"] = dict(trained)
    check_params(data, str(PARAMS_FILE))
    write_settings(data, project)
    return data


def commit_of(folder: Path) -> str:
    """Return the commit of a folder's repository."""
    return git.run("-C", str(folder), "rev-parse", "HEAD").strip()


def origin_of(project: Path, source: Path) -> dict[str, Any]:
    """Return what all results are of: the commit, and the hash of each file of the source."""
    hashes = {path.name: sha256_file(path) for path in sorted(source.glob("*.parquet"))}
    return {"commit": commit_of(project), "source": hashes}


def run(project: Path, module: str, *arguments: str) -> None:
    """Run a module in the project; its lines go to standard error."""
    environment = {**os.environ, "PYTHONPATH": "", "DVC_NO_ANALYTICS": "1"}
    environment.setdefault("PIPELINE_CACHE", str(layout.cache().resolve()))
    # DVC's stages run `python`: this one.
    environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    command = [sys.executable, "-m", module, *arguments]
    status = subprocess.run(command, cwd=project, env=environment, stdout=sys.stderr).returncode
    if status:
        raise PipelineError(
            f"`python -m {module} {' '.join(arguments)}` failed in {project}. Read its message."
        )


def train(project: Path, params: Params, used: Sequence[str], jobs: int) -> None:
    """Train what is used and what it needs first; what was trained before is kept in the cache."""
    names = params.trained_for(used)
    run(project, "dvc", "repro", "clean")
    for name in names:
        run(project, "dvc", "repro", f"models/dvc.yaml:pairs@{name}")
    for name in ("minilm", "e5-small-q4"):
        run(project, "dvc", "repro", f"models/dvc.yaml:contract@{name}")
    trainings: dict[str, Future[None]] = {}

    def one(name: str) -> None:
        for source in params.trained[name].sources():
            if source in trainings:
                trainings[source].result()
        run(project, "pipeline.train", "--name", name)

    with ThreadPoolExecutor(jobs) as pool:
        for name in names:
            trainings[name] = pool.submit(one, name)
        for training in trainings.values():
            training.result()


def evaluate(
    folder: Path,
    name: str,
    experiment: Experiment,
    base: Mapping[str, Any],
    origin: Mapping[str, Any],
) -> None:
    """Run the graph with an experiment's settings; keep its metrics and per-query tables.

    What they are of is kept too: `origin`, as `origin_of` returns it, and the params.

    Raises:
        PipelineError: there are results of something else.
    """
    results, project = folder / "results" / name, folder / "project"
    data = json.loads(json.dumps(base))  # no part shared, as those of YAML's anchors are
    experiment.apply(data)
    # An entry that the experiment does not use changes nothing.
    used = check_params(data, str(PARAMS_FILE)).trained_for(experiment.models())
    settings = data | {"trained": {key: of for key, of in data["trained"].items() if key in used}}
    made_of = {**origin, "params": settings}
    if results.exists():
        path = results / MADE_OF
        found = json.loads(path.read_text("utf-8")) if path.exists() else {}
        if other := [key for key, value in made_of.items() if found.get(key) != value]:
            raise PipelineError(f"{results}: is of another {', '.join(other)}. Delete it.")
        return
    write_settings(data, project)
    run(project, "dvc", "repro", "report")
    partial = results.with_suffix(".part")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(project / layout.PER_QUERY, partial)
    shutil.copytree(project / layout.METRICS, partial / METRICS)
    write_json(partial / MADE_OF, made_of)
    partial.rename(results)


def report(folder: Path, experiments: Mapping[str, Experiment], params: Params) -> str:
    """Return the tables: all queries, then those with full lists."""
    text = []
    for title, least in (
        ("All queries", 0),
        (f"Queries with {FULL_LIST} judged or more", FULL_LIST),
    ):
        found = [
            each
            for name, experiment in experiments.items()
            for locale in experiment.locales
            for each in differences(folder, name, experiment, locale, least, params.uncertainty)
        ]
        if found:
            text.append(f"{title}\n\n{table(found, params.compare.alpha)}")
    rows = [
        row
        for name, experiment in experiments.items()
        if experiment.rerank is not None
        for locale in experiment.locales
        for row in labels(folder, name, locale)
    ]
    if rows:
        header = ("experiment", "locale", "guess", "macro F1", "micro F1")
        text.append(f"Labels of the judged pairs\n\n{markdown(header, rows, header[3:])}")
    return "\n".join(text)


def labels(folder: Path, name: str, locale: str) -> Iterator[list[str]]:
    """Yield a row for each guess at the labels of an experiment's pairs."""
    path = folder / "results" / name / METRICS / layout.metrics(locale).name
    found = json.loads(path.read_text("utf-8"))["labels"]
    for guess, prefix in GUESSES.items():
        scores = (found[f"{prefix}{kind}_f1"] for kind in ("macro", "micro"))
        yield [name, locale, guess, *(f"{score:.4f}" for score in scores)]


def differences(
    folder: Path, name: str, experiment: Experiment, locale: str, least: int, draws: Uncertainty
) -> Iterator[Difference]:
    """Yield the differences of a row, over the queries with `least` judged products or more.

    Raises:
        PipelineError: the row and what it is compared with are of two samples.
    """
    results = folder / "results"
    after, card = read(results / name, locale)
    before, other = read(results / experiment.against, locale)
    if card.sample != other.sample:
        raise PipelineError(
            f"{results / name}: {locale} is of another sample than {results / experiment.against}. "
            "Delete both."
        )
    judged = tables.read_column(
        folder / "project" / layout.clean(locale).judgements, tables.JUDGEMENTS, "query_id", ""
    ).to_numpy()
    ids, counts = np.unique(judged, return_counts=True)
    inside = np.isin(after["query_id"].to_numpy(), ids[counts >= least])
    if not inside.any():
        return
    reranks = experiment.rerank is not None
    for measure in (RERANKED,) if reranks else MEASURES:
        new = values(after, measure)[inside]
        old = values(after if reranks else before, FIRST if reranks else measure)[inside]
        moved = new - old
        yield Difference(
            row=name,
            locale=locale,
            column=measure,
            after=float(np.nanmean(new)),
            interval=uncertainty.bootstrap_interval(moved, draws),
            p=uncertainty.paired_randomisation(moved, draws),
            won=int((moved > 0).sum()),
            lost=int((moved < 0).sum()),
            tied=int((moved == 0).sum()),
        )


def read(folder: Path, locale: str) -> tuple[pa.Table, Card]:
    """Read an experiment's per-query table and its card."""
    path = folder / layout.per_query(locale).name
    return read_per_query(path.read_bytes(), str(path), locale, "Delete its folder.")


def counted(measure: str) -> str:
    """Return the name of the column that counts the queries on which a measure moved."""
    return f"{measure} won, lost, tied"


def table(found: Sequence[Difference], alpha: float) -> str:
    """Return a table: a line for each row and locale, one or two columns for each measure."""
    columns = [
        column
        for name in (*MEASURES, RERANKED)
        if any(d.column == name for d in found)
        for column in ((name, counted(name)) if name in COUNTED else (name,))
    ]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for each, p in zip(found, uncertainty.holm([d.p for d in found]), strict=True):
        sure = "*" if p < alpha else ""
        cells = rows.setdefault((each.row, each.locale), {"queries": f"{each.interval.queries:,}"})
        mean, low, high, _ = each.interval
        cells[each.column] = f"{each.after:.4f}, {mean:+.4f} [{low:+.4f}, {high:+.4f}]{sure}"
        cells[counted(each.column)] = f"{each.won:,}, {each.lost:,}, {each.tied:,}"
    header = ("experiment", "locale", "queries", *columns)
    return markdown(
        header,
        [
            [*key, cells["queries"], *(cells.get(c, "") for c in columns)]
            for key, cells in rows.items()
        ],
        header[2:],
    )


if __name__ == "__main__":
    sys.exit(main())
