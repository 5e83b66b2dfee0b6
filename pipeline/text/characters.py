"""Characters in one form: NFKC, and before it what NFKC alone would change the meaning of.

NFKC replaces a character without a look at its neighbours: 18½ becomes 181⁄2, 10² becomes 102,
Name™ becomes NameTM. The rules here keep numbers and names apart; docs/texts.md has their sources.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache

import regex

_Rule = Callable[[str], str]


def _class(*ranges: tuple[int, int]) -> list[str]:
    return [chr(code) for first, last in ranges for code in range(first, last + 1)]


def _changed(*ranges: tuple[int, int]) -> dict[str, str]:
    """Return what NFKC makes of the characters of some ranges, of those alone that it changes."""
    return {
        char: form
        for char in _class(*ranges)
        if (form := unicodedata.normalize("NFKC", char)) != char
    }


@lru_cache(65_536)
def _nfkc(text: str) -> str:
    return unicodedata.normalize("NFKC", text)


# Invisible characters

_SPACES_OR_NOTHING = re.compile("[\x00-\x1f\x7f-\x9f\u2800]")
_INVISIBLE = re.compile(
    "[\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b\u200e\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e001f\U000e0080-\U000e0fff]"
)
"""Unicode's Default_Ignorable_Code_Point and the annotation marks, without those of _SHAPING."""
_SHAPING = re.compile("[\u200c\u200d\ufe0e\ufe0f\U000e0020-\U000e007f]+")
_CURSIVE = re.compile("[\u0620-\u08ff\ufb50-\ufdff\ufe70-\ufefc\u1820-\u18aa]")
_FLAG_TAGS = re.compile("[\ufe0e\ufe0f]?([\U000e0020-\U000e007e]+\U000e007f)")
_PICTOGRAPH = regex.compile(r"[\u2000-\U0010ffff&&[\p{Extended_Pictographic}\p{EMod}]]", regex.V1)
_VIRAMA = 9

_WINDOWS_1252 = {
    code: "" if char.isalpha() else char
    for code in range(0x80, 0xA0)
    for char in [bytes([code]).decode("windows-1252", "ignore")]
} | {0x85: " "}
"""What C1 controls are in feeds, as HTML reads their numbers; the letters are broken UTF-8."""


def without_invisible(text: str) -> str:
    """Return `text` without characters that cannot be seen; controls that separate give a space.

    A character that only shapes its neighbours stays where it does so: a variation selector after
    an emoji, a joiner within one, between cursive letters or after a virama, the tags of a flag.
    """
    text = _SPACES_OR_NOTHING.sub(_of_control, text)
    if text.isascii():
        return text
    return _SHAPING.sub(_shaping, _INVISIBLE.sub("", text))


def _of_control(control: re.Match[str]) -> str:
    if control[0] > "\x7f":
        return _WINDOWS_1252.get(ord(control[0]), " ")
    return " " if control[0].isspace() else ""


def _shaping(run: re.Match[str]) -> str:
    """Return what is kept of a run of joiners, variation selectors and tags."""
    marks, text = run[0], run.string
    before, after = text[run.start() - 1 : run.start()], text[run.end() : run.end() + 1]
    if is_pictograph(before):
        flag = _FLAG_TAGS.match(marks) if before == "🏴" else None
        kept = flag[1] if flag else marks[0] if marks[0] in "\ufe0e\ufe0f" else ""
        return f"{kept}\u200d" if marks[-1] == "\u200d" and is_pictograph(after) else kept
    if after == "\u20e3" and before in tuple("0123456789#*"):
        return "\ufe0f" if "\ufe0f" in marks else ""
    if before and unicodedata.combining(before) == _VIRAMA:
        if "\u200d" in marks:
            return "\u200d"
        return "\u200c" if "\u200c" in marks and after.isalpha() else ""
    cursive = "\u200c" in marks and _CURSIVE.match(before) and _CURSIVE.match(after)
    return "\u200c" if cursive else ""


def is_pictograph(char: str) -> bool:
    """Return whether a character can be (part of) an emoji, and NFKC leaves it alone."""
    return bool(_PICTOGRAPH.match(char)) and _nfkc(char) == char


# Signs and accents that NFKC turns into letters or into a space

_TRADE_MARK = re.compile(r"(?:[™℠🅪🅫🅬]|ᵀᴹ|ˢᴹ)+(?=([^\W_])?)")
_ENCLOSED = "Ⓐ-ⓩ🄫🄬"
_REGISTERED = re.compile(rf"(?<=[^\W_ᴬ-ᵂ{_ENCLOSED}])[Ⓡⓡ🄬ᴿ](?![^\W_]|[{_ENCLOSED}])")
_LATIN = "0-9A-Za-zÀ-ÖØ-öø-ɏ０-９Ａ-Ｚａ-ｚ"
_ENCLOSED_EDGE = re.compile(rf"(?<=[{_LATIN}])(?=[{_ENCLOSED}])|(?<=[{_ENCLOSED}])(?=[{_LATIN}])")

SUPERSCRIPTS = "⁰¹²³⁴-⁹⁺-⁾"
SUBSCRIPTS = "₀-₎"
_DEGREE = re.compile(
    rf"(?<=\d)(?:[º˚ᵒ∘゜ﾟ]|⁰(?![{SUPERSCRIPTS}]))|(?<=\d )[º˚](?!\w)|"
    r"(?<![^\W\d_])[º⁰˚ᵒ∘゜ﾟ](?=\s?[CFＣＦ](?![A-Za-zÀ-ɏ]))"
)

_SPACING_ACCENTS = [
    char
    for char, form in _changed((0xA0, 0x2100), (0xFB00, 0xFFEF)).items()
    if form[0] == " " and form.strip()
]
_APOSTROPHES = "´΄᾽᾿´"
_ACCENT = re.compile(f"[{''.join(_SPACING_ACCENTS)}]")

# Japanese

KATAKANA = "ァ-ヺｦ-ｯｱ-ﾝ㋐-㋾㌀-㍗🈁🈂"
_KANA = f"ぁ-ゖゝヽ{KATAKANA}ーｰ"
_VOICED = re.compile(f"(?<=[{_KANA}])[゛゜ﾞﾟ]")
_VOICED_ALONE = re.compile("[゛゜ﾞﾟ]")
_VOICE = {"゛": "\u3099", "ﾞ": "\u3099", "゜": "\u309a", "ﾟ": "\u309a"}
DASHES = "‐‑—―−─━⁻₋︱﹘﹣－"
"""What is typed for the long-vowel mark ー, and all that NFKC makes one of these."""
_LONG_VOWEL = re.compile(
    rf"(?<=[{KATAKANA}\u3099\u309a])(?<![ッンｯﾝ])[{DASHES}](?![{DASHES}{_LATIN}])"
)

# Digits

_NUMERALS = {
    char: form
    for char, form in _changed((0xA0, 0x33FF), (0x1F100, 0x1F26F)).items()
    if not char.isdecimal()
}
_STARTS = {char for char, form in _NUMERALS.items() if form[0].isdecimal()}
_ENDS = {char for char, form in _NUMERALS.items() if form.rstrip(".,")[-1:].isdecimal()}
_RAISED = {char for char in _STARTS if "<super>" in unicodedata.decomposition(char)}
_LOWERED = {char for char in _STARTS if "<sub>" in unicodedata.decomposition(char)}
DIGIT_FORMS = "".join(sorted(_STARTS | _ENDS))
"""Characters that are not digits, and of which NFKC makes a text that starts or ends with one."""
_DIGIT_FORM = re.compile(
    rf"[{SUPERSCRIPTS}]+(?=([⁄∕/][{SUBSCRIPTS}])?)|[{SUBSCRIPTS}]+|"
    rf"[{''.join(sorted((_STARTS | _ENDS) - _RAISED - _LOWERED))}]"
)

_SLASHES = str.maketrans("⁄∕", "//")
_DOT_ABOVE = re.compile("(?<=[ij])\u0307(?![\u0300-\u036f])")
_STACKED = regex.compile(r"(\p{M}{30})\p{M}+")


def _substitute(pattern: re.Pattern[str], by: str | Callable[[re.Match[str]], str]) -> _Rule:
    return lambda text: pattern.sub(by, text)


_RULES: tuple[tuple[frozenset[str], _Rule], ...] = (
    (frozenset("™℠🅪🅫🅬ᴹ"), _substitute(_TRADE_MARK, lambda mark: " " if mark[1] else "")),
    (frozenset("Ⓡⓡ🄬ᴿ"), _substitute(_REGISTERED, "®")),
    (frozenset(_class((0x24B6, 0x24E9))) | {*"🄫🄬"}, _substitute(_ENCLOSED_EDGE, " ")),
    (frozenset("º⁰˚ᵒ∘゜ﾟ"), _substitute(_DEGREE, "°")),
    (frozenset(_VOICE), _substitute(_VOICED, lambda mark: _VOICE[mark[0]])),
    (frozenset(_VOICE), _substitute(_VOICED_ALONE, " ")),
    (
        frozenset(_SPACING_ACCENTS),
        _substitute(_ACCENT, lambda accent: "'" if accent[0] in _APOSTROPHES else " "),
    ),
    (frozenset(DASHES), _substitute(_LONG_VOWEL, "ー")),
    (frozenset(DIGIT_FORMS), _substitute(_DIGIT_FORM, lambda form: _apart(form))),
)
"""The rules in their order, each with the characters without which it changes nothing."""

_AFFECTED: frozenset[str] = frozenset().union(*(characters for characters, _ in _RULES))


def to_nfkc(text: str) -> str:
    """Return `text` in NFKC, with numbers, names and long vowels as they are meant.

    Invisible characters must be out of it. Of marks stacked on one letter the first 30 are kept.
    """
    present = set(text)
    if not present.isdisjoint(_AFFECTED):
        for characters, rule in _RULES:
            if not present.isdisjoint(characters):
                text = rule(text)
    if any(map(unicodedata.combining, present)):
        text = _STACKED.sub(r"\1", text)
    text = unicodedata.normalize("NFKC", text)
    if "⁄" in text or "∕" in text:
        text = text.translate(_SLASHES)
    return _DOT_ABOVE.sub("", text) if "\u0307" in text else text


def nfkc_of_run(run: str) -> str:
    """Return `to_nfkc` of characters to which only its rule of slashes applies."""
    return _nfkc(run).translate(_SLASHES)


def _apart(form: re.Match[str]) -> str:
    """Return a numeral with what keeps it from joining the digits beside it."""
    numeral, text = form[0], form.string
    before, after = text[form.start() - 1 : form.start()], text[form.end() : form.end() + 1]
    left = right = ""
    if _ends_in_digit(before) and any(map(_starts_with_digit, numeral)):
        raised, lowered = not _RAISED.isdisjoint(numeral), not _LOWERED.isdisjoint(numeral)
        left = "^" if raised and not form[1] else "_" if lowered else " "
    if _ends_in_digit(numeral[-1]) and _starts_with_digit(after) and after not in _STARTS:
        right = " "
    return f"{left}{numeral}{right}"


def _starts_with_digit(char: str) -> bool:
    return char.isdecimal() or char in _STARTS


def _ends_in_digit(char: str) -> bool:
    return char.isdecimal() or char in _ENDS
