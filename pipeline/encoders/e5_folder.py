"""The model of `e5_q4` as a standard sentence-transformers folder."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import PipelineError
from pipeline.core.files import canonical_json
from pipeline.encoders.e5_q4 import Model

_MODULES = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
"""The model's parts, in order: where each is in the folder, and its class."""


def write_model_folder(model: Model, tokenizer: bytes, folder: Path, file: str) -> None:
    """Write a sentence-transformers folder: mean pooling, normalised, equal bytes for equal input.

    The pooler of the original is left out; mean pooling does not use it.

    Args:
        model: the weights.
        tokenizer: the tokenizer.json to go with them.
        folder: an existing, empty directory.
        file: the tokenizer's name, for messages.

    Raises:
        PipelineError: the tokenizer's pieces are not the model's.
    """
    from safetensors.numpy import save_file

    _check_tokenizer(model, tokenizer, file)
    save_file(model.tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "tokenizer.json").write_bytes(tokenizer)
    for path, _ in _MODULES[1:]:
        (folder / path).mkdir()
    settings = {
        "config.json": _config(model),
        "tokenizer_config.json": _tokenizer_config(model),
        "sentence_bert_config.json": {
            "max_seq_length": model.sizes.positions,
            "do_lower_case": False,
        },
        "modules.json": [
            {
                "idx": idx,
                "name": str(idx),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for idx, (path, kind) in enumerate(_MODULES)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": model.sizes.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_mean_tokens": True,
        },
    }
    for name, content in settings.items():
        (folder / name).write_text(canonical_json(content), encoding="utf-8", newline="\n")


def _config(model: Model) -> dict[str, Any]:
    sizes = model.sizes
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_act": "gelu",
        "hidden_size": sizes.hidden,
        "intermediate_size": sizes.intermediate,
        "layer_norm_eps": model.layer_norm_eps,
        "max_position_embeddings": sizes.positions,
        "num_attention_heads": sizes.heads,
        "num_hidden_layers": sizes.layers,
        "pad_token_id": model.special.pad,
        "type_vocab_size": sizes.token_types,
        "vocab_size": sizes.vocabulary,
    }


def _tokenizer_config(model: Model) -> dict[str, Any]:
    pieces, special = model.pieces, model.special
    return {
        # Not XLMRobertaTokenizer, which would rebuild the tokenizer instead of reading it.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": pieces[special.bos],
        "cls_token": pieces[special.bos],
        "eos_token": pieces[special.eos],
        "sep_token": pieces[special.eos],
        "pad_token": pieces[special.pad],
        "unk_token": pieces[special.unk],
        "model_max_length": model.sizes.positions,
        "clean_up_tokenization_spaces": False,
    }


def _check_tokenizer(model: Model, tokenizer: bytes, file: str) -> None:
    """Raise unless the tokenizer has the model's pieces, with the model's scores."""
    try:
        vocabulary = [
            (str(piece), float(score)) for piece, score in json.loads(tokenizer)["model"]["vocab"]
        ]
    except (ValueError, KeyError, TypeError, RecursionError) as err:
        raise PipelineError(
            f"{file} is not a unigram tokenizer.json ({err!r}). Pin the tokenizer of "
            "multilingual-e5-small."
        ) from err
    pieces = [piece for piece, _ in vocabulary]
    scores = np.array([score for _, score in vocabulary], dtype=np.float32)
    if pieces != model.pieces or not np.array_equal(scores, model.scores):
        raise PipelineError(
            f"{file} is not the tokenizer of these weights: its {len(pieces)} pieces differ from "
            f"the {len(model.pieces)} of the weights. Pin the tokenizer of multilingual-e5-small."
        )
