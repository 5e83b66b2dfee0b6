"""Tiny random-weight models in real folders, so that tests run the real libraries in an instant."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.numpy
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    T5EncoderModel,
)

from pipeline.core.params import Encoder, Runtime
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import LocalWeights, resolve_weights
from tests.helpers.built_once import built_once

Family = Literal[
    "albert", "bert", "big_bird", "deberta-v2", "distilbert", "electra", "fnet", "gpt2", "llama",
    "longformer", "modernbert", "mpnet", "roberta", "t5", "xlm-roberta", "xlnet",
]  # fmt: skip
"""Architectures, by the names that transformers gives them."""

_ENDS = {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
_OWN: dict[Family, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    "distilbert": {"hidden_dim": 64},
    "electra": {"embedding_size": 16},
    "gpt2": {"bos_token_id": 2, "eos_token_id": 3},
    "longformer": {"attention_window": 16},
    "modernbert": {**_ENDS, "local_attention": 16, "global_attn_every_n_layers": 2},
    "t5": {"d_kv": 16, "d_ff": 64},
    "xlnet": {"d_inner": 64},
}
_UNKNOWN: dict[Family, tuple[str, ...]] = {
    "distilbert": ("intermediate_size",),
    "gpt2": ("intermediate_size",),
    "t5": ("intermediate_size", "max_position_embeddings", "initializer_range"),
    "xlnet": ("intermediate_size", "max_position_embeddings"),
}
_COUNT_FROM_PADDING = ("longformer", "mpnet", "roberta", "xlm-roberta")

# Padding is not 0, so that nothing can take it for that.
UNKNOWN, PAD = "[UNK]", "[PAD]"
SPECIAL = (UNKNOWN, PAD, "[CLS]", "[SEP]", "[MASK]")
WORDS = ("running", "shoe", "##s", "red", "camisa", "##eta", "algodon", "##ing", "the", "for")


@built_once
def build_model(
    folder: Path,
    *,
    family: Family = "bert",
    seed: int = 0,
    hidden: int = 32,
    layers: int = 2,
    max_positions: int = 128,
    tokenizer: Literal["bpe", "wordpiece"] | None = "bpe",
    pooling: str | None = "mean",
    dense: int | None = None,
    normalize: bool = True,
    prompts: dict[str, str] | None = None,
    pickled: bool = False,
    nan: bool = False,
) -> Path:
    """Write a sentence-transformers folder with a random model and return it.

    Equal arguments give equal files. A `distilbert` knows no token types; a `roberta` counts its
    positions from the padding token's id on; an `fnet` ignores the mask; in a `modernbert` and a
    `longformer` a token sees the 8 tokens before and after it; an `xlnet` has no bound. `bpe` reads
    every text, byte by byte; `wordpiece` splits ASCII into words and letters. `pooling=None` gives
    a plain transformers folder, without modules.json. `dense` adds a tanh layer of that many
    outputs. `prompts` are registered as the model's own, the first as its default. `pickled` writes
    pytorch_model.bin in place of safetensors. `nan` puts NaN into the last layer, so that every
    vector holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = {"bpe": byte_bpe, "wordpiece": wordpiece, None: byte_bpe}[tokenizer]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _transformer(family, reader, hidden, layers, max_positions)
        head = None if dense is None else torch.nn.Linear(hidden, dense)
    if nan:
        with torch.no_grad():
            model.encoder.layer[-1].output.LayerNorm.bias.fill_(float("nan"))
    config = {**model.config.to_dict(), "architectures": [type(model).__name__]}
    _write_json(folder / "config.json", config)
    _save(model, folder, pickled=pickled)
    if tokenizer is not None:
        save_tokenizer(folder, reader, max_positions)
    if pooling is None:
        return folder
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    output = {"word_embedding_dimension": hidden, "pooling_mode": pooling}
    _write_json(folder / "1_Pooling/config.json", output)
    if head is not None:
        modules.append(("2_Dense", "Dense"))
        shape = {"in_features": hidden, "out_features": dense, "bias": True}
        activation = {"activation_function": "torch.nn.modules.activation.Tanh"}
        _write_json(folder / "2_Dense/config.json", shape | activation)
        _save(torch.nn.ModuleDict({"linear": head}), folder / "2_Dense", pickled=pickled)
    if normalize:
        modules.append(("3_Normalize", "Normalize"))
    save_modules(folder, modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_positions})
    if prompts:
        registered = {"prompts": prompts, "default_prompt_name": next(iter(prompts))}
        _write_json(folder / "config_sentence_transformers.json", registered)
    return folder


def save_tokenizer(folder: Path, reader: Tokenizer, max_tokens: int) -> None:
    """Write the files of a tokenizer that knows the special tokens."""
    names = dict(zip(("unk", "pad", "cls", "sep", "mask"), SPECIAL, strict=True))
    PreTrainedTokenizerFast(
        tokenizer_object=reader,
        model_max_length=max_tokens,
        **{f"{name}_token": token for name, token in names.items()},
    ).save_pretrained(folder)


def save_modules(folder: Path, modules: Sequence[tuple[str, str]]) -> None:
    """Write modules.json for modules of sentence-transformers: their paths and classes."""
    _write_json(
        folder / "modules.json",
        [
            {
                "idx": at,
                "name": str(at),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for at, (path, kind) in enumerate(modules)
        ],
    )


def entry(folder: Path, **contract: Any) -> Encoder:
    """Return an entry of `encoders` for a model in a folder, its keys as given or plain."""
    return Encoder.model_validate(
        {
            "weights": {"kind": "folder", "path": str(folder)},
            "query_prefix": "", "passage_prefix": "", "pooling": "model", "normalize": True,
            "similarity": "cosine", "languages": ("any",), "max_tokens": 128,
            "dimension": "model", "precision": "float32",
        } | contract
    )  # fmt: skip


def runtime(engine: str = "torch", device: str = "cpu", threads: int = 1) -> Runtime:
    """Return runtime settings, those of the reference if nothing is said."""
    return Runtime.model_validate(
        {
            "engine": engine, "device": device, "threads": threads, "memory_limit": None,
            "store_gigabytes": 1, "executor": "local", "ray_address": None,
            "checkpoint_minutes": 5.0,
        }
    )  # fmt: skip


def weights_of(folder: Path, **contract: Any) -> LocalWeights:
    """Return the weights of a model in a folder, under the name `tiny`."""
    return resolve_weights(entry(folder, **contract), "tiny")


def encoder_of(
    folder: Path, *, engine: str = "torch", threads: int = 1, **contract: Any
) -> TextEncoder:
    """Load a model in a folder under the name `tiny`."""
    spec = entry(folder, **contract)
    return load_encoder(spec, resolve_weights(spec, "tiny"), runtime(engine, threads=threads))


def by_hand(
    folder: Path, texts: Sequence[str], pooling: str, max_tokens: int = 128
) -> NDArray[np.float32]:
    """Return raw vectors by one text at a time with plain transformers and poolings written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode():
            output = model(inputs["input_ids"], inputs["attention_mask"])
        tokens = output.last_hidden_state[0].numpy()
        weights = np.arange(1, len(tokens) + 1, dtype=np.float32)[:, None]
        pooled = {
            "mean": tokens.mean(axis=0),
            "cls": tokens[0],
            "max": tokens.max(axis=0),
            "mean_sqrt_len_tokens": tokens.sum(axis=0) / np.sqrt(len(tokens)),
            "weightedmean": (tokens * weights).sum(axis=0) / weights.sum(),
            "lasttoken": tokens[-1],
        }
        rows.append(pooled[pooling])
    return np.array(rows)


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file, or make one of them."""
    data = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    _write_json(path, data | changes)


def changed_json(name: str = "config.json", **changes: Any) -> Callable[[Path], None]:
    """Return what changes keys of a JSON file in a model's folder."""
    return lambda folder: edit_json(folder / name, **changes)


def changed_tensors(
    change: Callable[[dict[str, np.ndarray]], Any], inside: str = ""
) -> Callable[[Path], None]:
    """Return what changes the weights in a model's folder, or in a folder within."""

    def edit(folder: Path) -> None:
        file = folder / inside / "model.safetensors"
        tensors = safetensors.numpy.load_file(file)
        change(tensors)
        safetensors.numpy.save_file(tensors, file, metadata={"format": "pt"})

    return edit


def random_texts(rng: np.random.Generator, count: int, longest: int) -> list[str]:
    """Return texts of random characters, of one to four bytes each, and random lengths from 0."""
    sizes = rng.integers(0, longest, size=count)
    return ["".join(rng.choice(list("abc dé水🎁"), size=size)) for size in sizes]


def _transformer(
    family: Family, reader: Tokenizer, hidden: int, layers: int, max_positions: int
) -> torch.nn.Module:
    pad = int(reader.token_to_id(PAD) or 0)
    reserved = pad + 1 if family in _COUNT_FROM_PADDING else 0
    sizes: dict[str, Any] = {
        "vocab_size": reader.get_vocab_size(),
        "pad_token_id": pad,
        "initializer_range": 0.3,
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "intermediate_size": 2 * hidden,
        "max_position_embeddings": max_positions + reserved,
        **_OWN.get(family, {}),
    }
    for unknown in _UNKNOWN.get(family, ()):
        del sizes[unknown]
    if family == "xlnet":
        sizes["d_head"] = hidden // 2
    config = AutoConfig.for_model(family, **sizes)
    return T5EncoderModel(config) if family == "t5" else AutoModel.from_config(config)


def byte_bpe() -> Tokenizer:
    """Return a byte-level BPE without merges: any text, one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: idx for idx, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _framed(tokenizer)


def wordpiece() -> Tokenizer:
    """Return a lower-casing WordPiece of a few words and all ASCII letters and digits."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = dict.fromkeys((*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS))
    vocabulary = {token: idx for idx, token in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return _framed(tokenizer)


def _framed(tokenizer: Tokenizer) -> Tokenizer:
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=ends
    )
    return tokenizer


def _save(model: torch.nn.Module, folder: Path, *, pickled: bool) -> None:
    state = {name: values.clone().contiguous() for name, values in model.state_dict().items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, sort_keys=True), encoding="utf-8")
