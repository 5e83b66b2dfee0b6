"""From the address of a page to a question, checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import System
from pipeline.search.question import FIRST_PLACES, Question, read_filters, read_systems

LEFT: System = "dense"
RIGHT: System = "bm25"
"""The systems that are shown where the address names none."""

Values = Mapping[str, str]


@dataclass(frozen=True)
class Asked:
    """What an address asks for; `left` and `right` are the systems of the page's columns."""

    q: str = ""
    locale: str = ""
    left: System = LEFT
    right: System = RIGHT
    k: int = FIRST_PLACES
    brand: str = ""
    color: str = ""

    def question(self) -> Question:
        """Return it as a question to an engine."""
        filters = read_filters(brand=self.brand or None, color=self.color or None)
        return Question(self.q, tuple(dict.fromkeys((self.left, self.right))), self.k, filters)


def read_asked(values: Values, locales: list[str]) -> Asked:
    """Read the address of a page; what it leaves out gets the usual value.

    Raises:
        PipelineError: a system is unknown, or k is not a number.
    """
    left, right = (
        read_systems([values.get(name) or usual])[0]
        for name, usual in (("left", LEFT), ("right", RIGHT))
    )
    return Asked(
        q=values.get("q", ""),
        locale=values.get("locale") or (locales[0] if locales else ""),
        left=left,
        right=right,
        k=read_k(values),
        brand=values.get("brand", "").strip(),
        color=values.get("color", "").strip(),
    )


def read_k(values: Values) -> int:
    """Return how many products are asked for.

    Raises:
        PipelineError: it is not a number.
    """
    given = values.get("k") or str(FIRST_PLACES)
    if not (given.isascii() and given.isdecimal() and len(given) <= 9):
        raise PipelineError(f"k: must be a whole number (found {shorten(given)}).")
    return int(given)
