"""A loaded model is made to obey its entry: pooling, normalisation, maximum of tokens."""

from typing import TYPE_CHECKING

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder

if TYPE_CHECKING:
    from sentence_transformers.sentence_transformer.modules import Transformer
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Tables have rows that no token uses: 35 of E5's 250,037, hundreds where a table is filled up to a
# round number.
_SPARE_ROWS = 1024
_SPARE_SHARE = 1 / 32


def apply_entry(modules: "list[nn.Module]", spec: Encoder, entry: str) -> "list[nn.Module]":
    """Return a model's modules with what the entry asks for, and without closing normalisation.

    Args:
        modules: what sentence-transformers loaded; the transformer comes first and is changed.
        spec: the entry.
        entry: its key in params.yaml, for messages.

    Raises:
        PipelineError: the model cannot do what the entry asks.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    transformer = modules[0]
    if not isinstance(transformer, Transformer):
        raise PipelineError(
            f"{entry}.weights: the first module must be a transformer (found "
            f"{type(transformer).__name__}). Use another model."
        )
    _cut_at(transformer, spec.max_tokens, entry)
    check_token_ids(transformer.auto_model, transformer.tokenizer, entry)
    while isinstance(modules[-1], Normalize):
        modules = modules[:-1]
    at = next((at for at, module in enumerate(modules) if isinstance(module, Pooling)), None)
    if spec.pooling == "model":
        if at is None and transformer.module_output_name != "sentence_embedding":
            raise PipelineError(
                f"{entry}.pooling: the model has no pooling of its own. Name one, such as mean."
            )
    else:
        pooling = Pooling(transformer.get_embedding_dimension(), spec.pooling)
        before, after = (1, 1) if at is None else (at, at + 1)
        modules = [*modules[:before], pooling, *modules[after:]]
    _check_widths(modules, spec, entry)
    return modules


def _check_widths(modules: "list[nn.Module]", spec: Encoder, entry: str) -> None:
    """Check that a dense layer takes what the pooling of the transformer's tokens gives.

    Other layers that do not fit fail when the model is tried.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Pooling

    if not isinstance(modules[1] if len(modules) > 1 else None, Pooling):
        return
    transformer, pooling = modules[0], modules[1]
    modes = pooling.pooling_output_dimension // pooling.embedding_dimension
    width = modes * transformer.get_embedding_dimension()
    dense = next((module for module in modules[2:] if isinstance(module, Dense)), None)
    if dense is not None and dense.in_features != width:
        remedy = "Use another model." if spec.pooling == "model" else "Use pooling: model."
        raise PipelineError(
            f"{entry}.pooling: {spec.pooling} gives {width} components, but the model's Dense "
            f"takes {dense.in_features}. {remedy}"
        )


def check_token_ids(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", entry: str
) -> None:
    """Check by their sizes that the tokenizer is the model's.

    Another tokenizer of about that size passes. The id of the padding token says nothing: E5's
    tokenizer has another one than its settings.

    Raises:
        PipelineError: a token has no embedding, or far too many embeddings have no token.
    """
    from torch import nn

    embeddings = model.get_input_embeddings()
    if not isinstance(embeddings, nn.Embedding):
        return
    most, rows = max(tokenizer.get_vocab().values()), embeddings.num_embeddings
    if most >= rows:
        found = f"up to {most}, but the model has embeddings for {rows} only"
    elif rows - most - 1 > max(_SPARE_ROWS, rows * _SPARE_SHARE):
        found = f"up to {most} only, but the model has embeddings for {rows}"
    else:
        return
    raise PipelineError(
        f"{entry}.weights: the tokenizer has token ids {found}. Copy both again from one model."
    )


def _cut_at(transformer: "Transformer", max_tokens: int, entry: str) -> None:
    """Make the tokenizer cut every text at `max_tokens`, its special tokens counted."""
    tokenizer = transformer.tokenizer
    check_fast(tokenizer, entry)
    longest = longest_input(transformer.auto_model)
    check_max_tokens(max_tokens, longest, tokenizer.num_special_tokens_to_add(), entry)
    transformer.max_seq_length = max_tokens


def check_fast(tokenizer: "PreTrainedTokenizerBase | None", entry: str) -> None:
    """Raise a `PipelineError` unless the tokenizers library runs a model's tokenizer."""
    if tokenizer is None:
        raise PipelineError(f"{entry}.weights: the model has no tokenizer. Use another model.")
    if not tokenizer.is_fast:
        raise PipelineError(
            f"{entry}.weights: its tokenizer is {type(tokenizer).__name__}, which the tokenizers "
            "library cannot run. Use a copy of the model that holds a tokenizer.json."
        )


def check_max_tokens(max_tokens: int, longest: int | None, special: int, entry: str) -> None:
    """Check that a model can read `max_tokens`, and that a text has room beside the special ones.

    Args:
        max_tokens: what the entry asks for.
        longest: what the model has positions for; None if it is not bounded.
        special: how many special tokens go with every text.
        entry: the entry's key in params.yaml, for messages.

    Raises:
        PipelineError: they are too many or too few.
    """
    if longest is not None and max_tokens > longest:
        raise PipelineError(
            f"{entry}.max_tokens: {max_tokens} is more than the {longest} tokens that the model "
            f"can take. Set {longest} or less."
        )
    if max_tokens <= special:
        raise PipelineError(
            f"{entry}.max_tokens: {max_tokens} leaves no room for a text beside the {special} "
            "special tokens. Raise it."
        )


def longest_input(model: "PreTrainedModel") -> int | None:
    """Return how many tokens the model can read, None if it is not bounded."""
    positions = _count_positions(model)
    config = model.config
    if getattr(config, "attention_type", "") != "block_sparse":
        return positions
    # BigBird: a text of no more tokens turns sparse attention off for all texts after it.
    always_full: int = (5 + 2 * config.num_random_blocks) * config.block_size
    return always_full if positions is None else min(positions, always_full)


def _count_positions(model: "PreTrainedModel") -> int | None:
    from torch import nn

    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa and its kin count positions from the padding token's id on.
            reserved = 0 if module.padding_idx is None else module.padding_idx + 1
            longest: int = module.num_embeddings - reserved
            return longest
    stated: int | None = getattr(model.config, "max_position_embeddings", None)
    return stated if stated is None or stated > 0 else None  # XLNet says -1
