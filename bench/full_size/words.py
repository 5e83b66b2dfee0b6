"""Made-up words, as many as a catalogue of a million products has, drawn as languages draw them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.demo.catalogue import Rng

_ONSETS = (
    "b", "br", "c", "cl", "d", "dr", "f", "fl", "g", "gr", "h", "j", "k", "kr", "l", "m", "n", "p",
    "pr", "r", "s", "st", "t", "tr", "v", "w", "z", "th", "sh",
)  # fmt: skip
_VOWELS = [*"aeiou", "ai", "ea", "io", "ou"]
_CODAS = ["", "", "", "n", "r", "l", "s", "x", "m"]
_LATIN = [onset + vowel + coda for onset in _ONSETS for vowel in _VOWELS for coda in _CODAS]
_KANA = [chr(code) for code in range(0x30AB, 0x30EE) if chr(code) not in "ッャュョァィゥェォヮ"]
_KANA += [each + "ー" for each in _KANA] + [each + "ン" for each in _KANA]


def make_words(rng: Rng, count: int, script: str) -> pa.Array:
    """Return made-up words, in Latin letters or katakana; few of them are equal."""
    syllables = pa.array(_KANA if script == "japanese" else _LATIN)
    parts = [syllables.take(pa.array(rng.integers(len(syllables), size=count))) for _ in range(3)]
    third = pc.if_else(pa.array(rng.random(count) < 0.4), parts[2], "")
    return pc.utf8_capitalize(pc.binary_join_element_wise(parts[0], parts[1], third, ""))


def skewed(rng: Rng, count: int, size: int | tuple[int, ...]) -> Ints:
    """Return places below `count`, the first ones far more often, as words are used."""
    return _skew(rng.random(size), count)


def own(numbers: Ints, count: int, salt: int) -> Ints:
    """Return for each number a place below `count`, skewed as `skewed` does, always the same."""
    mixed: NDArray[Any] = numbers.astype(np.uint64) + np.uint64(salt)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return _skew((mixed >> np.uint64(11)) / 2.0**53, count)


def _skew(lots: NDArray[np.float64], count: int) -> Ints:
    """Zipf's law, nearly: places are log-uniform."""
    places: Ints = (np.exp(lots * np.log(count + 1.0)) - 1).astype(np.int64)
    return np.minimum(places, count - 1)
