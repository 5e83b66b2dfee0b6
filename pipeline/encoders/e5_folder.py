"""The model of `e5_q4` as a standard sentence-transformers folder."""

import json
from pathlib import Path

import numpy as np

from pipeline.core.errors import PipelineError
from pipeline.core.files import canonical_json
from pipeline.encoders.e5_q4 import Model


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
    sizes, special = model.sizes, model.special
    bos, eos = model.pieces[special.bos], model.pieces[special.eos]
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    contents = {
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_act": "gelu",
            "hidden_size": sizes.hidden,
            "intermediate_size": sizes.intermediate,
            "layer_norm_eps": model.layer_norm_eps,
            "max_position_embeddings": sizes.positions,
            "num_attention_heads": sizes.heads,
            "num_hidden_layers": sizes.layers,
            "pad_token_id": special.pad,
            "type_vocab_size": sizes.token_types,
            "vocab_size": sizes.vocabulary,
        },
        "tokenizer_config.json": {
            # Not XLMRobertaTokenizer, which would rebuild the tokenizer instead of reading it.
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": bos,
            "cls_token": bos,
            "eos_token": eos,
            "sep_token": eos,
            "pad_token": model.pieces[special.pad],
            "unk_token": model.pieces[special.unk],
            "model_max_length": sizes.positions,
            "clean_up_tokenization_spaces": False,
        },
        "sentence_bert_config.json": {"max_seq_length": sizes.positions, "do_lower_case": False},
        "modules.json": [
            {
                "idx": idx,
                "name": str(idx),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for idx, (path, kind) in enumerate(modules)
        ],
        "1_Pooling/config.json": {
            "word_embedding_dimension": sizes.hidden,
            "pooling_mode_cls_token": False,
            "pooling_mode_max_tokens": False,
            "pooling_mode_mean_sqrt_len_tokens": False,
            "pooling_mode_mean_tokens": True,
        },
    }
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, content in contents.items():
        (folder / name).write_text(canonical_json(content), encoding="utf-8", newline="\n")


def _check_tokenizer(model: Model, tokenizer: bytes, file: str) -> None:
    """Raise unless the tokenizer has the model's pieces, with the model's scores."""
    try:
        vocabulary = [
            (str(piece), float(score)) for piece, score in json.loads(tokenizer)["model"]["vocab"]
        ]
    except (ValueError, KeyError, TypeError) as err:
        raise PipelineError(f"{file} is not a unigram tokenizer.json ({err!r})") from err
    pieces = [piece for piece, _ in vocabulary]
    scores = np.array([score for _, score in vocabulary], dtype=np.float32)
    if pieces != model.pieces or not np.array_equal(scores, model.scores):
        raise PipelineError(
            f"{file} is not the tokenizer of these weights: it has {len(pieces)} pieces, the "
            f"weights {len(model.pieces)}, and they differ; pin the tokenizer of "
            "multilingual-e5-small"
        )
