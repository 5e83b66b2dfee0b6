"""A model folder loaded as torch modules that obey an encoder's entry."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import LONGEST_CAUSE, PipelineError, one_line
from pipeline.core.params import Encoder, Entry, FolderWeights, HubWeights
from pipeline.encoders.distances import cosine_distance
from pipeline.encoders.model_folder import folder_sha256, transformer_folder, view_decisive
from pipeline.encoders.model_settings import read_settings
from pipeline.encoders.obey_entry import apply_entry, longest_input
from pipeline.encoders.own_code import JINA_BERT, JINA_FORM, is_jina_bert, write_native_config
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import PreTrainedModel


BUFFERS = (
    ".position_ids",
    ".token_type_ids",
    ".masked_bias",
    ".rotary_emb.inv_freq",
    ".attn.bias",
)
"""Ends of the names of what old checkpoints hold and models now compute."""


@dataclass(frozen=True)
class LoadedModel:
    """A model that pools but does not normalise, in float32 on the CPU.

    Attributes:
        modules: the model.
        tokenizer: its tokenizer, as JSON of the tokenizers library.
        pad_id: the token id that fills the places without a token.
        vocabulary: how many token ids it knows, from 0 on.
        longest: how many tokens it has positions for; None if it is not bounded.
        special: how many special tokens go with every text.
        takes_types: whether it wants token types beside ids and mask.
    """

    modules: "SentenceTransformer"
    tokenizer: str
    pad_id: int
    vocabulary: int
    longest: int | None
    special: int
    takes_types: bool

    def features(self, ids: "torch.Tensor", mask: "torch.Tensor", prompt: int) -> dict[str, Any]:
        """Return the model's input for token ids and their mask, int64, shape [rows, length].

        The first `prompt` tokens of each row are its prefix's.
        """
        features: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "prompt_length": prompt,
        }
        if self.takes_types:
            features["token_type_ids"] = ids * 0
        return features

    def pool(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], prompt: int = 0
    ) -> NDArray[np.float32]:
        """Return the vectors of a batch, float32, shape [rows, dimension]; takes `features`'s."""
        import torch

        with torch.inference_mode():
            features = self.features(torch.from_numpy(ids), torch.from_numpy(mask), prompt)
            pooled: NDArray[np.float32] = self.modules(features)["sentence_embedding"].numpy()
        return pooled

    def distance(
        self, left: NDArray[np.float32], right: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return how far rows of the output are apart: 0 for the same, [rows]."""
        return cosine_distance(left, right)


def load_any(spec: Entry, weights: LocalWeights) -> LoadedModel:
    """Load the model of an encoder or a reranker; raises as their own functions do."""
    if isinstance(spec, Encoder):
        return load_model(spec, weights)
    from pipeline.encoders.cross_encoder import load_cross_encoder

    return load_cross_encoder(spec, weights)


def load_model(spec: Encoder, weights: LocalWeights) -> LoadedModel:
    """Load an encoder's model.

    The model's own prompts do not count. An explicit `pooling` replaces the model's own; the layers
    after it, such as a dense one, stay. The model's closing normalisation is removed, so that
    `normalize: false` is obeyed.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, or cannot do what the entry asks
            (its pooling, its `max_tokens`).
    """
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    # What they would report is checked here instead, and made an error.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    entry = weights.entry
    loaded = _load(spec, weights)
    modules = apply_entry(list(loaded.children()), spec, entry)
    model = SentenceTransformer(modules=modules, device="cpu").eval()
    transformer = modules[0]
    assert isinstance(transformer, Transformer)
    tokenizer = transformer.tokenizer
    # Only transformers knows which end of a text is cut off.
    library = tokenizer.backend_tokenizer
    library.enable_truncation(spec.max_tokens, direction=tokenizer.truncation_side)
    return LoadedModel(
        modules=model,
        tokenizer=library.to_str(),
        pad_id=tokenizer.pad_token_id or 0,
        vocabulary=len(tokenizer),
        longest=longest_input(transformer.auto_model),
        special=tokenizer.num_special_tokens_to_add(),
        takes_types="token_type_ids" in tokenizer.model_input_names,
    )


def traceable(model: LoadedModel) -> "torch.nn.Module":
    """Return a model as what a converter traces: ids and mask, int64 [rows, length], to vectors.

    It pools as `LoadedModel.pool` does, without a prompt.
    """
    import torch

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.modules_ = model.modules

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            features = model.features(ids, mask, prompt=0)
            for module in self.modules_:
                features = module(features)
            pooled: torch.Tensor = features["sentence_embedding"]
            return pooled

    return Pooled().eval()


def _load(spec: Encoder, weights: LocalWeights) -> "SentenceTransformer":
    """Load the folder's decisive files, and make sure that no weight was made up."""
    import torch
    from sentence_transformers import SentenceTransformer

    entry = weights.entry
    remote_code = isinstance(spec.weights, HubWeights) and spec.weights.remote_code
    with view_decisive(weights.folder) as view, reported(view, weights.folder, entry):
        use_built_in(transformer_folder(view))
        loaded = SentenceTransformer(
            str(view),
            device="cpu",
            trust_remote_code=remote_code,
            local_files_only=True,
            # Some checkpoints are stored in float16, which transformers would compute in.
            # Other shapes are refused below, by name.
            model_kwargs={"dtype": torch.float32, "ignore_mismatched_sizes": True},
        )
        model = getattr(loaded[0], "auto_model", None)
        if model is None:
            return loaded  # a first module of another kind, which `apply_entry` refuses
        # A second reading, since only this one says which weights were not used.
        _, report = type(model).from_pretrained(
            transformer_folder(view),
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            trust_remote_code=remote_code,
            local_files_only=True,
        )
    refuse_changed(spec, weights)
    _refuse_other_weights(model, report, f"{entry}.weights: {weights.folder}")
    return loaded


def refuse_changed(spec: Entry, weights: LocalWeights) -> None:
    """Raise a `PipelineError` if a user's folder changed: nothing guards it after its hash."""
    if isinstance(spec.weights, FolderWeights) and folder_sha256(weights.folder) != weights.sha256:
        raise PipelineError(
            f"{weights.entry}.weights: {weights.folder} changed while it was read. Run the stage "
            "again once nothing writes there."
        )


def built_in_form(weights: LocalWeights) -> dict[str, int]:
    """Return the form of the class that is built in here for a model; empty if there is none.

    The vectors depend on it too, beside the model's files and the libraries.
    """
    settings = read_settings(transformer_folder(weights.folder) / "config.json")
    return {JINA_BERT: JINA_FORM} if is_jina_bert(settings) else {}


def use_built_in(transformer: Path) -> None:
    """Make transformers load the class that is built in here, where config.json asks for it."""
    config = transformer / "config.json"
    settings = read_settings(config)
    if is_jina_bert(settings):
        from pipeline.encoders.jina_bert import register

        register()
        write_native_config(config, settings)


def _refuse_other_weights(model: "PreTrainedModel", report: Mapping[str, Any], where: str) -> None:
    """Refuse weights that are not those of a model's own parts, one for one.

    transformers fills those that are lacking at random, and leaves out those that have no place. A
    pooler decides no vector. The head of another task, such as a language model's, has no part in
    the model, and may be there.
    """
    parts = {name for name, _ in model.named_children()} - {"pooler"}

    def count(name: str) -> bool:
        first = name.removeprefix(f"{model.base_model_prefix}.").split(".", 1)[0]
        return first in parts and not name.endswith(BUFFERS)

    refuse_report(report, count, type(model).__name__, where)


def refuse_report(
    report: Mapping[str, Any], count: Callable[[str], bool], model: str, where: str
) -> None:
    """Refuse what transformers reports of a checkpoint, of the weights that count.

    Args:
        report: which weights lack, are of another shape, or have no place.
        count: says of a weight's name whether it decides anything.
        model: the class of the model.
        where: the key of the weights and their folder, for messages.
    """
    lacking = sorted(filter(count, report["missing_keys"]))
    beside = sorted(filter(count, report["unexpected_keys"]))
    misshapen = sorted(found for found in report["mismatched_keys"] if count(found[0]))
    if lacking:
        raise PipelineError(
            f"{where} lacks {len(lacking)} of the model's weights, such as {lacking[0]}. Copy the "
            "model again from where it came from."
        )
    if misshapen:
        name, found, expected = misshapen[0]
        raise PipelineError(
            f"{where}: {name} must have the shape {list(expected)}, by config.json (found "
            f"{list(found)}). Copy the model again from where it came from."
        )
    if beside:
        raise PipelineError(
            f"{where} holds weights that {model} has no place for ({len(beside)}, "
            f"such as {beside[0]}), so they are not those of its config.json. Use another model."
        )


@contextlib.contextmanager
def reported(view: Path, folder: Path, entry: str) -> Iterator[None]:
    """Turn what the libraries raise over a folder's content into one message.

    Args:
        view: the folder that they read.
        folder: the folder that the message names instead.
        entry: the entry's key in params.yaml.
    """
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except Exception as err:  # damaged files make them raise nearly anything
        cause = (one_line(err) or repr(err)).replace(str(view), str(folder))[:LONGEST_CAUSE]
        raise PipelineError(
            f"{entry}.weights: {folder} cannot be loaded: {cause.rstrip('.')}. Use a whole copy of "
            "the model, or another model."
        ) from err
