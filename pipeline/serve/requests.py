"""From the address of a page to a question, checked."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.core.systems import System
from pipeline.search.question import (
    FIRST_PLACES,
    MOST_CHARACTERS,
    Question,
    read_filters,
    read_systems,
)

LEFT: System = "dense"
RIGHT: System = "bm25"
"""The systems that are shown where the address names none."""

PAGE = ("q", "locale", "left", "right", "k", "brand", "color", "collapse", "typed")
API_SEARCH = ("q", "locale", "systems", "k", "brand", "color", "collapse", "typed")
API_SIMILAR = ("id", "locale", "k")
"""The parameters of each address."""

SHOWN_CHARACTERS = 200
"""How much of a query that is too long a page shows again."""

Values = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """What an address asks for; `left` and `right` are the systems of the page's columns.

    `typed` asks for the query as it was typed.
    """

    q: str = ""
    locale: str = ""
    left: System = LEFT
    right: System = RIGHT
    k: int = FIRST_PLACES
    brand: str = ""
    color: str = ""
    collapse: bool = False
    typed: bool = False

    def question(self) -> Question:
        """Return it as a question to an engine."""
        filters = read_filters(brand=self.brand or None, color=self.color or None)
        systems = tuple(dict.fromkeys((self.left, self.right)))
        return Question(self.q, systems, self.k, filters, self.collapse, self.typed)

    def cut(self) -> "Asked":
        """Return it with texts of a length that a page can show."""
        texts = {name: getattr(self, name) for name in ("q", "locale", "brand", "color")}
        return replace(
            self,
            **{
                name: text if len(text) <= MOST_CHARACTERS else text[:SHOWN_CHARACTERS]
                for name, text in texts.items()
            },
        )


def read_values(query: bytes, known: Collection[str]) -> Values:
    """Return the parameters of an address.

    Args:
        query: what follows the question mark, as it was sent.
        known: the parameters that the address may have.

    Raises:
        PipelineError: one is unknown or comes twice, or the text is not UTF-8.
    """
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError as err:
        raise PipelineError(
            f"address: must be percent-encoded UTF-8 (found {shorten(query)[1:]}). Encode it so."
        ) from err
    values = dict(pairs)
    for name in values:
        if name not in known:
            raise PipelineError(
                f"address: unknown parameter {shorten(name)}{did_you_mean(name, known)}. Use "
                f"{', '.join(known)}."
            )
        if sum(name == other for other, _ in pairs) > 1:
            raise PipelineError(f"{name}: must be given once. Leave out the others.")
    return values


def read_asked(values: Values, usual_locale: str) -> Asked:
    """Read the address of a page; what it leaves out gets the usual value.

    Raises:
        PipelineError: a system is unknown, k is not a number, or collapse or typed is
            not 0 or 1.
    """
    left, right = (
        read_systems([values.get(name) or usual])[0]
        for name, usual in (("left", LEFT), ("right", RIGHT))
    )
    return Asked(
        q=values.get("q", ""),
        locale=values.get("locale") or usual_locale,
        left=left,
        right=right,
        k=read_k(values),
        brand=values.get("brand", "").strip(),
        color=values.get("color", "").strip(),
        collapse=read_flag(values, "collapse"),
        typed=read_flag(values, "typed"),
    )


def read_k(values: Values) -> int:
    """Return how many products are asked for; `check_k` says whether there are as many.

    Raises:
        PipelineError: it is not a number.
    """
    given = values.get("k") or str(FIRST_PLACES)
    if not re.fullmatch("-?[0-9]{1,100}", given):
        raise PipelineError(
            f"k: must be a whole number in at most 100 digits (found {shorten(given)}). Write it "
            f"like {FIRST_PLACES}."
        )
    return int(given)


def read_flag(values: Values, name: str) -> bool:
    """Return whether what the parameter names is asked for.

    Raises:
        PipelineError: it is not 0 or 1.
    """
    given = values.get(name) or "0"
    if given not in ("0", "1"):
        raise PipelineError(f"{name}: must be 0 or 1 (found {shorten(given)}).")
    return given == "1"
