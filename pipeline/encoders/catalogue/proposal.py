"""From what a model says of itself to a whole entry of `encoders`, with the reason for each key."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.languages import LANGUAGES
from pipeline.encoders.catalogue.description import README, Description, front_matter
from pipeline.encoders.prompts import (
    CONFIG,
    Prefixes,
    choose_prefixes,
    family_prefixes,
    mentioned_prompts,
)

MOST_TOKENS = 512
"""What `max_tokens` is proposed at most: a product's text is seldom longer, and attention costs the
square of it."""

_SIMILARITIES = {"cosine": "cosine", "dot": "dot", "euclidean": "l2"}


@dataclass(frozen=True)
class Wishes:
    """What the user decides in place of the model's files; None where they decide."""

    query_prefix: str | None = None
    passage_prefix: str | None = None
    pooling: str | None = None
    languages: tuple[str, ...] | None = None
    max_tokens: int | None = None


@dataclass(frozen=True)
class Choice:
    """A value of an entry, and where it comes from."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Proposal:
    """An entry, and what its user should know.

    Attributes:
        choices: its keys beside `weights`, in the order of params.yaml.
        doubts: what the files leave open.
        licence: what the model card says of it; empty if nothing.
    """

    choices: dict[str, Choice]
    doubts: tuple[str, ...]
    licence: str

    def contract(self) -> dict[str, Any]:
        """Return the entry's keys with their values."""
        return {key: choice.value for key, choice in self.choices.items()}


def propose(found: Description, name: str, wishes: Wishes) -> Proposal:
    """Return the entry that a model's files make.

    Args:
        found: what they say.
        name: what the model is called where it comes from, such as intfloat/e5-small.
        wishes: what is decided already.

    Raises:
        PipelineError: the files leave open what must not be guessed (the pooling), or ask for what
            no entry can say (a similarity).
    """
    query, passage, doubts = _prefixes(found, name, wishes)
    similarity = _similarity(found)
    normalize = found.normalizes or similarity.value == "cosine"
    why = "modules.json ends with Normalize" if found.normalizes else f"for {similarity.value}"
    languages, unsure = _languages(found, wishes)
    choices = {
        "query_prefix": query,
        "passage_prefix": passage,
        "pooling": _pooling(found, wishes),
        "normalize": Choice(normalize, why),
        "similarity": similarity,
        "languages": languages,
        "max_tokens": _max_tokens(found, wishes),
        "dimension": _dimension(found),
        "precision": Choice("float32", "exact on every machine"),
    }
    licence = ", ".join(front_matter(found.readme, "license"))
    return Proposal(choices, (*doubts, *unsure, *_of_similarity(found)), licence)


_ASKED = "as you asked"


def _prefixes(
    found: Description, name: str, wishes: Wishes
) -> tuple[Choice, Choice, tuple[str, ...]]:
    """Return both prefixes; a model that seems to want some and registers none is in doubt."""
    registered = choose_prefixes(found.prompts)
    why = f"{CONFIG} registers it"
    without = f"{CONFIG} registers none for it" if registered else "no file names one"
    own = registered or Prefixes("", "")
    pairs = (wishes.query_prefix, own.query), (wishes.passage_prefix, own.passage)
    query, passage = (
        Choice(wish, _ASKED) if wish is not None else Choice(text, why if text else without)
        for wish, text in pairs
    )
    if registered or wishes.query_prefix is not None or wishes.passage_prefix is not None:
        return query, passage, ()
    remedy = "A forgotten prefix can cost 0.1 nDCG. "
    if found.prompts.prompts:
        listed = ", ".join(f"{key}: {text!r}" for key, text in found.prompts.prompts.items())
        return query, passage, (
            f"prefixes: {CONFIG} registers several prompts ({listed}), and their names do not tell "
            f"which are for queries and products. {remedy}{_again(None)}",
        )  # fmt: skip
    family = family_prefixes(name)
    mentioned = ", ".join(map(repr, mentioned_prompts(found.readme)))
    if family is None and not mentioned:
        return query, passage, ()
    said = f"the model's {README} mentions {mentioned}"
    if family and not mentioned:
        said = f"{name} is of a family that wants {family.query!r} and {family.passage!r}"
    return query, passage, (f"prefixes: {said}. {remedy}{_again(family)}",)


def _again(prefixes: Prefixes | None) -> str:
    query, passage = (prefixes.query, prefixes.passage) if prefixes else ("…", "…")
    return (
        f"If it wants them, run the command again with --replace --query-prefix '{query}' "
        f"--passage-prefix '{passage}'."
    )


def _pooling(found: Description, wishes: Wishes) -> Choice:
    if wishes.pooling is not None:
        return Choice(wishes.pooling, _ASKED)
    if found.pooling is None:
        raise PipelineError(
            "the model names no pooling of its own (it has no modules.json with a Pooling). Its "
            f"{README} says which it was trained with; add --pooling mean, cls or lasttoken."
        )
    return Choice("model", f"its own is {found.pooling}")


def _similarity(found: Description) -> Choice:
    stated = found.similarity
    if stated is None:
        return Choice("cosine", "no file names one")
    if stated not in _SIMILARITIES:
        raise PipelineError(
            f"{CONFIG}: similarity_fn_name {shorten(stated)} is not one of "
            f"{', '.join(_SIMILARITIES)}. Use another model."
        )
    return Choice(_SIMILARITIES[stated], CONFIG)


def _of_similarity(found: Description) -> Iterator[str]:
    mentions = "dot_score" in found.readme or "dot-product" in found.readme.lower()
    if found.similarity is None and not found.normalizes and mentions:
        yield (
            f"similarity: no file names one, but the model's {README} mentions the dot product. If "
            "it was trained for that, set similarity: dot and normalize: false in params.yaml."
        )


def _languages(found: Description, wishes: Wishes) -> tuple[Choice, tuple[str, ...]]:
    if wishes.languages is not None:
        return Choice(list(wishes.languages), _ASKED), ()
    stated = front_matter(found.readme, "language")
    known = sorted({code for code in stated if code in LANGUAGES})
    other = sorted(set(stated) - set(known) - {"multilingual"})
    doubts = []
    if other:
        doubts.append(
            f"languages: {', '.join(map(shorten, other[:10]))} of the model's {README} are not ISO "
            "639-1 codes, and are left out."
        )
    if known:
        return Choice(known, README), tuple(doubts)
    if "multilingual" in stated:
        return Choice(["any"], f"{README} says multilingual"), tuple(doubts)
    doubts.append(
        "languages: no file names them, so the entry says any, and embed will not warn of a locale "
        "that the model does not speak. --language en,es says which it knows."
    )
    return Choice(["any"], "unknown"), tuple(doubts)


def _max_tokens(found: Description, wishes: Wishes) -> Choice:
    if wishes.max_tokens is not None:
        return Choice(wishes.max_tokens, _ASKED)
    limits = [limit for limit in (found.max_seq_length, found.longest) if limit]
    own = min(limits, default=None)
    if own is None:
        return Choice(MOST_TOKENS, "no file names a maximum")
    if own > MOST_TOKENS:
        return Choice(MOST_TOKENS, f"it can read {own:,}, which is slower (--max-tokens)")
    return Choice(own, "the model's own maximum")


def _dimension(found: Description) -> Choice:
    cuts = ", ".join(map(str, found.trained_dimensions))
    width = found.width or "an unknown number of"
    if found.truncate_dim is not None:
        return Choice(found.truncate_dim, f"{CONFIG} cuts its {width} components")
    return Choice("model", f"{width} components" + (f", can be cut to {cuts}" if cuts else ""))
