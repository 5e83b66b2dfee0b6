"""Text as an encoder should see it: no markup, one form for each character, single spaces.

Product texts are no HTML pages but plain text with HTML in places. Hence no parser: it would take
all from a `<` that is no tag to the next `>` out of the text.
"""

import html
import html.entities
import re
import unicodedata
from collections.abc import Iterable

# Elements that separate words; the others may stand inside one.
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
_UNSEEN = re.compile(rf"<!--.*?-->|<({UNSEEN})\b[^<>]*>.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
# A text that was cut off may end inside a tag: behind its name, or with an attribute.
_BREAK = re.compile(
    rf"</?(?:{BREAKS})(?![\w-])(?:[^<>]*>|\s*/?\s*$|\s[^<>]*=[^<>]*$)", re.IGNORECASE
)
_TAG = re.compile(rf"</?(?:{INLINE})(?![\w-])[^<>]*>", re.IGNORECASE)
_BARE_BREAK = re.compile(rf"</?(?:{BREAKS})\s*/?>", re.IGNORECASE)

_ENTITY = re.compile(r"&(#?[a-zA-Z0-9]+);?")

# Invisible characters: controls, soft hyphen, zero-width space, direction marks, byte order mark.
# The joiners U+200C and U+200D stay: they shape emoji and words.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff\ufff9-\ufffb]"
)


def normalise(text: str | None) -> str:
    """Return `text` without markup, entities and invisible characters, in NFKC, singly spaced.

    Markup goes before NFKC does, so that Japanese text in full-width brackets ＜…＞ is not taken
    for a tag. Null gives the empty string.
    """
    if not text:
        return ""
    if "&" in text:
        text = _unescape(text)
    if "<" in text:
        text = _TAG.sub("", _BREAK.sub(" ", _UNSEEN.sub(" ", text)))
    # Before NFKC: what stood at both sides of an invisible character may compose.
    text = _INVISIBLE.sub(_space_or_nothing, text)
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        if "<" in text:  # full-width tags such as ＜br＞ show only now
            text = _BARE_BREAK.sub(" ", text)
    return " ".join(text.split())


def join_fields(fields: Iterable[str | None], separator: str) -> tuple[str, list[int]]:
    """Join the normalised fields that hold anything, in their order.

    Returns:
        The text, and the end of each field in it, exclusive, in characters; an empty field ends
        where the one before it does, the first one at 0.
    """
    text, ends = "", []
    for field in map(normalise, fields):
        if field:
            text = f"{text}{separator}{field}" if text else field
        ends.append(len(text))
    return text, ends


def _space_or_nothing(invisible: re.Match[str]) -> str:
    return " " if invisible[0].isspace() else ""


def _unescape(text: str) -> str:
    """Decode entities until none is left: feeds escape twice (&amp;quot;) and more."""
    while (decoded := _ENTITY.sub(_character, text)) != text:
        text = decoded
    return text


def _character(entity: re.Match[str]) -> str:
    """Return what an entity stands for; one that is none, such as the &D of R&D, stays."""
    name = entity[1]
    known = name.startswith("#") or f"{name};" in html.entities.html5
    return html.unescape(entity[0]) if known else entity[0]
