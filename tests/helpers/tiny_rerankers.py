"""Tiny random-weight cross-encoders in real folders."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import processors
from transformers import AutoConfig, AutoModelForSequenceClassification

from pipeline.core.params import Reranker
from pipeline.encoders.weights import LocalWeights, resolve_weights
from tests.helpers.built_once import built_once
from tests.helpers.tiny_models import Family, byte_bpe, edit_json, save_tokenizer

LONGEST = 96
_RESERVED = {"roberta": 2, "xlm-roberta": 2}  # positions before the first token's


@built_once
def build_reranker(
    folder: Path,
    *,
    family: Family = "bert",
    labels: int = 1,
    seed: int = 0,
    nan: bool = False,
    vocabulary: int | None = None,
) -> Path:
    """Write a folder with a random cross-encoder and return it; equal arguments, equal files.

    A `bert` has token types, a `roberta` and a `distilbert` have none. Every text is read, byte by
    byte. `nan` puts NaN into the head. There are `vocabulary` embeddings; None: one for each token.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = byte_bpe()
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    sizes: dict[str, Any] = {
        "vocab_size": vocabulary or tokenizer.get_vocab_size(),
        "pad_token_id": 1,
        "initializer_range": 0.3,
        "max_position_embeddings": LONGEST + _RESERVED.get(family, 0),
        "num_labels": labels,
    }
    if family == "distilbert":
        sizes |= {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64}
    else:
        sizes |= {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "intermediate_size": 64,
        }  # fmt: skip
    config = AutoConfig.for_model(family, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForSequenceClassification.from_config(config)
    if nan:
        with torch.no_grad():
            model.classifier.bias.fill_(float("nan"))
    state = {name: values.clone().contiguous() for name, values in model.state_dict().items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    edit_json(
        folder / "config.json", **config.to_dict() | {"architectures": [type(model).__name__]}
    )
    save_tokenizer(folder, tokenizer, LONGEST)
    edit_json(
        folder / "tokenizer_config.json",
        model_input_names=["input_ids", "attention_mask"]
        + (["token_type_ids"] if family == "bert" else []),
    )
    return folder


def reranker(folder: Path, **contract: Any) -> Reranker:
    """Return an entry of `rerankers` for a model in a folder, its keys as given or plain."""
    gains = (1.0, 0.1, 0.01, 0.0) if contract.get("labels") == 4 else None
    return Reranker.model_validate(
        {
            "weights": {"kind": "folder", "path": str(folder)},
            "fields": "all", "max_tokens": LONGEST, "labels": 1, "gains": gains,
            "activation": "identity", "languages": ("any",), "precision": "float32",
        } | contract
    )  # fmt: skip


def reranker_weights(folder: Path, **contract: Any) -> LocalWeights:
    """Return the weights of a cross-encoder in a folder, under the name `tiny`."""
    return resolve_weights(reranker(folder, **contract), "tiny")
