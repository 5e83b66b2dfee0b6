"""`text.normalise` and `text.join_fields` for whole columns, in Arrow's compiled kernels.

Most texts need little: no more than what the kernels below do exactly as `normalise` does. Which
ones those are, `_HARD` decides; it may call a text hard that is not. The hard ones go through
`normalise` itself, so its results are these by definition or, in the tests, by comparison.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.text import BREAKS, INLINE, UNSEEN, normalise

STABLE = (
    "\\x20-\\x7e¡-§©«¬®°±¶·»¿-ıĴ-ľŁ-ňŊ-žΑ-ΡΣ-Ωα-ωЀ-џ‍‐‒-―‘-‣‰-′‹-※₠-₧₩-₵←-⇿∀-∫∱-⋿─-➿⬅-⬇⬛⬜⭐⭕"
    "、-〩〰-〵ぁ-ゖゝゞ゠-ヾ一-龥가-힣️🌀-🗿😀-🙏🚀-🛅🤐-🧀"
)
"""Ranges of characters that `normalise` leaves alone, whatever stands beside them."""

COMPATIBLE = "\u00a0\u2002-\u200a‑…″‴‼\u3000¨ª¯²-µ¸-º¼-¾₨℀-⅏⅐-ⅿ①-⓪㈠-㉇㊀-㋾㌀-㏾！-；＝-～｡-ﾟ￠-￦"
"""Ranges of characters that NFKC changes, in the same way in every version of Unicode that counts;
none becomes a `<`."""

_HARD = "|".join(
    (
        "&[#a-zA-Z0-9]",  # an entity, perhaps
        f"(?i:<(?:!--|{UNSEEN}))",
        "<[^<>]*$",  # a tag that was cut off, perhaps
        r"</?[a-zA-Z0-9]*[^\x00-\x7f]",  # a name goes on there, for Python but not for RE2
        f"[^\n{STABLE}{COMPATIBLE}]",
    )
)
# RE2 has no lookahead: the character behind the name is part of the match instead.
_BREAK, _TAG = (rf"(?i)</?(?:{names})(?:[^<>\w-][^<>]*)?>" for names in (BREAKS, INLINE))


def normalise_column(texts: pa.Array) -> pa.Array:
    """Return `normalise` of every text; null gives the empty string."""
    texts = pc.fill_null(texts, "")
    hard = pc.match_substring_regex(texts, _HARD)
    done = _changed(texts, pc.match_substring(texts, "<"), _without_tags)
    done = _changed(done, pc.match_substring(done, "\n"), _without_breaks)
    done = _changed(done, pc.invert(pc.string_is_ascii(done)), _compatible)
    done = _changed(done, pc.match_substring_regex(done, "^ |  | $"), _singly_spaced)
    return _changed(done, hard, lambda _: _each_alone(texts.filter(hard)))


def join_columns(columns: Sequence[pa.Array], separator: str) -> tuple[pa.Array, NDArray[np.int32]]:
    """Join the fields of every product as `text.join_fields` does.

    Args:
        columns: the fields, normalised.
        separator: what stands between those that hold anything.

    Returns:
        The texts, and the ends of their fields, shape (texts, fields).
    """
    lengths = np.stack([pc.utf8_length(each).to_numpy() for each in columns], axis=1)
    filled = lengths > 0
    gaps = filled & (np.cumsum(filled, axis=1) > 1)
    ends = np.cumsum(lengths + gaps * len(separator), axis=1, dtype=np.int32)
    held = [
        pc.if_else(pa.array(column), each, None)
        for column, each in zip(filled.T, columns, strict=True)
    ]
    return pc.binary_join_element_wise(*held, separator, null_handling="skip"), ends


def _changed(texts: pa.Array, which: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the texts, some of them changed."""
    if not pc.any(which).as_py():
        return texts
    return pc.replace_with_mask(texts, which, change(texts.filter(which)))


def _without_tags(texts: pa.Array) -> pa.Array:
    return pc.replace_substring_regex(pc.replace_substring_regex(texts, _BREAK, " "), _TAG, "")


def _without_breaks(texts: pa.Array) -> pa.Array:
    return pc.replace_substring(texts, "\n", " ")


def _compatible(texts: pa.Array) -> pa.Array:
    return _changed(texts, pc.match_substring_regex(texts, f"[{COMPATIBLE}]"), _nfkc)


def _nfkc(texts: pa.Array) -> pa.Array:
    return pc.utf8_normalize(texts, "NFKC")


def _singly_spaced(texts: pa.Array) -> pa.Array:
    return pc.ascii_trim(pc.replace_substring_regex(texts, " {2,}", " "), " ")


def _each_alone(texts: pa.Array) -> pa.Array:
    return pa.array([normalise(text) for text in texts.to_pylist()], pa.string())
