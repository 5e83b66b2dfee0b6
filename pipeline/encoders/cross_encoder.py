"""A cross-encoder loaded as a torch module: the tokens of a pair in, its logits out."""

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.params import HubWeights, Reranker
from pipeline.encoders.distances import score_distance
from pipeline.encoders.model import (
    BUFFERS,
    LoadedModel,
    refuse_changed,
    refuse_report,
    reported,
)
from pipeline.encoders.model_folder import transformer_folder, view_decisive
from pipeline.encoders.obey_entry import (
    check_fast,
    check_max_tokens,
    check_token_ids,
    longest_input,
)
from pipeline.encoders.pairs import type_offset
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class PairModel(LoadedModel):
    """A model of pairs. A token of the second text comes as its id plus `offset`.

    Batches hold ids and a mask alone, and the type of a token is no function of these: a text may
    spell the separator.
    """

    offset: int = 0

    def features(self, ids: "torch.Tensor", mask: "torch.Tensor", prompt: int) -> dict[str, Any]:
        """Return the model's input; see `LoadedModel`."""
        del prompt  # pairs have none
        types = (ids >= self.offset).long()
        features = {"input_ids": ids - types * self.offset, "attention_mask": mask}
        return features | {"token_type_ids": types} if self.takes_types else features

    def distance(
        self, left: NDArray[np.float32], right: NDArray[np.float32]
    ) -> NDArray[np.float64]:
        """Return how far rows of logits are apart."""
        return score_distance(left, right)


def load_cross_encoder(spec: Reranker, weights: LocalWeights) -> PairModel:
    """Load a reranker's model, in float32 on the CPU.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, the tokenizer is of another
            model, or the model cannot read `max_tokens`.
    """
    import torch
    import transformers
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    entry = weights.entry
    remote_code = isinstance(spec.weights, HubWeights) and spec.weights.remote_code
    kept: dict[str, Any] = {"trust_remote_code": remote_code, "local_files_only": True}
    with view_decisive(weights.folder) as view, reported(view, weights.folder, entry):
        folder = transformer_folder(view)
        tokenizer = AutoTokenizer.from_pretrained(folder, **kept)
        model, report = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=torch.float32, ignore_mismatched_sizes=True,
            output_loading_info=True, **kept,
        )  # fmt: skip
    refuse_changed(spec, weights)
    base = f"{model.base_model_prefix}."
    refuse_report(
        {**report, "unexpected_keys": [k for k in report["unexpected_keys"] if k.startswith(base)]},
        lambda name: not name.endswith(BUFFERS),
        type(model).__name__, f"{entry}.weights: {weights.folder}",
    )  # fmt: skip
    check_fast(tokenizer, entry)
    check_token_ids(model, tokenizer, entry)
    longest, special = longest_input(model), tokenizer.num_special_tokens_to_add(pair=True)
    check_max_tokens(spec.max_tokens, longest, special, entry)
    library = tokenizer.backend_tokenizer
    library.enable_truncation(spec.max_tokens, direction=tokenizer.truncation_side)
    offset = type_offset(library)
    return PairModel(
        modules=torch.nn.Sequential(_module(model.eval())),
        tokenizer=library.to_str(),
        pad_id=tokenizer.pad_token_id or 0,
        vocabulary=2 * offset,
        longest=longest,
        special=special,
        takes_types=takes_types(model, tokenizer),
        offset=offset,
    )


def takes_types(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> bool:
    """Say whether a model reads token types, and its tokenizer gives them."""
    name = "token_type_ids"
    return (
        name in tokenizer.model_input_names and name in inspect.signature(model.forward).parameters
    )


def _module(model: "PreTrainedModel") -> "torch.nn.Module":
    """Return a module that takes `features` and gives the logits where an encoder has its vectors.

    So every engine computes both.
    """
    import torch

    class Logits(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return {"sentence_embedding": self.model(**features).logits}

    return Logits()
