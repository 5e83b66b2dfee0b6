"""`normalise` and `join_fields` for whole columns, in Arrow's compiled kernels.

Most texts need only what the kernels below do exactly as `normalise` does. `_HARD` and
`_HARD_TOGETHER` find the others; they may find a text that is not hard. The hard ones go through
`normalise` itself, so its results are these by definition or, in the tests, by comparison.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.text.characters import DASHES, DIGIT_FORMS, KATAKANA, nfkc_of_run
from pipeline.text.markup import BREAKS, INLINE, UNSEEN
from pipeline.text.normalise import MAX_CHARACTERS, normalise

STABLE = (
    "\\x20-\\x7e¡-§©«¬®°±¶·»¿-ıĴ-ľŁ-ňŊ-žΑ-ΡΣ-Ωα-ωЀ-џ‐‒-―‘-‣‰-′‹-※₠-₧₩-₵←-⇿∀-∔∖∗∙-∫∱-⋿─-➿⬅-⬇⬛⬜⭐⭕"
    "、-〩〰-〵ぁ-ゖゝゞ゠-ヾ一-龥가-힣\ufe0f🌀-🗿😀-🙏🚀-🛅🤐-🧀"
)
"""Ranges of characters that `normalise` leaves alone beside any of these and the following; the
hard combinations are the patterns below."""

COMPATIBLE = (
    "\u00a0\u2002-\u200a‑…″‴‼\u3000ª²³µ¹¼-¾₨℀-℟℡℣-⅏⅐-ⅿ①-⒇⒜-⒵⓪㈠-㉇㊀-㋾㌀-㏾！-；＝-～｡-ﾟ￠-￢￤-￦"
)
"""Ranges of characters that NFKC may change, but only together with others of these beside them;
none becomes a `<`."""

EMOJI = "☀-☄☎☑⚠⚡✂✅✈-✍✔✖✨❄❗❣❤➡⬅-⬇⭐⭕🌀-🌡🌤-🎓🎞-🏰📿-🔽😀-🙏🚀-🛅"
"""Of STABLE: emoji, which keep a variation selector."""

_UNUSUAL = r"[^\n -%'-;=-~]|[\n ]{2}|^[\n ]|[\n ]$"
"""May need more than a space per line feed: `<`, `&`, a gap, all but printable ASCII."""

_HARD = "|".join(
    (
        "&[#a-zA-Z0-9]",  # an entity, perhaps
        f"(?i:<(?:!--|{UNSEEN}|su[bp]))",
        "<[^<>]*(?:<|$)",  # a tag that was cut off, perhaps, or one that shows without another
        r"</?[a-zA-Z0-9]*[^\x00-\x7f]",  # a name goes on there, for Python but not for RE2
        "(?:^|[^ｦ-ﾝ])[ﾞﾟ]",  # a mark that goes with the character before it
        f"(?:^|[^{EMOJI}])\ufe0f",
        f"[^\n{STABLE}{COMPATIBLE}]",
    )
)
_OF_DIGITS = "".join(char for char in DIGIT_FORMS if re.match(f"[{COMPATIBLE}]", char))
_HARD_TOGETHER = "|".join(  # also where a tag was between the two
    (
        f"[{KATAKANA}ﾞﾟ][{DASHES}]",
        f"[0-9０-９{_OF_DIGITS}][{_OF_DIGITS}]",
        f"[{_OF_DIGITS}][0-9０-９]",
    )
)
_MARK = "<[/a-zA-Z]"
_COMPATIBLE = f"[{COMPATIBLE}]"
_RUN = re.compile(f"{_COMPATIBLE}+")
# RE2 has no lookahead: the character after the name is part of the match instead.
_BREAK, _TAG = (rf"(?i)</?(?:{names})(?:[^<>\w-][^<>]*)?>" for names in (BREAKS, INLINE))


def normalise_column(texts: pa.Array) -> pa.Array:
    """Return `normalise` of every text; null gives the empty string."""
    texts = pc.fill_null(texts, "")
    texts = _changed(texts, too_long(texts), _cut)
    unusual = pc.match_substring_regex(texts, _UNUSUAL)
    spaced = pc.replace_substring(texts, "\n", " ")
    return _changed(spaced, unusual, lambda some: _normalise_unusual(some, texts.filter(unusual)))


def too_long(texts: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return which texts `normalise` cuts; of null, null."""
    # Bytes are counted at once: few texts have as many, and only then are characters counted.
    longer = pc.greater(pc.binary_length(texts), MAX_CHARACTERS)
    return pc.greater(pc.utf8_length(texts), MAX_CHARACTERS) if pc.any(longer).as_py() else longer


def _cut(texts: pa.Array) -> pa.Array:
    return pc.utf8_slice_codeunits(texts, 0, MAX_CHARACTERS)


def _normalise_unusual(spaced: pa.Array, texts: pa.Array) -> pa.Array:
    """Return `normalise` of every text; `spaced` has spaces for line feeds."""
    hard = pc.match_substring_regex(texts, _HARD)
    marked = pc.match_substring_regex(spaced, _MARK)
    done = _changed(spaced, marked, _without_tags)
    hard = pc.or_(hard, pc.match_substring_regex(done, _HARD_TOGETHER))
    compatible = pc.match_substring_regex(done, _COMPATIBLE)
    done = _changed(done, compatible, _nfkc)
    done = _changed(done, _gaping(done), _singly_spaced)
    return _changed(done, hard, lambda _: _each_alone(texts.filter(hard)))


def join_columns(columns: Sequence[pa.Array], separator: str) -> tuple[pa.Array, NDArray[np.int32]]:
    """Join the fields of every product as `join_fields` does.

    Args:
        columns: the fields, normalised.
        separator: the text between those that hold anything.

    Returns:
        The texts, and the ends of their fields, shape (texts, fields).
    """
    lengths = np.stack([pc.utf8_length(each).to_numpy() for each in columns], axis=1)
    filled = lengths > 0
    gaps = filled & (np.cumsum(filled, axis=1) > 1)
    ends = np.cumsum(lengths + gaps * len(separator), axis=1, dtype=np.int32)
    # With the separator as a piece of its own: Arrow has no row for a row of nulls alone.
    pieces = [
        piece
        for gap, column in zip(gaps.T, columns, strict=True)
        for piece in (pc.if_else(pa.array(gap), separator, ""), column)
    ]
    return pc.binary_join_element_wise(*pieces, ""), ends


def _changed(texts: pa.Array, which: pa.Array, change: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """Return the texts, some of them changed."""
    if not pc.any(which).as_py():
        return texts
    return pc.replace_with_mask(texts, which, change(texts.filter(which)))


def _without_tags(texts: pa.Array) -> pa.Array:
    texts = pc.replace_substring_regex(texts, _BREAK, " ")
    marked = pc.match_substring_regex(texts, _MARK)
    return _changed(texts, marked, lambda some: pc.replace_substring_regex(some, _TAG, ""))


def _gaping(texts: pa.Array) -> pa.Array:
    at_an_end = pc.or_(pc.starts_with(texts, " "), pc.ends_with(texts, " "))
    return pc.or_(at_an_end, pc.match_substring_regex(texts, "  "))


def _nfkc(texts: pa.Array) -> pa.Array:
    return pa.array(
        [_RUN.sub(lambda run: nfkc_of_run(run[0]), text) for text in texts.to_pylist()],
        pa.string(),
    )


def _singly_spaced(texts: pa.Array) -> pa.Array:
    return pc.ascii_trim(pc.replace_substring_regex(texts, "  +", " "), " ")


def _each_alone(texts: pa.Array) -> pa.Array:
    return pa.array([normalise(text) for text in texts.to_pylist()], pa.string())
