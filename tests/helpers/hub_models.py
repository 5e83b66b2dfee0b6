"""Small folders with the architecture of each hub model in params.yaml, and random weights.

Modules, their order and sizes, the kind of tokenizer, its special tokens and their ids are those of
the published models; layers, feed-forward size and vocabulary are fewer.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

WORDS = (  # noqa: SIM905
    "running shoe shoes red waterproof for men women the with steel bottle kitchen camiseta de "
    "algodón para niño zapatillas mochila señora réflex cámara botella más barata 水筒 子供 靴 "
    "スニーカー 防水 ステンレス の と 1リットル ケース für größe naïve"
).split()


@dataclass(frozen=True)
class Shape:
    """What a published model is made of."""

    family: Literal["bert", "distilbert", "xlm-roberta"]
    tokenizer: Literal["cased", "uncased", "xlm-roberta"]
    hidden: int
    positions: int
    max_tokens: int
    pooling: Literal["mean", "cls"] = "mean"
    dense: int | None = None
    normalize: bool = True


SHAPES = {
    "labse": Shape("bert", "cased", 768, 512, 256, pooling="cls", dense=768),
    "distiluse-v1": Shape("distilbert", "cased", 768, 512, 128, dense=512, normalize=False),
    "distiluse-v2": Shape("distilbert", "cased", 768, 512, 128, dense=512, normalize=False),
    "e5-small": Shape("bert", "xlm-roberta", 384, 512, 512),
    "e5-base": Shape("xlm-roberta", "xlm-roberta", 768, 514, 512),
    "minilm-l12": Shape("bert", "uncased", 384, 512, 128),
    "quora-distilbert-multilingual": Shape("distilbert", "cased", 768, 512, 128, normalize=False),
}
"""By the names in params.yaml."""


CLASSES = {
    "cased": "BertTokenizer",
    "uncased": "BertTokenizer",
    "xlm-roberta": "XLMRobertaTokenizer",
}
"""The classes that their settings name."""


def build_hub_model(folder: Path, name: str, seed: int = 0) -> Path:
    """Write the folder of an entry's model as its repository holds it, and return it."""
    shape = SHAPES[name]
    folder.mkdir(parents=True)
    tokenizer = _tokenizer(shape)
    tokenizer.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    _write(
        folder / "tokenizer_config.json", settings | {"tokenizer_class": CLASSES[shape.tokenizer]}
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _transformer(shape, len(tokenizer))
        dense = None if shape.dense is None else torch.nn.Linear(shape.hidden, shape.dense)
    model.save_pretrained(folder)
    modules = [("Transformer", ""), ("Pooling", "1_Pooling")]
    modes = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    chosen = {"mean": "mean_tokens", "cls": "cls_token"}[shape.pooling]
    _write(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": shape.hidden}
        | {f"pooling_mode_{mode}": mode == chosen for mode in modes},
    )
    if dense is not None:
        modules.append(("Dense", "2_Dense"))
        sizes = {"in_features": shape.hidden, "out_features": shape.dense, "bias": True}
        tanh = {"activation_function": "torch.nn.modules.activation.Tanh"}
        _write(folder / "2_Dense/config.json", sizes | tanh)
        weights = {f"linear.{key}": value for key, value in dense.state_dict().items()}
        save_file(weights, folder / "2_Dense/model.safetensors")
    if shape.normalize:
        modules.append(("Normalize", f"{len(modules)}_Normalize"))
    _write(
        folder / "modules.json",
        [
            {
                "idx": at,
                "name": str(at),
                "path": path,
                "type": f"sentence_transformers.models.{kind}",
            }
            for at, (kind, path) in enumerate(modules)
        ],
    )
    limit = {"max_seq_length": shape.max_tokens, "do_lower_case": False}
    _write(folder / "sentence_bert_config.json", limit)
    versions = {"sentence_transformers": "2.0.0", "transformers": "4.7.0", "pytorch": "1.9.0"}
    _write(folder / "config_sentence_transformers.json", {"__version__": versions})
    return folder


def product_texts(count: int, longest: int, seed: int = 0) -> list[str]:
    """Return texts of the words above, of 0 to `longest` words; the last has exactly `longest`."""
    rng = np.random.default_rng(seed)
    sizes = [*rng.integers(0, longest, size=count - 1), longest]
    return [" ".join(rng.choice(WORDS, size=size)) for size in sizes]


def _transformer(shape: Shape, vocabulary: int) -> torch.nn.Module:
    sizes = {"vocab_size": vocabulary, "initializer_range": 0.12}
    if shape.family == "distilbert":
        return DistilBertModel(
            DistilBertConfig(
                **sizes,
                dim=shape.hidden,
                n_layers=2,
                n_heads=12,
                hidden_dim=256,
                max_position_embeddings=shape.positions,
            )
        )
    sizes |= {
        "hidden_size": shape.hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 12,
        "intermediate_size": 256,
        "max_position_embeddings": shape.positions,
    }
    if shape.family == "xlm-roberta":
        return XLMRobertaModel(XLMRobertaConfig(**sizes, type_vocab_size=1, layer_norm_eps=1e-5))
    return BertModel(BertConfig(**sizes))


def _tokenizer(shape: Shape) -> PreTrainedTokenizerFast:
    if shape.tokenizer in ("cased", "uncased"):
        special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
        special["mask_token"] = "[MASK]"  # noqa: S105
        library = _wordpiece([*special.values()], lowercase=shape.tokenizer == "uncased")
    else:
        first = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        names = ("bos_token", "pad_token", "eos_token", "unk_token", "mask_token")
        special = dict(zip(names, first, strict=True)) | {"cls_token": "<s>", "sep_token": "</s>"}
        library = _unigram(first)
    ends = [
        (special[name], library.token_to_id(special[name])) for name in ("cls_token", "sep_token")
    ]
    library.post_processor = processors.TemplateProcessing(
        single=f"{ends[0][0]} $A {ends[1][0]}", special_tokens=ends
    )
    inputs = ["input_ids", "attention_mask"]
    if shape.family == "bert":
        inputs.insert(1, "token_type_ids")
    return PreTrainedTokenizerFast(
        tokenizer_object=library, model_max_length=512, model_input_names=inputs, **special
    )


def _wordpiece(special: list[str], *, lowercase: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    _train(tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special))
    return tokenizer


def _unigram(special: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    unknown = special[3]
    _train(
        tokenizer,
        trainers.UnigramTrainer(vocab_size=300, special_tokens=special, unk_token=unknown),
    )
    return tokenizer


def _train(tokenizer: Tokenizer, trainer: trainers.Trainer) -> None:
    tokenizer.train_from_iterator(product_texts(200, 30, seed=1), trainer)


def _write(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=2), encoding="utf-8")
