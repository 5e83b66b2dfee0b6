"""Models whose config.json names Python code of the model's own.

Such code runs only where the entry says so. transformers would otherwise take its own class of the
same `model_type`, which may compute something else from the same weights, so the model is refused.
One architecture is built in: JinaBERT, see `jina_bert`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import write_json

JINA_BERT = "jina-bert-v2"
"""The `model_type` under which the built-in JinaBERT is known to transformers."""

JINA_FORM = 1  # raise it when `jina_bert` computes other bits

_JINA_CODE = "jinaai/jina-bert-implementation"
_JINA_CLASS = "modeling_bert.JinaBertModel"
"""How models name JinaBERT's class and the repository of its code; that of others differs."""

_LOADED = ("AutoConfig", "AutoModel", "AutoTokenizer")
"""What is loaded here; code for other tasks does not count."""


def check_code(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse settings that need code of the model's own, for an entry that lets none run.

    Args:
        file: config.json or tokenizer_config.json, for messages.
        settings: its content.

    Raises:
        PipelineError: they need code, or are a JinaBERT of another kind than the one built in.
    """
    if is_jina_bert(settings):
        _check_jina(file, settings)
        return
    named = _named_code(settings)
    if named:
        raise PipelineError(
            f"{file}: auto_map asks for code of the model's own (found {shorten(named)}). Only hub "
            "weights may run it, with remote_code: true. Use another model, or, if transformers' "
            "own class computes the same, a copy of the model without auto_map."
        )


def is_jina_bert(settings: object) -> bool:
    """Say whether config.json is that of a JinaBERT, to be computed by `jina_bert`."""
    if not isinstance(settings, Mapping):
        return False
    if settings.get("model_type") == JINA_BERT:
        return True
    mapped = settings.get("auto_map")
    if isinstance(mapped, dict) and mapped.get("AutoTokenizer"):
        return False  # it would have other tokens
    named = mapped.get("AutoModel") if isinstance(mapped, dict) else mapped
    is_ours = named in (None, f"{_JINA_CODE}--{_JINA_CLASS}") or (
        named == _JINA_CLASS and settings.get("_name_or_path") == _JINA_CODE  # with its code
    )
    return (
        is_ours
        and settings.get("model_type") == "bert"
        and settings.get("position_embedding_type") == "alibi"
    )


def write_native_config(path: Path, settings: Mapping[str, Any]) -> None:
    """Write the config.json that makes transformers load the built-in class.

    Args:
        path: where; a link there is replaced, never followed.
        settings: the config.json of a JinaBERT.
    """
    kept = {key: value for key, value in settings.items() if key != "auto_map"}
    path.unlink(missing_ok=True)
    write_json(path, kept | {"model_type": JINA_BERT, "architectures": ["JinaBertModel"]})


def _check_jina(file: Path, settings: Mapping[str, Any]) -> None:
    """Refuse what the built-in class does not compute."""
    expected = {"feed_forward_type": "geglu", "hidden_act": "gelu", "is_decoder": False}
    for key, value in expected.items():
        found = settings.get(key, None if key == "feed_forward_type" else value)
        if found != value:
            raise PipelineError(
                f"{file}: {key} of a JinaBERT must be {value} (found {shorten(found)}); no other "
                "kind is built in. Use another model."
            )
    heads, hidden = settings.get("num_attention_heads"), settings.get("hidden_size")
    if type(heads) is not int or type(hidden) is not int or heads < 1 or hidden % heads:
        raise PipelineError(
            f"{file}: hidden_size must be a multiple of num_attention_heads (found "
            f"{shorten(hidden)} and {shorten(heads)}). Restore the original file of the model."
        )


def _named_code(settings: Mapping[str, Any]) -> str:
    """Return the code that would be loaded, empty if none."""
    mapped = settings.get("auto_map")
    if isinstance(mapped, dict):
        return ", ".join(str(mapped[key]) for key in _LOADED if mapped.get(key))
    return str(mapped) if mapped else ""
