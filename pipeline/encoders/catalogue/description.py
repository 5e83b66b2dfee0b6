"""What a model's own files say of it: pooling, prompts, lengths, similarity, languages."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.encoders.model_folder import list_modules
from pipeline.encoders.model_settings import read_settings, trained_dimensions
from pipeline.encoders.prompts import CONFIG, Registered, registered_prompts

README = "README.md"

MOST_LETTERS = 1 << 20  # of a README; those with tables of results have some 100,000
_UNLIMITED = 1_000_000  # tokenizers without a maximum name a number far above
_SHIFTED = re.compile("roberta|camembert|mpnet|longformer")
"""Architectures that count positions from the padding token's id on."""


@dataclass(frozen=True)
class Description:
    """What a model folder says of itself; None and empty where it says nothing.

    Attributes:
        pooling: how its tokens become one vector.
        normalizes: whether its vectors have length 1.
        max_seq_length: where sentence-transformers cuts texts, in tokens.
        longest: how many tokens its positions and its tokenizer allow.
        prompts: those it registers.
        similarity: the function that compares its vectors, in sentence-transformers' words.
        truncate_dim: how many components it keeps by default.
        trained_dimensions: to how many components its vectors may be cut.
        width: how many components its vectors have.
        readme: its model card.
    """

    pooling: str | None
    normalizes: bool
    max_seq_length: int | None
    longest: int | None
    prompts: Registered
    similarity: str | None
    truncate_dim: int | None
    trained_dimensions: list[int]
    width: int | None
    readme: str


def describe(folder: Path, readme: str = "") -> Description:
    """Read what a model folder, one that `check_folder` accepts, says of itself.

    Args:
        folder: the folder.
        readme: its model card; empty to read the folder's own.

    Raises:
        PipelineError: a file is not JSON.
    """
    modules = [(one["type"].rsplit(".", 1)[-1], one["path"]) for one in list_modules(folder)]
    transformer = folder / modules[0][1]
    config = _settings(transformer / "config.json")
    general = _settings(folder / CONFIG)
    poolings = [folder / path / "config.json" for kind, path in modules if kind == "Pooling"]
    lengths = [_settings(path) for path in sorted(transformer.glob("sentence_*_config.json"))]
    return Description(
        pooling=_pooling(_settings(poolings[0])) if poolings else None,
        normalizes=modules[-1][0] == "Normalize",
        max_seq_length=next((n for each in lengths if (n := _count(each, "max_seq_length"))), None),
        longest=_longest(config, _settings(transformer / "tokenizer_config.json")),
        prompts=registered_prompts(folder),
        similarity=_text(general.get("similarity_fn_name")),
        truncate_dim=_count(general, "truncate_dim"),
        trained_dimensions=trained_dimensions(transformer / "config.json"),
        width=measure_width(folder),
        readme=readme or read_readme(folder / README),
    )


def read_readme(path: Path) -> str:
    """Return a model card, at most its first 2^20 letters; empty if there is none."""
    if not path.is_file():
        return ""
    with path.open(encoding="utf-8", errors="replace") as file:
        return file.read(MOST_LETTERS)


def measure_width(folder: Path) -> int | None:
    """Return how many components a model's vectors have, by its settings; None if they are silent.

    Raises:
        PipelineError: a file is not JSON.
    """
    modules = list_modules(folder)
    config = _settings(folder / modules[0]["path"] / "config.json")
    names = ("hidden_size", "dim", "d_model", "n_embd")
    width = next((size for name in names if (size := _count(config, name))), None)
    for module in modules[1:]:
        settings = _settings(folder / module["path"] / "config.json")
        if module["type"].endswith(".Pooling") and width is not None:
            width *= len((_pooling(settings) or "").split("+"))
        width = _count(settings, "out_features") or width
    return width


def front_matter(readme: str, key: str) -> list[str]:
    """Return the value or values of a key at the top of a model card; empty if it has none.

    Only the key's own lines are parsed: the results of a benchmark below it may be 50,000 lines.
    """
    head = re.match(r"\ufeff?---\r?\n(.*?)\r?\n---", readme, re.DOTALL)
    lines = re.search(
        rf"^{key}:[^\n]*(?:\n(?:[ \t-][^\n]*)?)*", head[1] if head else "", re.MULTILINE
    )
    if lines is None or len(lines[0]) > 10_000:
        return []
    try:
        value = YAML(typ="safe", pure=True).load(lines[0])[key]
    except (YAMLError, ValueError, TypeError, KeyError):
        return []
    values = value if isinstance(value, list) else [value]
    return [one for one in values if isinstance(one, str)]


def _settings(path: Path) -> dict[str, Any]:
    found = read_settings(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _pooling(settings: dict[str, Any]) -> str | None:
    """Return a pooling's mode or modes; before sentence-transformers 5.3 each had a key."""
    mode = settings.get("pooling_mode")
    if isinstance(mode, str):
        return mode
    modes = mode if isinstance(mode, list) else [
        key.removeprefix("pooling_mode_").removesuffix("_tokens").removesuffix("_token")
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    ]  # fmt: skip
    return "+".join(map(str, modes)) or None


def _longest(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    positions = _count(config, "max_position_embeddings") or _count(config, "n_positions")
    if positions and _SHIFTED.search(str(config.get("model_type"))):
        pad = config.get("pad_token_id")
        positions -= (pad if type(pad) is int else 0) + 1
    stated = _count(tokenizer, "model_max_length")
    limits = [limit for limit in (positions, stated) if limit and 0 < limit < _UNLIMITED]
    return min(limits, default=None)


def _count(settings: dict[str, Any], key: str) -> int | None:
    value = settings.get(key)
    return value if type(value) is int and value > 0 else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
