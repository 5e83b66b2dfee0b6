"""HTML's character references, decoded in plain text."""

import html
import re
from html.entities import html5

ROUNDS = 8
"""How often a text is decoded: feeds escape two or three times. A chain such as `&amp;amp;lt;` is
one round, however long it is."""

_AMPERSANDS = re.compile(r"&(?:(?:amp|AMP|#0*38|#[xX]0*26);)+")
_REFERENCE = re.compile(r"&(?:#([0-9]+)|#[xX]([0-9a-fA-F]+)|([a-zA-Z][a-zA-Z0-9]*))(;?)")

_MOST_DIGITS = 7
"""U+10FFFF has seven decimal digits. Python refuses to read numbers of 4,300."""

# Names that HTML reads without a semicolon and that are words too: "cut&copy", "dollar&cent".
_WORDS = {
    *("cent", "copy", "divide", "eth", "micro", "not", "para", "pound", "sect", "shy"),
    *("thorn", "times", "yen"),
}


def decode_entities(text: str) -> str:
    """Return `text` with its character references decoded, also those that were escaped again.

    A name needs its semicolon. HTML's old names such as `&eacute` do not, where they end at the
    end of a word and no `=` follows: this is HTML's rule for attributes. So `serial&parallel` and
    `?a=1&copy=2` stay.
    """
    for _ in range(ROUNDS):
        decoded = _REFERENCE.sub(_decode, _AMPERSANDS.sub("&", text))
        if decoded == text:
            break
        text = decoded
    return text


def _decode(reference: re.Match[str]) -> str:
    """Return the character of a reference; what is not one, such as the &D of R&D, stays."""
    decimal, hexadecimal, name, semicolon = reference.groups()
    if name is None:
        return _of_number(decimal or hexadecimal, 10 if decimal else 16)
    if semicolon:
        return html5.get(f"{name};", reference[0])
    text, start, end = reference.string, reference.start(), reference.end()
    glued = name.lower() in _WORDS and text[start - 1 : start].isalpha()
    if glued or text[end : end + 1] == "=":
        return reference[0]
    return html5.get(name, reference[0])


def _of_number(digits: str, base: int) -> str:
    digits = digits.lstrip("0")
    if len(digits) > _MOST_DIGITS:
        return "\ufffd"
    return html.unescape(f"&#{int(digits or '0', base)};")
