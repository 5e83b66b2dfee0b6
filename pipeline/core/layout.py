"""Where every artefact is: the only module that spells the path or the name of one.

A stage fills a folder beside its output first (`files.atomic_directory`), so the names of what is
in it are properties of a class that takes the folder: `CleanFiles(folder).queries`.
"""

import os
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.systems import SYSTEMS

CACHE_VARIABLE = "PIPELINE_CACHE"
"""The environment variable that names the folder of the cache; .cache if it is not set."""

EXAMPLES_FILE = "shopping_queries_dataset_examples.parquet"
PRODUCTS_FILE = "shopping_queries_dataset_products.parquet"
SOURCES_FILE = "shopping_queries_dataset_sources.csv"

EXAMPLES_STEMS = (Path(EXAMPLES_FILE).stem, "judgements")
PRODUCTS_STEMS = (Path(PRODUCTS_FILE).stem, "products")
"""The names that a source's tables may have before their endings."""

SHOP_MARK = ".pipeline-shop"
"""The empty file by which the command `shop` knows a folder that it wrote."""

DVC_IGNORES = (
    ".gitignore", "__pycache__", "*.partial", "*~", ".*.swp", ".DS_Store", ".ipynb_checkpoints",
)  # fmt: skip
"""The names of files and folders that .dvcignore hides from DVC."""

PARAMS = Path("params.yaml")
GRAPH = Path("dvc.yaml")
LOCK = Path("dvc.lock")
MODELS_GRAPH = Path("models/dvc.yaml")
MODELS_LOCK = Path("models/dvc.lock")
LOCKS = (LOCK, MODELS_LOCK)

DEMO = Path("data/demo")
SAMPLE = Path("data/sample")
CLEAN = Path("data/clean")
EMBEDDINGS = Path("data/embeddings")
INDEX = Path("models/index")
INDEX_ENTRIES = Path("models/index_entry")
MODELS = Path("models")
PAIRS = Path("data/pairs")
RUNS = Path("data/runs")
GIVEN_RUNS = Path("data/systems")
"""The runs of other engines, as they are given."""
SIMILAR = Path("data/similar")
SIMILAR_REPORTS = Path("reports/similar")
DUPLICATES = Path("data/duplicates")
DUPLICATES_REPORTS = Path("reports/duplicates")
CLUSTERS = Path("data/clusters")
CLUSTERS_REPORTS = Path("reports/clusters")
CATALOGUE = Path("reports/catalogue")
METRICS = Path("reports/metrics")
KEY_METRICS = Path("reports/key_metrics")
TRADEOFF = Path("reports/tradeoff")
PER_QUERY = Path("reports/per_query")
ENCODER_SCORES = Path("reports/encoder_scores")
SUMMARY = Path("reports/summary.json")
REPORT = Path("reports/report.md")
PAGE = Path("reports/report.html")
ENCODE_BENCH = Path("reports/bench/encode.json")
SCALE_BENCH = Path("reports/bench/scale.json")
COSTS = Path("reports/bench/costs.md")


# Those below inherit it: to make each of them a dataclass would add 5 ms to the start of a stage.
@dataclass(frozen=True)
class _Folder:
    """A folder; its class names the files in it."""

    folder: Path


class SampleFiles(_Folder):
    """What `sample` writes of a locale."""

    @property
    def queries(self) -> Path:
        """The drawn queries."""
        return self.folder / "queries.parquet"

    @property
    def products(self) -> Path:
        """The products of the catalogue."""
        return self.folder / "products.parquet"

    @property
    def judgements(self) -> Path:
        """Every judgement of the drawn queries."""
        return self.folder / "judgements.parquet"

    @property
    def sources(self) -> Path:
        """Why ESCI holds each drawn query."""
        return self.folder / "sources.parquet"

    @property
    def counts(self) -> Path:
        """How many rows were read, drawn and left out."""
        return self.folder / "counts.json"


class CleanFiles(_Folder):
    """What `clean` writes of a locale."""

    @property
    def queries(self) -> Path:
        """One normalised text per query."""
        return self.folder / "queries.parquet"

    @property
    def products(self) -> Path:
        """One normalised text per product."""
        return self.folder / "products.parquet"

    def side(self, kind: str) -> Path:
        """Return the table of the products or the queries."""
        return self.folder / f"{kind}.parquet"

    @property
    def vocabulary(self) -> Path:
        """The products' words, where the queries' spelling is corrected by them."""
        return self.folder / "vocabulary.parquet"

    @property
    def corrections(self) -> Path:
        """The queries whose spelling was corrected, where it is."""
        return self.folder / "corrections.parquet"

    @property
    def judgements(self) -> Path:
        """The labels of pairs."""
        return self.folder / "judgements.parquet"

    @property
    def counts(self) -> Path:
        """Everything that was dropped, and why."""
        return self.folder / "counts.json"


class EmbeddingFiles(_Folder):
    """What `embed` writes of a locale."""

    @property
    def manifest(self) -> Path:
        """What the vectors are, and what they were made with."""
        return self.folder / "manifest.json"

    @property
    def curve(self) -> Path:
        """How the encoder was trained, where that was here."""
        return self.folder / "curve.csv"

    def shard(self, kind: str, number: int) -> Path:
        """Return the file of a shard of the products or the queries."""
        return self.folder / f"{kind}-{number:05d}.npy"


class IndexEntryFiles(_Folder):
    """What `index_entry` writes of a locale: what the graph compares."""

    @property
    def build(self) -> Path:
        """How the index is built."""
        return self.folder / "build.json"

    @property
    def search(self) -> Path:
        """How the index is searched."""
        return self.folder / "search.json"


class IndexFiles(_Folder):
    """What `index` writes of a locale."""

    @property
    def index(self) -> Path:
        """The FAISS index."""
        return self.folder / "index.faiss"

    @property
    def card(self) -> Path:
        """What the index is, and which vectors are in it."""
        return self.folder / "index.json"


class PairFiles(_Folder):
    """What `pairs` writes for a name under `trained`."""

    @property
    def train(self) -> Path:
        """The judged products of the queries to learn from."""
        return self.folder / "train.parquet"

    @property
    def dev(self) -> Path:
        """The judged products of the queries that choose the best epoch."""
        return self.folder / "dev.parquet"

    def side(self, kind: str) -> Path:
        """Return the table of train or dev."""
        return self.folder / f"{kind}.parquet"

    @property
    def counts(self) -> Path:
        """What was read, what was dropped and why, and what both sides share."""
        return self.folder / "counts.json"

    @property
    def card(self) -> Path:
        """Which evaluated queries the pairs are kept apart from, and with which settings."""
        return self.folder / "card.json"


class ModelFiles(_Folder):
    """A model by its name: its contract, and the weights of one that was trained here."""

    @property
    def contract(self) -> Path:
        """The whole entry that the name means."""
        return self.folder / "contract.json"

    @property
    def weights(self) -> Path:
        """The trained model: a folder of its own, whose files alone decide its vectors."""
        return self.folder / "model"

    @property
    def card(self) -> Path:
        """What the model was trained from, and how."""
        return self.folder / "card.json"

    @property
    def curve(self) -> Path:
        """Loss and dev measures while it was trained."""
        return self.folder / "curve.csv"


class RunFiles(_Folder):
    """What a system writes of a locale."""

    @property
    def catalogue(self) -> Path:
        """Each query's products out of the whole catalogue, ranked."""
        return self.folder / "catalogue.parquet"

    @property
    def pool(self) -> Path:
        """Each query's judged products, ranked."""
        return self.folder / "pool.parquet"

    def track(self, name: str) -> Path:
        """Return the run of a track, catalogue or pool."""
        return self.folder / f"{name}.parquet"

    @property
    def labels(self) -> Path:
        """The labels of the judged products, by a reranker that gives any."""
        return self.folder / "labels.parquet"

    @property
    def curve(self) -> Path:
        """How the encoder of dense runs, or the reranker of reranked ones, was trained here."""
        return self.folder / "curve.csv"

    @property
    def card(self) -> Path:
        """What the runs are, and of which ids."""
        return self.folder / "run.json"


class OtherRunsFiles(_Folder):
    """What `systems` writes of a locale: a folder of runs for each other engine."""

    @property
    def card(self) -> Path:
        """Which files the runs were, and what was counted in them."""
        return self.folder / "systems.json"

    def runs(self, system: str) -> RunFiles:
        """Return the runs of an engine."""
        return RunFiles(self.folder / system)


class SimilarFiles(_Folder):
    """What `similar` writes of a locale."""

    @property
    def neighbours(self) -> Path:
        """Each product's nearest others, ranked."""
        return self.folder / "neighbours.parquet"

    @property
    def card(self) -> Path:
        """What the neighbours are, and of which vectors."""
        return self.folder / "neighbours.json"


class DuplicateFiles(_Folder):
    """What `duplicates` writes of a locale."""

    @property
    def groups(self) -> Path:
        """The products that are in a group, and which of each group is kept."""
        return self.folder / "groups.parquet"

    @property
    def card(self) -> Path:
        """What the groups are, and of which products."""
        return self.folder / "groups.json"


class ClusterFiles(_Folder):
    """What `clusters` writes of a locale."""

    @property
    def clusters(self) -> Path:
        """The cluster and the leaf of each product."""
        return self.folder / "clusters.parquet"

    @property
    def map(self) -> Path:
        """The place of each product on a map."""
        return self.folder / "map.parquet"

    @property
    def card(self) -> Path:
        """What the clusters are, and of which products."""
        return self.folder / "clusters.json"


class ShownFiles(_Folder):
    """What the search keeps in the cache of a table of products: titles, brands, colours."""

    @property
    def products(self) -> Path:
        """The id and the title of every product."""
        return self.folder / "products.arrow"

    def codes(self, facet: str) -> Path:
        """Return the number of each product's brand or colour."""
        return self.folder / f"{facet}.npy"

    def values(self, facet: str) -> Path:
        """Return the brands or colours."""
        return self.folder / f"{facet}.arrow"


class PostingFiles(_Folder):
    """What is kept in the cache of the terms of a table of products."""

    @property
    def products(self) -> Path:
        """The product of every posting, term by term."""
        return self.folder / "products.npy"

    @property
    def times(self) -> Path:
        """How often the product of every posting has the term."""
        return self.folder / "times.npy"

    @property
    def lengths(self) -> Path:
        """How many terms each product has."""
        return self.folder / "lengths.npy"

    @property
    def starts(self) -> Path:
        """Where the postings of each term start."""
        return self.folder / "starts.npy"

    @property
    def terms(self) -> Path:
        """The terms, sorted, and their numbers."""
        return self.folder / "terms.arrow"


def sample(locale: str) -> SampleFiles:
    """Return the ESCI rows drawn for a locale."""
    return SampleFiles(SAMPLE / locale)


def other_locales(sample: Path) -> Path:
    """Return the counts of rows that `sample` left out with their locale."""
    return sample / "other_locales.json"


def clean(locale: str) -> CleanFiles:
    """Return a locale's cleaned tables."""
    return CleanFiles(CLEAN / locale)


def embeddings(locale: str) -> EmbeddingFiles:
    """Return a locale's shards and manifest."""
    return EmbeddingFiles(EMBEDDINGS / locale)


def model(kind: str, name: str) -> ModelFiles:
    """Return the folder of an encoder or a reranker."""
    return ModelFiles(MODELS / kind / name)


def pairs(name: str) -> PairFiles:
    """Return the pairs that a model learns from."""
    return PairFiles(PAIRS / name)


def index_entry(locale: str) -> IndexEntryFiles:
    """Return the settings of a locale's index."""
    return IndexEntryFiles(INDEX_ENTRIES / locale)


def index(locale: str) -> IndexFiles:
    """Return a locale's FAISS index."""
    return IndexFiles(INDEX / locale)


def runs(system: str, locale: str) -> RunFiles:
    """Return a system's runs of a locale."""
    if system in SYSTEMS:
        return RunFiles(RUNS / system / locale)
    return other_runs(locale).runs(system)


def other_runs(locale: str) -> OtherRunsFiles:
    """Return the runs of other engines of a locale."""
    return OtherRunsFiles(RUNS / "systems" / locale)


def similar(locale: str) -> SimilarFiles:
    """Return a locale's nearest products of each product."""
    return SimilarFiles(SIMILAR / locale)


def similar_report(locale: str) -> Path:
    """Return what a locale's neighbours are worth by the ESCI labels."""
    return SIMILAR_REPORTS / f"{locale}.json"


def duplicates(locale: str) -> DuplicateFiles:
    """Return a locale's groups of the same or nearly the same product."""
    return DuplicateFiles(DUPLICATES / locale)


def duplicates_report(locale: str) -> Path:
    """Return a locale's counts and examples of duplicates."""
    return DUPLICATES_REPORTS / f"{locale}.json"


def clusters(locale: str) -> ClusterFiles:
    """Return a locale's clusters of products."""
    return ClusterFiles(CLUSTERS / locale)


def clusters_report(locale: str) -> Path:
    """Return the names, sizes and measures of a locale's clusters."""
    return CLUSTERS_REPORTS / f"{locale}.json"


def catalogue(locale: str) -> Path:
    """Return the page of a locale's catalogue."""
    return CATALOGUE / f"{locale}.html"


def metrics(locale: str) -> Path:
    """Return a locale's metrics file."""
    return METRICS / f"{locale}.json"


def key_metrics(locale: str) -> Path:
    """Return the few numbers of a locale that DVC shows as its metrics."""
    return KEY_METRICS / f"{locale}.json"


def similar_key_metrics(locale: str) -> Path:
    """Return the few numbers of a locale's neighbours that DVC shows as metrics."""
    return KEY_METRICS / "similar" / f"{locale}.json"


def intervals(locale: str) -> Path:
    """Return a locale's confidence intervals of the measures kept query by query."""
    return Path("reports/intervals") / f"{locale}.json"


def slices(locale: str) -> Path:
    """Return a locale's numbers by kind of query."""
    return Path("reports/slices") / f"{locale}.json"


def per_query(locale: str) -> Path:
    """Return a locale's table of measures, one row per query."""
    return PER_QUERY / f"{locale}.parquet"


def encoder_scores(locale: str) -> Path:
    """Return what a locale's encoder is worth by itself."""
    return ENCODER_SCORES / f"{locale}.json"


def encoder_values(locale: str) -> Path:
    """Return the table of these measures, one row per query."""
    return ENCODER_SCORES / f"{locale}.parquet"


def top(locale: str) -> Path:
    """Return a locale's table of each query's first products, by system."""
    return Path("reports/top") / f"{locale}.parquet"


def exact(locale: str) -> Path:
    """Return a locale's table of each query's Exact products, and where each system ranks them."""
    return Path("reports/exact") / f"{locale}.parquet"


def kinds(locale: str) -> Path:
    """Return a locale's table of which slices each query is in."""
    return Path("reports/kinds") / f"{locale}.parquet"


def recall_curve(locale: str) -> Path:
    """Return a locale's recall-at-k curve, for the page and `dvc plots`."""
    return Path("reports/plots/recall") / f"{locale}.csv"


def training_plot(locale: str) -> Path:
    """Return how a locale's trained models were trained, for the page and `dvc plots`."""
    return Path("reports/plots/training") / f"{locale}.csv"


def plot(name: str) -> Path:
    """Return the table that `dvc plots` draws one plot of all locales from."""
    return Path("reports/plots") / f"{name}.csv"


def tradeoff(locale: str) -> Path:
    """Return the file of what each index gives and costs on a locale's vectors."""
    return TRADEOFF / f"{locale}.json"


def project_root() -> Path:
    """Return the real project folder, also inside DVC's temporary copies of it."""
    return Path(os.environ.get("DVC_ROOT") or ".")


def cache() -> Path:
    """Return the folder of what can be made again: downloaded wheels, rebuilt encoders.

    `$PIPELINE_CACHE`, or `.cache` in the real project, so that experiments share it.

    Raises:
        PipelineError: the variable is a relative path, which would be another folder in each of
            the copies of the project that DVC makes; or it is the path of a file.
    """
    chosen = os.environ.get(CACHE_VARIABLE)
    if not chosen:
        return project_root() / ".cache"
    if not Path(chosen).is_absolute():
        raise PipelineError(
            f"${CACHE_VARIABLE}: must be an absolute path (found {shorten(chosen)}). "
            f"Set it to {Path(chosen).absolute()}, or unset it to use .cache."
        )
    if os.path.lexists(chosen) and not Path(chosen).is_dir():
        raise PipelineError(
            f"${CACHE_VARIABLE}: must be a folder (found {shorten(chosen)}, which is not one). "
            "Set it to another path, or unset it to use .cache."
        )
    return Path(chosen)


def seal(folder: Path) -> Path:
    """Return the file that says how a folder of the cache was built."""
    return folder.with_name(f".{folder.name}.seal.json")


def store() -> Path:
    """Return the folder of the vectors that were computed before, by any stage."""
    return cache() / "vectors"


def checkpoints() -> Path:
    """Return the folder of trainings that were interrupted, and of the last one of each name."""
    return cache() / "training"


def shown(key: str) -> ShownFiles:
    """Return what the search shows of a table of products."""
    return ShownFiles(cache() / "search" / "products" / key)


def postings(key: str) -> PostingFiles:
    """Return the counted terms of a table of products."""
    return PostingFiles(cache() / "search" / "postings" / key)


def documents(key: str) -> Path:
    """Return what a reranker reads of a table of products, for the search."""
    return cache() / "search" / "documents" / key / "documents.arrow"


def rates() -> Path:
    """Return the folder of how fast this machine encoded last, a file for each encoder."""
    return cache() / "rates"


def params_lock() -> Path:
    """Return the lock that a command holds while it reads and writes params.yaml."""
    return cache() / "params.lock"


def tradeoff_lock() -> Path:
    """Return the lock that `make tradeoff` holds while it measures."""
    return cache() / "tradeoff.lock"


def last_plan() -> Path:
    """Return the file of the cost sheet that was made last."""
    return rates() / "plan.json"


def stage_rates() -> Path:
    """Return the folder of what the stages took on this machine last, a file for each."""
    return rates() / "stages"


def is_hidden(path: Path) -> bool:
    """Say whether .dvcignore hides a path of the project, so that DVC sees no change in it."""
    parts = Path(os.path.relpath(path)).parts
    return ".." not in parts and any(
        fnmatchcase(part, pattern) for part in parts for pattern in DVC_IGNORES
    )


def artefacts() -> tuple[Path, ...]:
    """Return the files and folders that stages, DVC and Git write, and params.yaml."""
    return (
        Path(".git"), Path(".dvc"),
        PARAMS, GRAPH, LOCK, MODELS, DEMO, SAMPLE, CLEAN, EMBEDDINGS, PAIRS, RUNS, GIVEN_RUNS,
        SIMILAR, SIMILAR_REPORTS, DUPLICATES, DUPLICATES_REPORTS,
        CLUSTERS, CLUSTERS_REPORTS, CATALOGUE, METRICS, KEY_METRICS, TRADEOFF,
        PER_QUERY, ENCODER_SCORES, SUMMARY, REPORT, PAGE, intervals("").parent,
        slices("").parent, top("").parent, exact("").parent, kinds("").parent,
        recall_curve("").parent.parent, COSTS.parent,
    )  # fmt: skip


def train_hint(name: str) -> str:
    """Return what trains a model, as messages say it."""
    return f"Run `dvc repro {MODELS_GRAPH}:train@{name}`."


def pairs_hint(name: str) -> str:
    """Return what draws the pairs of a model, as messages say it."""
    return f"Run `dvc repro {MODELS_GRAPH}:pairs@{name}`."


def rerun_hint(stage: str, locale: str | None = None) -> str:
    """Return what brings a stage's outputs back, as messages say it."""
    return f"Run `dvc repro {stage}{'' if locale is None else f'@{locale}'}`."
