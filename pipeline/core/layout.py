"""Where every artefact lies: the only module that spells paths."""

import os
from pathlib import Path

EXAMPLES_FILE = "shopping_queries_dataset_examples.parquet"
PRODUCTS_FILE = "shopping_queries_dataset_products.parquet"
SOURCES_FILE = "shopping_queries_dataset_sources.csv"

GRAPH = Path("dvc.yaml")
LOCK = Path("dvc.lock")

DEMO = Path("data/demo")
FULL_SIZE = Path("data/full-size")
SAMPLE = Path("data/sample")
METRICS = Path("reports/metrics")
TRADEOFF = Path("reports/tradeoff")
PER_QUERY = Path("reports/per_query")
SUMMARY = Path("reports/summary.json")
REPORT = Path("reports/report.md")
PAGE = Path("reports/report.html")
ENCODE_BENCH = Path("reports/bench/encode.json")
EVALUATE_BENCH = Path("reports/bench/evaluate.json")
PROOFS = Path("reports/bench/proofs.json")
SCALE_BENCH = Path("reports/bench/scale.json")
FAULTS = Path("reports/bench/faults.json")
COSTS = Path("reports/bench/costs.json")
RAY_BENCH = Path("reports/bench/ray.json")


def sample(locale: str) -> Path:
    """Return the folder of ESCI rows drawn for a locale."""
    return SAMPLE / locale


def clean(locale: str) -> Path:
    """Return the folder of a locale's cleaned tables."""
    return Path("data/clean") / locale


def embeddings(locale: str) -> Path:
    """Return the folder of a locale's shards and manifest."""
    return Path("data/embeddings") / locale


def index(locale: str) -> Path:
    """Return the folder of a locale's FAISS index."""
    return Path("models/index") / locale


def runs(system: str, locale: str) -> Path:
    """Return the folder of a system's runs of a locale, one file a track."""
    return Path("data/runs") / system / locale


def metrics(locale: str) -> Path:
    """Return a locale's metrics file."""
    return METRICS / f"{locale}.json"


def intervals(locale: str) -> Path:
    """Return a locale's confidence intervals of the measures kept query by query."""
    return Path("reports/intervals") / f"{locale}.json"


def slices(locale: str) -> Path:
    """Return a locale's numbers by kind of query."""
    return Path("reports/slices") / f"{locale}.json"


def per_query(locale: str) -> Path:
    """Return a locale's table of measures, one row a query."""
    return PER_QUERY / f"{locale}.parquet"


def top(locale: str) -> Path:
    """Return a locale's table of each query's first products, by system."""
    return Path("reports/top") / f"{locale}.parquet"


def recall_curve(locale: str) -> Path:
    """Return a locale's recall-at-k curve, for `dvc plots`."""
    return Path("reports/plots/recall") / f"{locale}.csv"


def labels_plot(locale: str) -> Path:
    """Return what labels fill a locale's first ten places, for `dvc plots`."""
    return Path("reports/plots/labels") / f"{locale}.csv"


def intervals_plot(locale: str) -> Path:
    """Return a locale's intervals as a flat table, for `dvc plots`."""
    return Path("reports/plots/intervals") / f"{locale}.csv"


def slices_plot(locale: str) -> Path:
    """Return a locale's numbers by kind of query as a flat table, for `dvc plots`."""
    return Path("reports/plots/slices") / f"{locale}.csv"


def tradeoff(locale: str) -> Path:
    """Return the file of what each index gives and costs on a locale's vectors."""
    return TRADEOFF / f"{locale}.json"


def project_root() -> Path:
    """Return the real project folder, also inside DVC's temporary copies of it."""
    return Path(os.environ.get("DVC_ROOT") or ".")


def cache() -> Path:
    """Return the folder of what can be made again: downloaded wheels, rebuilt encoders.

    `$PIPELINE_CACHE`, or `.cache` in the real project, so that experiments share it.
    """
    return Path(os.environ.get("PIPELINE_CACHE") or project_root() / ".cache")


def store() -> Path:
    """Return the folder of the vectors that were computed before, whatever asked for them."""
    return cache() / "vectors"


def rates() -> Path:
    """Return the folder of how fast this machine encoded last, a file for each encoder."""
    return cache() / "rates"


def last_plan() -> Path:
    """Return the file of the cost sheet that was made last."""
    return rates() / "plan.json"


def stage_rates() -> Path:
    """Return the folder of what the stages took on this machine last, a file for each."""
    return rates() / "stages"
