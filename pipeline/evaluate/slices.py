"""Slices: queries grouped by length, labels, brand, script and more, to break a mean down.

Each slice gives every query one value. The rules are heuristics over the normalised texts: a
negation is a word of a short list. Words are compared case-folded. Japanese has no spaces: there a
word is a stretch of one script (アイリスオーヤマ | 加湿器). In languages that put no spaces between
words, length is counted in characters.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.core.arrays import Floats, Ints
from pipeline.core.languages import UNSPACED
from pipeline.core.parallel import in_parallel
from pipeline.core.params import Uncertainty
from pipeline.evaluate import metrics
from pipeline.evaluate.metrics import EXACT
from pipeline.evaluate.uncertainty import Interval, bootstrap_intervals
from pipeline.text.normalise import normalise

SMALL_BELOW = 30
"""A slice of fewer queries is marked: its interval is wide, and the bootstrap's ends are rough."""

JAPANESE = "ja"

MOST_NAMES = 10
OTHER = "other"
"""The value of all names except the `MOST_NAMES` most frequent ones of a slice. Where a name itself
is "other", as in ESCI's sources, the two are one value."""

WORD_BOUNDS = (1, 2, 4, 6)
CHARACTER_BOUNDS = (1, 5, 9, 15)
EXACT_BOUNDS = (0, 1, 2, 6, 16)

NEGATIONS = {
    "en": r"\b(without|w/o|no|not|non|never|except|isn't|don't|doesn't)\b",
    "es": r"\b(sin|no|ni|excepto|salvo)\b",
    "ja": r"なし|無し|以外|不要|ない|無い|除く|除き|抜き|ません",
}
"""Words of queries that exclude something, by language; other languages have no such slice."""

SCRIPTS = {
    "kanji": "[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]",
    "hiragana": "[\u3041-\u309f]",
    "katakana": "[\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff]",
    "latin": "[A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f]",
}
"""One character of each script of Japanese, as a pattern."""

_EAST_ASIAN = [SCRIPTS[name] for name in ("kanji", "hiragana", "katakana")]
_WORD = re.compile(
    "|".join(
        [*(f"{script}+" for script in _EAST_ASIAN), f"(?:(?!{'|'.join(_EAST_ASIAN)})[^\\W_])+"]
    )
)

Words = tuple[str, ...]


@dataclass(frozen=True)
class Slice:
    """A way to divide the queries: the position in `values` of each query's value, [queries]."""

    name: str
    values: tuple[str, ...]
    of_query: Ints


def words(text: str) -> Words:
    """Return the words of a text, case-folded; marks and spaces only divide."""
    return tuple(_WORD.findall(text.casefold()))


def divide(
    texts: Sequence[str],
    language: str,
    label_counts: Ints,
    brands: Collection[str] | None,
    sources: Sequence[str | None] | None,
) -> list[Slice]:
    """Return every slice that these queries have.

    Args:
        texts: the normalised queries.
        language: their ISO 639-1 code.
        label_counts: how many judged products of each label they have, [queries, labels].
        brands: all normalised brands of the catalogue, or None, for no such slice, where the
            products' texts do not have that field.
        sources: ESCI's reason for each query, unchanged, or None, for no such slice.
    """
    exact = metrics.relevant(label_counts, EXACT)
    if language in UNSPACED:
        lengths = [len(text.replace(" ", "")) for text in texts]
        found = [_ranges("query length", lengths, CHARACTER_BOUNDS, "character")]
    else:
        lengths = [len(text.split()) for text in texts]
        found = [_ranges("query length", lengths, WORD_BOUNDS, "word")]
    found.append(_ranges("number of E", exact.tolist(), EXACT_BOUNDS, ""))
    found.append(_yes_or_no("number in query", texts, re.compile(r"\d").search))
    if brands is not None:
        known = {words(brand) for brand in brands} - {()}
        longest = max(map(len, known), default=0)
        found.append(_yes_or_no("brand in query", texts, lambda text: _names(text, known, longest)))
    if language in NEGATIONS:
        negation = re.compile(NEGATIONS[language], re.IGNORECASE)
        found.append(_yes_or_no("negation", texts, negation.search))
    if language == JAPANESE:
        found.append(_named("script mix", [_scripts(text) for text in texts]))
    if sources is not None:
        found.append(_named("source", [normalise(source) or "none" for source in sources]))
    return found


def table(query_ids: pa.ChunkedArray, slices: Iterable[Slice]) -> pa.Table:
    """Return the value of each query in each slice: query_id, then a column for each slice."""
    values = {each.name: pa.array(each.values).take(pa.array(each.of_query)) for each in slices}
    return pa.table({"query_id": query_ids, **values})


def measure(
    slices: Iterable[Slice], values: Mapping[str, Floats], draws: Uncertainty, threads: int
) -> list[dict[str, Any]]:
    """Return the mean and interval of one measure for each value of each slice, by system.

    `queries` counts those that the measure is defined for; a value with none is left out.

    Args:
        slices: of the same queries.
        values: the measure, by system, [queries]; NaN where it is undefined.
        draws: of the bootstrap.
        threads: how many to use.
    """
    table = np.stack(list(values.values()), axis=1)
    parts = [(each, code) for each in slices for code in range(len(each.values))]

    def estimate(part: tuple[Slice, int]) -> list[Interval]:
        each, code = part
        return bootstrap_intervals(table[each.of_query == code], draws)

    found = []
    for (each, code), intervals in zip(
        parts, in_parallel(estimate, parts, threads, waiting=0), strict=True
    ):
        queries = max(interval.queries for interval in intervals)
        if queries:
            found.append(
                {
                    "slice": each.name,
                    "value": each.values[code],
                    "queries": queries,
                    "small": queries < SMALL_BELOW,
                    "systems": {
                        system: _shown(interval)
                        for system, interval in zip(values, intervals, strict=True)
                    },
                }
            )
    return found


def _shown(interval: Interval) -> dict[str, float]:
    mean, low, high, _ = interval.rounded()
    return {"mean": mean, "low": low, "high": high}


def _ranges(name: str, numbers: Sequence[int], bounds: Sequence[int], unit: str) -> Slice:
    """Divide by number: a range from each bound to the next, the last one open."""
    ends = [following - 1 for following in bounds[1:]]
    labels = [
        f"{first}" if first == last else f"{first}-{last}"
        for first, last in zip(bounds, ends, strict=False)
    ]
    labels.append(f"{bounds[-1]}+")
    values = [f"{label} {unit}{'' if label == '1' else 's'}" if unit else label for label in labels]
    places = np.searchsorted(np.array(bounds[1:]), np.array(numbers, dtype=np.int64), side="right")
    return Slice(name, tuple(values), places.astype(np.int64))


def _yes_or_no(name: str, texts: Sequence[str], holds: Callable[[str], object]) -> Slice:
    found = [0 if holds(text) else 1 for text in texts]
    return Slice(name, ("yes", "no"), np.array(found, dtype=np.int64))


def _named(name: str, values: Sequence[str]) -> Slice:
    """Divide by name: the most frequent ones, of equals the first in order, and the rest."""
    by_frequency = sorted(Counter(values).items(), key=lambda each: (-each[1], each[0]))
    kept = {value for value, _ in by_frequency[:MOST_NAMES]}
    values = [value if value in kept else OTHER for value in values]
    names, places = np.unique(np.array(values, dtype=str), return_inverse=True)
    return Slice(name, tuple(names.tolist()), places.astype(np.int64))


def _names(text: str, brands: Collection[Words], longest: int) -> bool:
    """Return whether some words in a row of a text are a brand; none has more than `longest`."""
    found = words(text)
    return any(
        found[start:stop] in brands
        for start in range(len(found))
        for stop in range(start + 1, min(start + longest, len(found)) + 1)
    )


def _scripts(text: str) -> str:
    found = [name for name, one in SCRIPTS.items() if re.search(one, text)]
    return "+".join(found) or "no letters"
