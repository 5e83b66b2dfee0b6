"""Tiny random JinaBERT models under the published names, and their vectors by plain numpy.

The numpy reading follows the papers, in float64 and one text at a time: BERT (arXiv 1810.04805),
ALiBi (arXiv 2108.12409), GEGLU (arXiv 2002.05202), jina-embeddings-v2 (arXiv 2310.19923).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import erf, softmax
from transformers import AutoTokenizer

from tests.helpers.built_once import built_once
from tests.helpers.tiny_models import PAD, edit_json, save_modules, save_tokenizer, wordpiece

_CODE = "jinaai/jina-bert-implementation--"
_BLOCK = 512  # queries that are computed at once, so that long texts need little memory
_SPARE_ROWS = 6  # the published models too have rows that no token uses


@built_once
def build_jina(
    folder: Path,
    *,
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    heads: int = 4,
    max_positions: int = 8192,
    dtype: str = "float32",
    pooling: str | None = "mean",
    prefix: str = "",
    pooler: bool = True,
) -> Path:
    """Write a folder as that of jina-embeddings-v2-small-en, with random weights, and return it.

    Equal arguments give equal files. `pooling=None` leaves modules.json out. `prefix` goes before
    every tensor's name. `pooler` adds the tensors of BERT's pooler, which no vector depends on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = wordpiece()
    rows = reader.get_vocab_size() + _SPARE_ROWS
    edit_json(
        folder / "config.json",
        _name_or_path="jinaai/jina-bert-implementation",
        architectures=["JinaBertForMaskedLM"],
        attention_probs_dropout_prob=0.1,
        auto_map={
            "AutoConfig": f"{_CODE}configuration_bert.JinaBertConfig",
            "AutoModel": f"{_CODE}modeling_bert.JinaBertModel",
            "AutoModelForMaskedLM": f"{_CODE}modeling_bert.JinaBertForMaskedLM",
        },
        classifier_dropout=None,
        emb_pooler="mean",
        feed_forward_type="geglu",
        gradient_checkpointing=False,
        hidden_act="gelu",
        hidden_dropout_prob=0.1,
        hidden_size=hidden,
        initializer_range=0.02,
        intermediate_size=2 * hidden,
        layer_norm_eps=1e-12,
        max_position_embeddings=max_positions,
        model_max_length=max_positions,
        model_type="bert",
        num_attention_heads=heads,
        num_hidden_layers=layers,
        pad_token_id=reader.token_to_id(PAD),
        position_embedding_type="alibi",
        torch_dtype=dtype,
        transformers_version="4.26.0",
        type_vocab_size=2,
        use_cache=True,
        vocab_size=rows,
    )
    rng = np.random.default_rng(seed)
    tensors = {
        prefix + name: _drawn(rng, name, shape).astype(dtype)
        for name, shape in _shapes(rows, hidden, layers, pooler=pooler).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    save_tokenizer(folder, reader, max_positions)
    if pooling is not None:
        edit_json(
            folder / "1_Pooling/config.json", word_embedding_dimension=hidden, pooling_mode=pooling
        )
        save_modules(folder, [("", "Transformer"), ("1_Pooling", "Pooling")])
        edit_json(folder / "sentence_bert_config.json", max_seq_length=max_positions)
    return folder


def jina_by_hand(
    folder: Path, texts: Sequence[str], *, max_tokens: int = 8192
) -> NDArray[np.float64]:
    """Return the mean-pooled vectors of texts, not normalised, shape [texts, hidden]."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights = {
        name.removeprefix("bert."): values.astype(np.float64)
        for name, values in load_file(folder / "model.safetensors").items()
    }
    ids = [tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"] for text in texts]
    return np.stack([_tokens_by_hand(np.array(one), weights, config).mean(axis=0) for one in ids])


def alibi_slopes(heads: int) -> list[float]:
    """Return the slopes of ALiBi's paper, and of its authors' code for other numbers of heads."""
    below = 2 ** int(np.log2(heads))  # the nearest power of two, not above
    slopes = [2 ** (-8 * (head + 1) / below) for head in range(below)]
    between = [2 ** (-8 * (head + 1) / (2 * below)) for head in range(2 * below)]
    return slopes + between[::2][: heads - below]


def _tokens_by_hand(
    ids: NDArray[np.int64], weights: dict[str, NDArray[np.float64]], config: dict[str, Any]
) -> NDArray[np.float64]:
    heads, epsilon = config["num_attention_heads"], config["layer_norm_eps"]
    slopes = alibi_slopes(heads)
    places = np.arange(len(ids))

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ weights[f"{name}.weight"].T + weights.get(f"{name}.bias", 0)

    def norm(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
        normed: NDArray[np.float64] = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
        return normed

    words = weights["embeddings.word_embeddings.weight"][ids]
    x = norm(words + weights["embeddings.token_type_embeddings.weight"][0], "embeddings.LayerNorm")
    width = x.shape[1] // heads
    for layer in range(config["num_hidden_layers"]):
        attention, mlp = (f"encoder.layer.{layer}.{part}" for part in ("attention", "mlp"))
        read = np.zeros_like(x)
        q, k, v = (linear(x, f"{attention}.self.{part}") for part in ("query", "key", "value"))
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            for some in np.array_split(places, 1 + len(ids) // _BLOCK):
                scores = q[some, own] @ k[:, own].T / np.sqrt(width)
                scores -= slopes[head] * abs(some[:, None] - places[None])
                read[some, own] = softmax(scores, axis=-1) @ v[:, own]
        x = norm(x + linear(read, f"{attention}.output.dense"), f"{attention}.output.LayerNorm")
        gate, value = np.split(linear(x, f"{mlp}.gated_layers"), 2, axis=-1)
        gelu = gate * (1 + erf(gate / np.sqrt(2))) / 2
        x = norm(x + linear(gelu * value, f"{mlp}.wo"), f"{mlp}.layernorm")
    return x


def _shapes(rows: int, hidden: int, layers: int, *, pooler: bool) -> dict[str, tuple[int, ...]]:
    square, flat = (hidden, hidden), (hidden,)
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (rows, hidden),
        "embeddings.token_type_embeddings.weight": (2, hidden),
        "embeddings.LayerNorm.weight": flat,
        "embeddings.LayerNorm.bias": flat,
    }
    for layer in range(layers):
        attention, mlp = (f"encoder.layer.{layer}.{part}" for part in ("attention", "mlp"))
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes[f"{attention}.{part}.weight"] = square
            shapes[f"{attention}.{part}.bias"] = flat
        shapes[f"{mlp}.gated_layers.weight"] = (4 * hidden, hidden)
        shapes[f"{mlp}.wo.weight"] = (hidden, 2 * hidden)
        shapes[f"{mlp}.wo.bias"] = flat
        for part in (f"{attention}.output.LayerNorm", f"{mlp}.layernorm"):
            shapes[f"{part}.weight"] = shapes[f"{part}.bias"] = flat
    if pooler:
        shapes |= {"pooler.dense.weight": square, "pooler.dense.bias": flat}
    return shapes


def _drawn(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[np.float64]:
    around_one = name.lower().endswith("layernorm.weight")
    drawn: NDArray[np.float64] = rng.normal(1 if around_one else 0, 0.3, shape)
    return drawn
