"""The report of `bench.spelling`: how measures moved, what became of the queries and words."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import regex

from pipeline.compare.differences import Move, measure_moves
from pipeline.compare.pairs import pair
from pipeline.core.errors import PipelineError
from pipeline.core.languages import fold_accents
from pipeline.core.params import Params
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.core.text_tables import markdown
from pipeline.demo.marketplace import FORMS, Wording, inflect, load_wording

MEASURES = ("ndcg@10", "recall@100")
SEED = 29
LISTED = 30
"""At most so many corrected words of a locale are listed."""

ESCI, TYPOS, DEMO = "esci", "esci-typos", "demo"
TITLES = {ESCI: "ESCI", TYPOS: "ESCI, with a typo in each query", DEMO: "The demo"}
"""In the order in which they are run: what is wrong with ESCI's files shows first."""
RESTORED = {TYPOS: "restored", DEMO: "made known words"}

LEGEND = """A cell has the mean as typed; by how much `corrected` differs, with the {share:.0%}
interval of that difference; p; and n, the queries for which the measure is defined. The intervals
are not adjusted. p is adjusted (Holm) over the systems, measures and locales of a group of queries:
each group of each source is a family of its own. No p of {draws:,} draws is below 1/{most:,}, so a
p with ≤ may be lower.

Words are compared without their case and accents. *Restored*: all words are those that were meant.
*Made known words*: the demo does not keep what was meant, so these have words of its wording alone,
the meant ones or others. *Right queries* are the demo's queries of such words, and ESCI's without
the drawn typo. *Changed* ones among them have another word now. Some of ESCI's have a typo of their
own, so not every such change is wrong.

Constants were chosen on train queries. {split}

"""
SPLITS = {"test": "These are test queries.", "train": "So are these: the figures flatter it."}

_WORD = regex.compile(r"[\p{L}\p{M}]+")


@dataclass(frozen=True)
class Sides:
    """The per-query tables of a locale, of the same queries: as typed, and corrected."""

    typed: pa.Table
    corrected: pa.Table

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield each query as it is typed and as it is searched for."""
        tables = (self.typed, self.corrected)
        return zip(*(table["query"].to_pylist() for table in tables), strict=True)


Found = Mapping[str, Sides]
"""By locale."""
Cases = Callable[[str, Sides], Iterator[tuple[str, str, bool]]]
"""Yields misspelled queries of a locale: as typed, as searched for, and whether that is right."""
Texts = Callable[[str, Sides], Iterator[tuple[str, str]]]
"""Yields right queries of a locale: as typed, and as searched for."""


def write_report(params: Params, found: Mapping[str, Found], split: str) -> str:
    """Return the legend, and a section for each source."""
    draws = params.uncertainty
    text = LEGEND.format(
        share=draws.confidence, draws=draws.samples, most=draws.samples + 1, split=SPLITS[split]
    )
    outcomes: dict[str, tuple[Cases, Texts]] = {
        TYPOS: (mistyped(found[ESCI]), lambda locale, _: found[ESCI][locale].texts()),
        DEMO: (misspelled, spelled),
    }
    for name, each in found.items():
        parts = [moves_table(params, name, each)]
        if name in outcomes:
            parts.append(outcomes_table(each, RESTORED[name], *outcomes[name]))
        if name != TYPOS:
            parts += [list_corrections(*of) for of in each.items()]
        text += "\n".join([f"## {TITLES[name]}\n", *parts, ""])
    return text


def moves_table(params: Params, name: str, found: Found) -> str:
    """Return how each measure moved, over all queries and over some of them."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for group in ("all", "corrected", *["misspelled"] * (name == DEMO)):
        chosen = {locale: choose(group, locale, sides) for locale, sides in found.items()}
        moved = moves(params, chosen)
        least = 1 / (params.uncertainty.samples + 1)
        bound = max((move.p_adjusted for move in moved if move.p <= least), default=0.0)
        for move in moved:
            count = f"{group}, {len(chosen[move.locale].typed):,}"
            cells = rows.setdefault((move.locale, count, move.system), [])
            cells.append(cell(move, bound))
    body = [[*key, *cells] for locale in found for key, cells in rows.items() if key[0] == locale]
    return markdown(("locale", "queries", "system", *MEASURES), body)


def moves(params: Params, found: Found) -> tuple[Move, ...]:
    """Return how each measure moved."""
    pairs = [
        pair(locale, f"{system}.{measure}", sides.typed, sides.corrected)
        for locale, sides in found.items()
        for system in FIRST_SYSTEMS
        for measure in MEASURES
    ]
    settings = params.compare
    return measure_moves(pairs, settings.alpha, settings.max_drop, params.uncertainty, 0)


def choose(group: str, locale: str, sides: Sides) -> Sides:
    """Return the queries of a group."""
    if group == "all":
        return sides
    wanted = {typed for typed, _, _ in misspelled(locale, sides)} if group == "misspelled" else None
    mask = pa.array(
        [old != new if wanted is None else old in wanted for old, new in sides.texts()], pa.bool_()
    )
    return Sides(sides.typed.filter(mask), sides.corrected.filter(mask))


def said_words(wording: Wording) -> set[str]:
    """Return the words that the demo's queries have where they are not misspelled."""
    said: list[str] = []
    for name, kind in wording.types.items():
        said += [*kind.asked, *(use.query for use in kind.uses)]
        for values in wording.attributes[name].values():
            said += [text for value in values.values() for text in (*value.asked, *value.avoid)]
    return {word for text in said for form in FORMS for word in words_of(inflect(text, form))}


def words_of(text: str) -> list[str]:
    """Return the words of a text without their case and accents."""
    return [fold_accents(word) for word in _WORD.findall(text.lower())]


def cell(move: Move, bound: float) -> str:
    """Return "0.5000, +0.0100 [+0.0050, +0.0150], p 0.012, n 9": the mean as typed, what moved.

    Args:
        move: how a measure moved.
        bound: the adjusted p of the least p that draws can give. Up to it, p may be lower.
    """
    mean, low, high, queries = move.difference
    if not queries:
        return "none"
    at_most = "≤ " * (move.p_adjusted <= bound)
    moved = f"{move.a:.4f}, {mean:+.4f} [{low:+.4f}, {high:+.4f}]"
    return f"{moved}, p {at_most}{max(move.p_adjusted, 0.001):.3f}, n {queries:,}"


def outcomes_table(found: Found, restored: str, misspelled: Cases, right: Texts) -> str:
    """Return what became of each locale's misspelled queries, and of its right ones.

    Args:
        found: the queries.
        restored: the name of what is right of the misspelled ones.
        misspelled: yields these.
        right: yields the right ones.
    """
    header = (
        "locale", "misspelled queries", restored, "otherwise changed", "left as typed",
        "right queries", "changed",
    )  # fmt: skip
    rows = []
    for locale, sides in found.items():
        counts = Counter(
            "restored" if is_right else "other" if differ(typed, corrected) else "left"
            for typed, corrected, is_right in misspelled(locale, sides)
        )
        total = counts.total()
        shares = (f"{counts[each] / max(1, total):.0%}" for each in ("restored", "other", "left"))
        changed = [differ(*texts) for texts in right(locale, sides)]
        rows.append([locale, f"{total:,}", *shares, f"{len(changed):,}", f"{sum(changed):,}"])
    return markdown(header, rows, header[1:])


def differ(one: str, other: str) -> bool:
    """Return whether two texts have different words, whatever their case and accents."""
    return words_of(one) != words_of(other)


def misspelled(locale: str, sides: Sides) -> Iterator[tuple[str, str, bool]]:
    """Yield the demo's misspelled queries; one counts as right if its wording has all words."""
    known = said_words(load_wording(locale))
    for typed, corrected in sides.texts():
        if not known.issuperset(words_of(typed)):
            yield typed, corrected, known.issuperset(words_of(corrected))


def spelled(locale: str, sides: Sides) -> Iterator[tuple[str, str]]:
    """Yield the demo's other queries: its wording has all their words."""
    known = said_words(load_wording(locale))
    return (texts for texts in sides.texts() if known.issuperset(words_of(texts[0])))


def mistyped(right: Found) -> Cases:
    """Return what yields queries with a typo; one is right if it has the words that were meant."""

    def cases(locale: str, sides: Sides) -> Iterator[tuple[str, str, bool]]:
        table = right[locale].typed
        meant_of = dict(
            zip(*(table[each].to_pylist() for each in ("query_id", "query")), strict=True)
        )
        ids = sides.typed["query_id"].to_pylist()
        if meant_of.keys() != set(ids):
            raise PipelineError(f"{locale}: the queries with typos are others than those without.")
        for query_id, (typed, corrected) in zip(ids, sides.texts(), strict=True):
            meant = meant_of[query_id]
            if differ(typed, meant):
                yield typed, corrected, not differ(corrected, meant)

    return cases


def list_corrections(locale: str, sides: Sides) -> str:
    """Return the corrected words in alphabetical order; of many, some that are drawn.

    A word that is a whole query is counted and not listed: real queries are not published.
    """
    words = {
        each
        for texts in sides.texts()
        for each in zip(*(_WORD.findall(text.lower()) for text in texts), strict=True)
        if each[0] != each[1]
    }
    whole = {text.lower() for texts in sides.texts() for text in texts}
    shown = sorted(each for each in words if whole.isdisjoint(each))
    rng = np.random.Generator(np.random.PCG64(SEED))
    listed = [shown[place] for place in sorted(rng.permutation(len(shown))[:LISTED])]
    text = ", ".join(f"{old} → {new}" for old, new in listed)
    return f"{locale}, {len(listed)} of {len(words)} corrections: {text}.\n"
