"""The markup, entities, widths and slips that real feeds and queries have."""

import html
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from html.entities import codepoint2name

from pipeline.demo.catalogue import Product, Rng, pick
from pipeline.demo.marketplace import Wording

_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}
_KANA = {unicodedata.normalize("NFKC", chr(code)): chr(code) for code in range(0xFF66, 0xFF9E)}
_HALF_WIDTH = str.maketrans(
    _KANA | {unicodedata.normalize("NFKC", kana + mark): kana + mark
             for kana in _KANA.values() for mark in "ﾞﾟ"
             if len(unicodedata.normalize("NFKC", kana + mark)) == 1}
)  # fmt: skip


def roughen(rng: Rng, wording: Wording, product: Product) -> Product:
    """Return a product with the markup, entities and widths that feeds have."""
    title, bullets, description = product.title, product.bullets, product.description
    if description is not None:
        description = _marked_up(description.split("\n"), rng.random())
    if wording.script == "japanese":
        roll = rng.random()
        if roll < 0.12:
            title = title.translate(_FULL_WIDTH)
        elif roll < 0.15:
            title = title.translate(_HALF_WIDTH)
        if bullets is not None and rng.random() < 0.06:
            bullets = bullets.translate(_HALF_WIDTH)
    if rng.random() < 0.04:
        title = _named_entities(title)
    return replace(product, title=title, bullets=bullets, description=description)


def _marked_up(sentences: Sequence[str], roll: float) -> str:
    first, *rest = sentences
    if roll < 0.1:
        return "".join(f"<p>{html.escape(each)}</p>" for each in sentences)
    if roll < 0.2:
        return "<br>".join([f"<b>{_named_entities(first)}</b>", *map(_named_entities, rest)])
    if roll < 0.29:
        # Escaped twice, as some feeds do.
        items = "".join(f"<li>{html.escape(html.escape(each))}</li>" for each in rest)
        return f'<div class="desc">{html.escape(first)}&nbsp;<ul>{items}</ul></div>'
    return " ".join(sentences)


def _named_entities(text: str) -> str:
    return "".join(f"&{codepoint2name[ord(c)]};" if ord(c) in codepoint2name else c for c in text)


def type_query(rng: Rng, wording: Wording, text: str) -> str:
    """Return a query as it comes from the keyboard: slips, no accents, other widths."""
    roll = rng.random()
    if wording.script == "japanese":
        if roll < 0.2:
            return text.replace(" ", "\u3000")
        if roll < 0.3:
            return text.translate(_FULL_WIDTH)
        return text.translate(_HALF_WIDTH) if roll < 0.36 else text
    if rng.random() < 0.45:
        text = re.sub("[\u0301\u0308]", "", unicodedata.normalize("NFD", text))
    text = unicodedata.normalize("NFC", text)
    long_words = [word for word in text.split() if len(word) > 5]
    if roll > 0.06 or not long_words:
        return text
    word = pick(rng, long_words)
    at = int(rng.integers(1, len(word) - 2))
    return text.replace(word, word[:at] + word[at + 1] + word[at] + word[at + 2 :], 1)
