"""What is asked of a search, checked: one message for each thing that cannot be searched."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.core.systems import FIRST_SYSTEMS, SYSTEMS, System
from pipeline.search.facets import FACETS
from pipeline.text.normalise import normalise

MOST_CHARACTERS = 1_000
"""The longest query; ESCI's longest has a few hundred characters."""

FIRST_PLACES = 10
"""How many products are shown where nothing is said."""


class UnknownProductError(PipelineError):
    """There is no product with that id."""


@dataclass(frozen=True)
class Question:
    """A query and how to search for it.

    Attributes:
        query: as the user wrote it.
        systems: the systems, in the order in which they are shown.
        k: how many products of each.
        filters: the value that products must have, by facet.
        collapse: whether of each group of duplicates only the first product is shown.
        as_typed: whether the spelling is left as it is, where that of the locale is corrected.
    """

    query: str
    systems: tuple[System, ...] = FIRST_SYSTEMS
    k: int = FIRST_PLACES
    filters: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    collapse: bool = False
    as_typed: bool = False

    def text(self, known: Container[str] = ()) -> str:
        """Return the query as `clean` would write it before it corrects the spelling.

        One of the `known` queries is clean: it stays, since normalising twice may change a text.

        Raises:
            PipelineError: `check_text` refuses it, it is too long, or has no text.
        """
        check_text("query", self.query)
        if len(self.query) > MOST_CHARACTERS:
            raise PipelineError(
                f"query: must have at most {MOST_CHARACTERS:,} characters (found "
                f"{len(self.query):,}). Shorten it."
            )
        text = self.query if self.query in known else normalise(self.query)
        if not text:
            raise PipelineError(
                f"query: must have text besides markup and controls (found {shorten(self.query)}). "
                "Write some words."
            )
        return text


def check_text(where: str, value: object) -> None:
    """Raise a `PipelineError` unless a value from Python or a shell is text, and Unicode."""
    if not isinstance(value, str):
        raise PipelineError(f"{where}: must be text (found {shorten(value)}). Put it in quotes.")
    try:
        value.encode()
    except UnicodeEncodeError as err:
        raise PipelineError(
            f"{where}: must be Unicode (found {shorten(value)}). Use UTF-8."
        ) from err


def read_systems(names: Iterable[str], there: Sequence[System] = SYSTEMS) -> tuple[System, ...]:
    """Return systems by their names; raises as `read_names` does."""
    known: dict[str, System] = {name: name for name in there}
    return tuple(known[name] for name in read_names(names, there))


def read_names(names: Iterable[str], there: Sequence[str]) -> tuple[str, ...]:
    """Return names of systems, each once; they must be among those that are there.

    Raises:
        PipelineError: a name is unknown, there is none, or these are no names.
    """
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise PipelineError(
            f"systems: must be a list of names (found {shorten(names)}). Write {list(there[:2])}."
        )
    wanted = []
    for name in names:
        check_text("system", name)
        wanted.append(name.strip())
    for name in wanted:
        if name not in there:
            raise PipelineError(
                f"system: must be one of {', '.join(there)} (found {shorten(name)}"
                f"{did_you_mean(name, there)})."
            )
    if not wanted:
        raise PipelineError(f"system: must be one of {', '.join(there)} (found none).")
    return tuple(dict.fromkeys(wanted))


def check_k(k: int, depth: int) -> None:
    """Raise a `PipelineError` unless `k` is within what a ranking holds."""
    if not isinstance(k, int) or isinstance(k, bool):
        raise PipelineError(f"k: must be a whole number (found {shorten(k)}).")
    if not 1 <= k <= depth:
        raise PipelineError(
            f"k: must be from 1 to {depth}, which is retrieve.depth (found {shorten(k)})."
        )


def read_filters(**values: str | None) -> Mapping[str, str]:
    """Return the filters that are given, by facet.

    Raises:
        PipelineError: `check_text` refuses a value.
    """
    for name, value in values.items():
        if value is not None:
            check_text(name, value)
    return {name: value for name in FACETS if (value := values.get(name)) is not None}
