"""From an entry and its weights to an encoder on an engine of this process."""

from dataclasses import dataclass, replace

from pipeline.core.cpu import bfloat16_instructions, widest_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Encoder, Entry, Runtime
from pipeline.encoders.dimension import check_dimension
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.engine import Engine, EngineChoice, OnThreads, choose_engine
from pipeline.encoders.openvino_engine import OpenVinoEngine, computes_in_8_bits
from pipeline.encoders.openvino_model import converted_model, known_refusal
from pipeline.encoders.padding import known_padding, may_pad
from pipeline.encoders.weights import LocalWeights


def load_encoder(spec: Encoder, weights: LocalWeights, runtime: Runtime) -> TextEncoder:
    """Load an encoder onto the engine and device that `runtime` and its precision ask for.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.
        runtime: device, engine and threads; they change speed only.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, or cannot do what the entry asks
            (its pooling, `max_tokens` or `dimension`), or the device or engine is unavailable.
    """
    choice = resolve_engine(spec, weights, runtime)
    return load_on(choice, spec, weights, runtime.thread_count())


def load_on(
    choice: EngineChoice, spec: Encoder, weights: LocalWeights, threads: int
) -> TextEncoder:
    """Load an encoder onto the engine that `resolve_engine` returned for it; as `load_encoder`."""
    loaded = load_engine(choice, spec, weights, threads)
    computer = OnThreads(loaded.engine)
    encoder = TextEncoder(
        computer, loaded.tokenizer, loaded.pad_id, spec, weights, pads=choice.pads
    )
    check_dimension(spec, weights, encoder.dimension)
    return encoder


@dataclass(frozen=True)
class LoadedEngine:
    """An engine with a model on it, and the model's tokenizer, JSON of the tokenizers library."""

    engine: Engine
    tokenizer: str
    pad_id: int


def load_engine(
    choice: EngineChoice, spec: Entry, weights: LocalWeights, threads: int
) -> LoadedEngine:
    """Load an encoder's model onto an engine of this process; raises as `load_encoder`."""
    if choice.name == "openvino":
        if spec.precision == "int8":
            _warn_of_slow_int8(weights.entry)
        converted = choice.converted or converted_model(spec, weights)
        openvino = OpenVinoEngine(converted.folder, threads, spec.precision)
        return LoadedEngine(openvino, converted.tokenizer(), converted.pad_id)
    from pipeline.encoders.model import load_any
    from pipeline.encoders.torch_engine import TorchEngine

    model = load_any(spec, weights)
    torch = TorchEngine(model, choice.device, spec.precision, threads)
    return LoadedEngine(torch, model.tokenizer, model.pad_id)


def _warn_of_slow_int8(entry: str) -> None:
    if bfloat16_instructions() == "amx_bf16":
        log.warning(
            "warning: %s.precision: int8 is no faster than float32 on this CPU, which has AMX. Use "
            "bfloat16, which is faster and more exact", entry,
        )  # fmt: skip
    elif not computes_in_8_bits():
        log.warning(
            "warning: %s.precision: int8 is no faster than float32 on this CPU, which has no 8-bit "
            "dot products (VNNI); its activations stay in float32", entry,
        )  # fmt: skip


def resolve_engine(
    spec: Entry, weights: LocalWeights, runtime: Runtime, *, convert: bool = True
) -> EngineChoice:
    """Return the engine that an encoder runs on here; its model is tried, and converted if need be.

    With `convert` False nothing is loaded: a model that was never tried counts as one that any
    engine can run.

    Raises:
        PipelineError: as `choose_engine` and `find_padding`; the CPU has no instructions for
            bfloat16; or openvino is needed and cannot run the model.
    """
    choice = choose_engine(spec, runtime)
    if spec.precision == "bfloat16" and choice.device == "cpu" and not bfloat16_instructions():
        raise PipelineError(
            f"{weights.entry}.precision: bfloat16 needs a GPU, or a CPU with amx_bf16 or "
            f"avx512_bf16 (found {widest_instructions()}). Use float32 or int8."
        )
    converted = None
    refused = ""
    if choice.name == "openvino" and convert:
        converted = converted_model(spec, weights)
        refused = converted.refused
    elif choice.name == "openvino":
        refused = known_refusal(spec, weights)
    if refused:
        if runtime.engine == "openvino" or spec.precision != "float32":
            raise PipelineError(
                f"{weights.entry}: openvino cannot run this model: {refused}. Use "
                "precision float32 with runtime.engine auto or torch."
            )
        log.warning("warning: %s runs on torch: for openvino %s", weights.entry, refused)
        choice = EngineChoice("torch", choice.device)
        converted = None
    pads = may_pad(spec, weights) if convert else known_padding(spec, weights)
    if not pads:
        log.warning(
            "warning: %s: the model mixes padding into its vectors, so its texts are encoded one "
            "length at a time, which is slower",
            weights.entry,
        )
    return replace(choice, pads=pads, converted=converted)
