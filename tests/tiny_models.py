"""Tiny random-weight models in real folders, so that tests run the real libraries in an instant."""

import json
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("running", "shoe", "##s", "red", "camisa", "##eta", "algodon", "##ing", "the", "for")


def build_model(
    folder: Path,
    *,
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
    """Write a sentence-transformers folder with a random BERT and return it.

    Equal arguments give equal files. `bpe` reads every text, byte by byte; `wordpiece` splits
    ASCII into words and letters. `pooling=None` gives a plain transformers folder, without
    modules.json. `dense` adds a tanh layer of that many outputs. `prompts` are registered as the
    model's own, the first as its default. `pickled` writes pytorch_model.bin in place of
    safetensors. `nan` puts NaN into the last layer, so that every vector holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reader = {"bpe": _byte_bpe, "wordpiece": _wordpiece, None: _byte_bpe}[tokenizer]()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=reader.get_vocab_size(),
            hidden_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            intermediate_size=2 * hidden,
            max_position_embeddings=max_positions,
            initializer_range=0.3,
        )
        model = BertModel(config)
        head = None if dense is None else torch.nn.Linear(hidden, dense)
    if nan:
        with torch.no_grad():
            model.encoder.layer[-1].output.LayerNorm.bias.fill_(float("nan"))
    _write_json(folder / "config.json", {**config.to_dict(), "architectures": ["BertModel"]})
    _save(model, folder, pickled=pickled)
    if tokenizer is not None:
        names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIAL, strict=True))
        PreTrainedTokenizerFast(
            tokenizer_object=reader,
            model_max_length=max_positions,
            **{f"{name}_token": token for name, token in names.items()},
        ).save_pretrained(folder)
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
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_positions})
    if prompts:
        registered = {"prompts": prompts, "default_prompt_name": next(iter(prompts))}
        _write_json(folder / "config_sentence_transformers.json", registered)
    return folder


def _byte_bpe() -> Tokenizer:
    """Return a byte-level BPE without merges: any text, one token a byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: idx for idx, token in enumerate((*SPECIAL, *alphabet))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _framed(tokenizer)


def _wordpiece() -> Tokenizer:
    """Return a lower-casing WordPiece of a few words and all ASCII letters and digits."""
    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()]
    pieces = dict.fromkeys((*SPECIAL, *letters, *(f"##{letter}" for letter in letters), *WORDS))
    vocabulary = {token: idx for idx, token in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token=SPECIAL[1]))
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
    state = {name: values.contiguous() for name, values in model.state_dict().items()}
    if pickled:
        torch.save(state, folder / "pytorch_model.bin")
    else:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})


def _write_json(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2, sort_keys=True), encoding="utf-8")
