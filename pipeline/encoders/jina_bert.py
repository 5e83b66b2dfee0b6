"""JinaBERT, the architecture of jina-embeddings-v2 (arXiv 2310.19923), without foreign code.

A BERT (arXiv 1810.04805) with two changes. It has no positions: attention scores fall linearly
with the distance of two tokens, in both directions, by a slope of each head (ALiBi, arXiv
2108.12409). Its feed-forward layers are gated by a GELU (GEGLU, arXiv 2002.05202). As in BERT, a
layer normalises the sum of its input and its result. The parts have the published tensors' names.
"""

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import AutoConfig, AutoModel, AutoTokenizer, BertConfig, BertTokenizerFast
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import PreTrainedModel

from pipeline.encoders.own_code import JINA_BERT


class JinaBertConfig(BertConfig):  # type: ignore[misc]
    """BERT's settings; those of positions are not used."""

    model_type = JINA_BERT


class JinaBertModel(PreTrainedModel):  # type: ignore[misc]
    """Token ids to token vectors."""

    config_class = JinaBertConfig
    base_model_prefix = "bert"  # some published tensors begin with it
    _supports_sdpa = True
    _keys_to_ignore_on_load_unexpected = (r"^pooler\.",)  # texts are pooled from their tokens

    def __init__(self, config: JinaBertConfig) -> None:
        """Make a model with random weights."""
        super().__init__(config)
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embeddings of token ids."""
        return self.embeddings.word_embeddings

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        """Return token vectors, float [rows, length, hidden].

        Args:
            input_ids: int64 [rows, length].
            attention_mask: the same shape, 1 for a token and 0 for padding.
            token_type_ids: the same shape; 0 everywhere if None.
        """
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        tokens = self.embeddings(input_ids, types)
        bias = _attention_bias(attention_mask, self.config.num_attention_heads, tokens.dtype)
        return BaseModelOutput(last_hidden_state=self.encoder(tokens, bias))


class _Embeddings(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, ids: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(
            self.word_embeddings(ids) + self.token_type_embeddings(types)
        )
        return normed


class _Encoder(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        for layer in self.layer:
            tokens = layer(tokens, bias)
        return tokens


class _Layer(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.attention = nn.ModuleDict(
            {"self": _SelfAttention(config), "output": _AttentionOutput(config)}
        )
        self.mlp = _GatedFeedForward(config)

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        read = self.attention["self"](tokens, bias)
        fed: torch.Tensor = self.mlp(self.attention["output"](read, tokens))
        return fed


class _SelfAttention(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.width = config.hidden_size // self.heads
        for name in ("query", "key", "value"):
            self.add_module(name, nn.Linear(config.hidden_size, config.hidden_size))

    def forward(self, tokens: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            self._split(part(tokens)) for part in (self.query, self.key, self.value)
        )
        # Scores are divided by the root of the width before the bias is added.
        read = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        return read.transpose(1, 2).flatten(2)

    def _split(self, projected: torch.Tensor) -> torch.Tensor:
        """Return [rows, heads, length, width]."""
        return projected.unflatten(-1, (self.heads, self.width)).transpose(1, 2)


class _AttentionOutput(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, read: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.LayerNorm(self.dense(read) + tokens)
        return normed


class _GatedFeedForward(nn.Module):  # type: ignore[misc]
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.gated_layers = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.wo = nn.Linear(config.intermediate_size, config.hidden_size)
        self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        gate, value = self.gated_layers(tokens).chunk(2, dim=-1)
        normed: torch.Tensor = self.layernorm(self.wo(functional.gelu(gate) * value) + tokens)
        return normed


def _attention_bias(mask: torch.Tensor, heads: int, dtype: torch.dtype) -> torch.Tensor:
    """Return what is added to attention scores, [rows, heads, length, length]: ALiBi, and padding.

    It is made from the mask's own length, so that a traced model takes any length.
    """
    places = torch.arange(mask.shape[1], device=mask.device)
    distance = (places[:, None] - places[None, :]).abs().to(torch.float32)
    slopes = torch.tensor(_alibi_slopes(heads), dtype=torch.float32, device=mask.device)
    bias = (-slopes[:, None, None] * distance).to(dtype)
    return bias[None].masked_fill(mask[:, None, None, :] == 0, torch.finfo(dtype).min)


def _alibi_slopes(heads: int) -> list[float]:
    """Return each head's slope: 2 ** (-8 i / n) for i from 1 to n heads, n a power of two.

    Of another number of heads, the first ones are those of the power of two below, and the others
    are every second one of the power above, as in the code of ALiBi's authors.
    """
    power = 2 ** math.floor(math.log2(heads))
    slopes: list[float] = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    return slopes + [2 ** (-4 * i / power) for i in range(1, 2 * (heads - power), 2)]


def register() -> None:
    """Make the classes known to transformers under `JINA_BERT`."""
    AutoConfig.register(JINA_BERT, JinaBertConfig, exist_ok=True)
    AutoModel.register(JinaBertConfig, JinaBertModel, exist_ok=True)
    AutoTokenizer.register(JinaBertConfig, fast_tokenizer_class=BertTokenizerFast, exist_ok=True)
