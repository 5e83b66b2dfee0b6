"""HTML tags, taken out of plain text. Every pattern reads a text once, however it is written."""

import re

# Elements that separate words; the others can be inside one.
BREAKS = (
    "address|article|blockquote|body|br|button|center|dd|div|dl|dt|figure|footer|form|h[1-6]|"
    "head|header|hr|html|iframe|img|input|label|li|ol|option|p|pre|section|select|table|tbody|td|"
    "tfoot|th|thead|tr|ul|video"
)
INLINE = (
    "a|abbr|b|bdi|bdo|big|cite|code|del|dfn|em|font|i|ins|kbd|mark|nobr|samp|small|span|strike|"
    "strong|sub|sup|tt|u|var|wbr"
)
UNSEEN = "script|style|noscript|template"

_UNSEEN_START = re.compile(rf"<(?:(!)--|(?a:({UNSEEN}))\b[^<>]*>)", re.IGNORECASE)
_UNSEEN_END = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in UNSEEN.split("|")} | {
    "!": re.compile("-->")
}
# A text that was cut off may end inside a tag: after its name, or in an attribute. The possessive
# quantifiers (*+) never step back: without them a long tag takes quadratic time.
_BREAK = re.compile(
    rf"</?(?:{BREAKS})(?![\w-])(?:[^<>]*+>|\s*+/?\s*+\Z|\s[^<>=]*+=[^<>]*+\Z)", re.IGNORECASE
)
_TAG = re.compile(rf"</?(?:{INLINE})(?![\w-])[^<>]*+>", re.IGNORECASE)
_BARE_BREAK = re.compile(rf"</?(?:{BREAKS})\s*+/?>", re.IGNORECASE)

_RAISED = re.compile(
    r"<(sup|sub)(?![\w-])[^<>]*+>\s*+"
    r"([+-]?[0-9]{1,20}(?:/[0-9]{1,20})?|[oº°]|tm|sm|r)"
    r"\s*+</\1\s*+>",
    re.IGNORECASE,
)
_SUPERSCRIPT = str.maketrans("0123456789+-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻")
_SUBSCRIPT = str.maketrans("0123456789+-", "₀₁₂₃₄₅₆₇₈₉₊₋")
_RAISED_LETTERS = {"o": "º", "º": "º", "°": "º", "tm": "™", "sm": "℠", "r": "Ⓡ"}


def without_tags(text: str) -> str:
    """Return `text` without tags, comments, scripts and styles; what is not a tag stays.

    `<sup>2</sup>` becomes the character ² first, so that one rule deals with both.
    """
    text = _RAISED.sub(_raised, _without_unseen(text))
    return _TAG.sub("", _BREAK.sub(" ", text))


def without_bare_breaks(text: str) -> str:
    """Return `text` without tags such as <br> that have no attributes."""
    return _BARE_BREAK.sub(" ", text)


def _without_unseen(text: str) -> str:
    """Return `text` with a space for each element that a browser does not show, and its content.

    An element that never ends is left to the other rules. Where one end is missing, all later
    ones of its name are too; so the text after is searched once per name.
    """
    kept, done, unclosed = [], 0, set[str]()
    for start in _UNSEEN_START.finditer(text):
        name = (start[1] or start[2]).lower()
        if start.start() < done or name in unclosed:
            continue
        end = _UNSEEN_END[name].search(text, start.end())
        if end is None:
            unclosed.add(name)
            continue
        kept += [text[done : start.start()], " "]
        done = end.end()
    return "".join(kept) + text[done:]


def _raised(tag: re.Match[str]) -> str:
    name, content = tag[1].lower(), tag[2].lower()
    if content in _RAISED_LETTERS:
        return _RAISED_LETTERS[content] if name == "sup" else content
    digits, slash, divisor = content.partition("/")
    if slash:
        return f"{digits.translate(_SUPERSCRIPT)}⁄{divisor.translate(_SUBSCRIPT)}"
    return digits.translate(_SUPERSCRIPT if name == "sup" else _SUBSCRIPT)
