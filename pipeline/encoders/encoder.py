"""A loaded encoder: texts in, vectors out, under the whole contract of its entry."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import read_json
from pipeline.core.params import Encoder, Runtime
from pipeline.encoders.batching import Batch, Batcher
from pipeline.encoders.engine import (
    Computer,
    Engine,
    EngineChoice,
    OnThreads,
    choose_engine,
    computed_by,
)
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.openvino_engine import (
    OpenVinoEngine,
    computes_in_8_bits,
    converted_model,
    known_refusal,
    version_of,
)
from pipeline.encoders.tokens import Tokenizer, Tokens
from pipeline.encoders.weights import LocalWeights
from pipeline.vectors.lengths import apply_contract

log = logging.getLogger("pipeline")

_FORM = 1  # of raw vectors; raise it when a change here changes any of their bits

Role = Literal["query", "passage"]
"""Which prefix goes before a text."""


@dataclass(frozen=True)
class Encoded:
    """Some texts' vectors.

    Attributes:
        places: which texts; int64, shape [texts].
        raw: as the model pools them, neither cut nor normalised; float32, shape [texts, dimension].
        computed: how many tokens the engine computed for them, padding included.
    """

    places: NDArray[np.int64]
    raw: Matrix
    computed: int


class TextEncoder:
    """Encodes queries and passages, each with its prefix, which is added here and nowhere else.

    A text's vector depends on the text alone: not on its company, its place or the threads.

    Attributes:
        dimension: how many components the model's own vectors have, before any cut.
    """

    def __init__(
        self, computer: Computer, tokenizer: str, pad_id: int, spec: Encoder, weights: LocalWeights
    ) -> None:
        """Put the parts together; `load_encoder` does."""
        self._computer = computer
        self._tokenizer = tokenizer
        self._tokenizers: dict[Role, Tokenizer] = {}
        self._pad_id = pad_id
        self._spec = spec
        self._weights = weights
        one_token = Tokens(np.zeros(1, np.int32), np.empty(0, np.int32), prompt=0)
        (one_text,) = self.encode_tokens([(0, one_token)])
        self.dimension: int = one_text.raw.shape[1]

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of queries, all at once.

        Returns:
            float32, C-contiguous, shape (texts, dimension), in the order of the texts; unit length
            if the entry says `normalize`. An empty text has the vector of its prefix.

        Raises:
            PipelineError: a text is not Unicode (a lone surrogate), or its vector holds NaN or
                infinity or, if it is to be normalised, has no length.
        """
        return self._encode(texts, "query")

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages; as `encode_queries`, with the passages' prefix."""
        return self._encode(texts, "passage")

    def tokenizer(self, role: Role) -> Tokenizer:
        """Return what makes tokens of queries or passages; made once, for it takes a second."""
        if role not in self._tokenizers:
            self._tokenizers[role] = Tokenizer(
                self._tokenizer,
                prefix_of(self._spec, role),
                self._spec.max_tokens,
                f"encoders.{self._weights.name}",
            )
        return self._tokenizers[role]

    def encode_tokens(self, texts: Iterable[tuple[int, Tokens]]) -> Iterator[Encoded]:
        """Encode a stream of texts, each under a number of its own, in bounded memory.

        The texts of one length come out together, so not in their order; all have come out at the
        end. Vectors are not checked here: see `refuse_broken`.
        """
        spec = self._spec
        batcher = Batcher(self._computer.batch_tokens, spec.max_tokens, self._pad_id)

        def batches() -> Iterator[Batch]:
            for place, tokens in texts:
                if batch := batcher.add(place, tokens):
                    yield batch
            yield from batcher.flush()

        for batch, raw in self._computer.compute(batches()):
            yield Encoded(batch.places, raw, batch.ids.size)

    def _encode(self, texts: Sequence[str], role: Role) -> NDArray[np.float32]:
        raw = np.empty((len(texts), self.dimension), dtype=np.float32)
        for part in self.encode_tokens(enumerate(self.tokenizer(role)(texts))):
            raw[part.places] = part.raw
        refuse_broken(raw, texts, self._weights.name)
        return apply_contract(
            raw,
            self._spec,
            lambda row: f"encoders.{self._weights.name}: text {row} ({shorten(texts[row])})",
        )


def load_encoder(spec: Encoder, weights: LocalWeights, runtime: Runtime) -> TextEncoder:
    """Load an encoder onto the engine and device that `runtime` and its precision ask for.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.
        runtime: device, engine and threads; they change speed only.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, or cannot do what the entry asks
            (its pooling, `max_tokens` or `dimension`), or the device or engine cannot be had.
    """
    choice = resolve_engine(spec, weights, runtime)
    return load_on(choice, spec, weights, runtime.thread_count())


def load_on(
    choice: EngineChoice, spec: Encoder, weights: LocalWeights, threads: int
) -> TextEncoder:
    """Load an encoder onto the engine that `resolve_engine` returned for it; as `load_encoder`."""
    loaded = load_engine(choice, spec, weights, threads)
    encoder = TextEncoder(OnThreads(loaded.engine), loaded.tokenizer, loaded.pad_id, spec, weights)
    check_dimension(spec, weights, encoder.dimension)
    return encoder


@dataclass(frozen=True)
class LoadedEngine:
    """An engine with a model on it, and the model's tokenizer, JSON of the tokenizers library."""

    engine: Engine
    tokenizer: str
    pad_id: int


def load_engine(
    choice: EngineChoice, spec: Encoder, weights: LocalWeights, threads: int
) -> LoadedEngine:
    """Load an encoder's model onto an engine of this process; raises as `load_encoder`."""
    if choice.name == "openvino":
        if spec.precision == "int8" and not computes_in_8_bits():
            log.warning(
                "warning: encoders.%s.precision: int8 is no faster than float32 on this CPU, which "
                "has no 8-bit dot products (VNNI); its activations stay in float32",
                weights.name,
            )
        converted = converted_model(spec, weights)
        openvino = OpenVinoEngine(converted, threads)
        return LoadedEngine(openvino, converted.tokenizer(), converted.pad_id)
    from pipeline.encoders.model import load_model
    from pipeline.encoders.torch_engine import TorchEngine

    model = load_model(spec, weights)
    torch = TorchEngine(model, choice.device, spec.precision, threads)
    return LoadedEngine(torch, model.tokenizer, model.pad_id)


def resolve_engine(
    spec: Encoder, weights: LocalWeights, runtime: Runtime, *, convert: bool = True
) -> EngineChoice:
    """Return the engine that an encoder runs on here; its model is converted for it if need be.

    With `convert` False it is not, and one that was never converted counts as one that can be.

    Raises:
        PipelineError: as `choose_engine`; or openvino is asked for and cannot run the model.
    """
    choice = choose_engine(spec, runtime)
    if choice.name != "openvino":
        return choice
    refused = converted_model(spec, weights).refused if convert else known_refusal(spec, weights)
    if not refused:
        return choice
    if runtime.engine == "openvino" or spec.precision == "int8":
        raise PipelineError(
            f"encoders.{weights.name}: openvino cannot run this model: {refused}; use precision "
            "float32 with runtime.engine auto or torch"
        )
    log.warning("%s runs on torch, since for openvino %s", weights.name, refused)
    return EngineChoice("torch", choice.device)


def identity(
    spec: Encoder, weights: LocalWeights, engine: EngineChoice, role: Role
) -> dict[str, Any]:
    """Return all that a text's raw vector depends on, but for the text.

    Machines and environments with the same identity may share a store of vectors.
    """
    libraries: dict[str, str | int] = {name: version(name) for name in ("torch", "transformers")}
    if engine.name == "openvino":
        libraries = version_of(spec.precision)
    return {
        "engine": ", ".join(
            [computed_by(engine), *(f"{key} {of}" for key, of in libraries.items())]
        ),
        "form": _FORM,
        "max_tokens": spec.max_tokens,
        "pooling": spec.pooling,
        "precision": spec.precision,
        "prefix": prefix_of(spec, role),
        "weights": weights.sha256,
    }


def check_dimension(spec: Encoder, weights: LocalWeights, width: int) -> None:
    """Check that a model's vectors may be cut to the entry's `dimension`.

    A model that lists its `matryoshka_dimensions` in config.json is cut to one of those; for one
    that lists none see `warn_of_cut`.

    Args:
        spec: the entry.
        weights: its weights.
        width: the dimension of the model's own vectors.

    Raises:
        PipelineError: the model has fewer components, or was trained for other dimensions.
    """
    kept = spec.dimension
    if kept in ("model", width):
        return
    assert kept != "model"
    where = f"encoders.{weights.name}.dimension: {kept}"
    if kept > width:
        raise PipelineError(f"{where} is more than the model's {width} components; set model")
    trained = _trained_dimensions(weights)
    if trained and kept not in trained:
        raise PipelineError(
            f"{where}, but the model was trained to be cut at {', '.join(map(str, trained))}; set "
            "one of those, or model"
        )


def warn_of_cut(spec: Encoder, weights: LocalWeights, width: int) -> None:
    """Warn where a model's vectors are cut that, for all it says, was not trained for it."""
    if spec.dimension not in ("model", width) and not _trained_dimensions(weights):
        log.warning(
            "warning: encoders.%s.dimension: %s: nothing says that the model was trained to be cut "
            "(config.json has no matryoshka_dimensions); compare its nDCG with the whole",
            weights.name, spec.dimension,
        )  # fmt: skip


def _trained_dimensions(weights: LocalWeights) -> list[int]:
    """Return the dimensions that a model says it was trained to be cut at."""
    config = read_json(
        transformer_folder(weights.folder) / "config.json",
        "Restore the original file of the model.",
    )
    trained: list[int] = config.get("matryoshka_dimensions") or []
    return trained


def prefix_of(spec: Encoder, role: Role) -> str:
    """Return what goes before a text."""
    return spec.query_prefix if role == "query" else spec.passage_prefix


def refuse_broken(raw: Matrix, texts: Sequence[str], name: str) -> None:
    """Raise a `PipelineError` if a vector holds NaN or infinity; `name` is the encoder's."""
    broken = np.logical_not(np.isfinite(raw).all(axis=1))
    if broken.any():
        raise PipelineError(
            f"encoders.{name}: the vector of the text {shorten(texts[int(broken.argmax())])} holds "
            "NaN or infinity; the model's weights are damaged, do not fit its code, or do not bear "
            "the entry's precision"
        )
