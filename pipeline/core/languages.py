"""The language codes of ISO 639-1, and what languages and scripts are like."""

import unicodedata
from collections.abc import Collection

from pipeline.core.log import log

_CODES = """
aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv
dz ee el en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie
ig ii ik io is it iu ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv
mg mh mi mk ml mn mr ms mt my na nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm
rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts
tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""

LANGUAGES = frozenset(_CODES.split())
"""The codes of ISO 639-1."""

UNSPACED = {"ja", "km", "lo", "my", "th", "zh"}
"""Languages that are written without spaces between words."""

UNSPACED_LETTERS = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー"
"""The letters of scripts without spaces between words, within brackets of the library `regex`. The
long vowel mark belongs to no script."""

_DIACRITICS = dict.fromkeys(range(0x300, 0x370))


def language_of(locale: str) -> str:
    """Return the language of a locale that is named by its code; `any` for another name."""
    return locale if locale in LANGUAGES else "any"


def warn_of_language(key: str, model: str, speaks: Collection[str], language: str) -> None:
    """Warn where a model does not speak a locale's language; `key` of params.yaml chose it."""
    if not {language, "any"} & set(speaks):
        log.warning(
            "warning: %s: %s does not speak %s (it speaks: %s); expect poor results",
            key, model, language, ", ".join(speaks),
        )  # fmt: skip


def fold_accents(text: str) -> str:
    """Return a text without the marks of Latin letters: é is e, ñ is n."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", text).translate(_DIACRITICS))
