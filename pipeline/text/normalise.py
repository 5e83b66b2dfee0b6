"""Text as an encoder should see it: no markup, one form per character, single spaces.

Product texts are not HTML pages but plain text with HTML in places. Hence no parser: it would take
everything from a `<` that is not a tag to the next `>` out of the text. The rules and their sources
are in docs/texts.md.
"""

from collections.abc import Iterable

from pipeline.text.characters import to_nfkc, without_invisible
from pipeline.text.entities import decode_entities
from pipeline.text.markup import without_bare_breaks, without_tags

MAX_CHARACTERS = 100_000
"""Of a longer text the rest is left out: no encoder reads it, and feeds of that kind are faulty.
`clean` counts such texts."""


def normalise(text: str | None) -> str:
    """Return `text` without markup, entities and invisible characters, in NFKC, singly spaced.

    Markup goes before NFKC, so that Japanese text in full-width brackets ＜…＞ is not taken for a
    tag. Null gives the empty string. The time is linear in the length of the text.
    """
    if not text:
        return ""
    text = text[:MAX_CHARACTERS]
    if "&" in text:
        text = decode_entities(text)
    if "<" in text:
        text = without_tags(text)
    # Before NFKC: the characters at both sides of an invisible one may compose.
    text = without_invisible(text)
    if not text.isascii():
        text = to_nfkc(text)
        if "<" in text:  # full-width tags such as ＜br＞ appear only now
            text = without_bare_breaks(text)
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
