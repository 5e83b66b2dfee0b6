"""A tiny random model with made-up words: so cheap that everything except encoding dominates."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SEED = 0
DIMENSION = 32
"""Components of its vectors."""


def words() -> NDArray[np.str_]:
    """Return 5,000 words of 2 to 10 letters."""
    rng = np.random.default_rng(SEED)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return np.array(["".join(rng.choice(letters, rng.integers(2, 11))) for _ in range(5_000)])


def write_model(folder: Path) -> None:
    """Write a random BERT of two layers that reads the words of `words`."""
    import torch
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers

    transformers.logging.disable_progress_bar()
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    known = dict.fromkeys([*special.values(), *words()])
    vocabulary = {word: at for at, word in enumerate(known)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, special["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(
        folder
    )
    torch.manual_seed(SEED)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary), hidden_size=DIMENSION, num_hidden_layers=2,
        num_attention_heads=2, intermediate_size=64, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
