"""What the texts of a large catalogue are put together from, by locale.

A few thousand prototypes are drawn as the demo draws its products, and so are queries that judge
them. Every product of the catalogue has the type, the attributes and the first words of one
prototype; every query asks what one of theirs asks, and judges products of the prototypes that
it judges: so labels mean what they say.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from bench.full_size.shape import Shape
from bench.full_size.words import make_words, skewed
from pipeline.demo.catalogue import Product, Query, Rng, Shop, draw_product, draw_query
from pipeline.demo.marketplace import Wording, inflect

PRODUCTS_A_PROTOTYPE = 400
PROTOTYPES_A_TYPE = 5
"""At least."""
QUERIES_A_PROTOTYPE_QUERY = 8
PRODUCTS_A_LINE = 4
WORDS = 200_000

LABELS = "ESCI"

ITEM_PARTS = (8, 28)
"""How many parts an item (a bullet, some sentences of a description) has: at least, and below."""
SENTENCE, TAG = 0.05, 0.08
"""The share of the parts that are sentences, and in texts with markup tags; the rest are words."""

ODD = {
    "latin": (
        "–", "“premium”", "shopper’s", "100\u00a0%", "【NEW】", "—", "FlexiGrip™", "DuraCore®", "★",
        "✔", "✅", "size：", "soft，", "…", "5 × 7", "❤️", "（2 pack）", "①", "½", "25℃", "60°",
        "fine\u200b", "🎁", "café", "it’s",
    ),
    "japanese": (
        "（約）", "★", "【新品】", "①", "サイズ：", "！", "■", "～", "㎝", "／", "※", "、",
        "\u3000", "ＡＢＳ", "ｻｲｽﾞ", "℃", "♪", "１２", "㎏", "⇒",
    ),
}  # fmt: skip
"""What keyboards do not have, and what NFKC changes."""

TAGS = (
    "<br>",
    "<br />",
    "<br/>",
    "<br><br>",
    "<b>",
    "</b>",
    "<BR>",
    "</p><p>",
    "<strong>",
    "</strong>",
)

_PIECE = {
    "latin": re.compile(r"[\w'’-]+[.,:;!]?"),
    "japanese": re.compile(r"[一-龥々]+|[ァ-ヶー]+|[ぁ-ん]+|\w+?"),
}


@dataclass(frozen=True)
class Bank:
    """The parts of a locale's catalogue.

    Attributes:
        script: of its texts.
        prototypes: the products that all others are varied from.
        queries: what is asked of them; each judges some of them with every label.
        types: the number of each prototype's type.
        titles: of each prototype; likewise brands, and colors, null where it has none.
        lines: made-up names of product lines.
        parts: the pieces that texts are made of, listed below, concatenated.
        words: how many words there are, the most usual first.
        odd: how many odd things there are.
        tags: how many tags there are.
        sentences: where the sentences of each type begin; one more, where they end.
    """

    script: str
    prototypes: Sequence[Product]
    queries: Sequence[Query]
    types: NDArray[np.int64]
    titles: pa.Array
    brands: pa.Array
    colors: pa.Array
    lines: pa.Array
    parts: pa.Array
    words: int
    odd: int
    tags: int
    sentences: NDArray[np.int64]

    @cached_property
    def mean_own(self) -> float:
        """How long a prototype's own text is, in characters."""
        return float(pc.mean(pc.utf8_length(self.parts.slice(self.own))).as_py())

    @cached_property
    def mean_item(self) -> float:
        """How long an item is, in characters."""
        lengths = pc.utf8_length(self.parts).to_numpy()
        words = lengths[: self.words][skewed(np.random.default_rng(0), self.words, 100_000)].mean()
        said = lengths[self.sentences[0] : self.own].mean()
        gap = self.script != "japanese"
        return float(sum(ITEM_PARTS) / 2 * (gap + (1 - SENTENCE) * words + SENTENCE * said))

    @property
    def own(self) -> int:
        """Where the bullets of each prototype begin among the parts; descriptions follow."""
        return int(self.sentences[-1])


def draw_bank(rng: Rng, wording: Wording, shape: Shape) -> Bank:
    """Draw the parts of a locale's catalogue."""
    types = list(wording.types)
    count = max(len(types) * PROTOTYPES_A_TYPE, shape.products // PRODUCTS_A_PROTOTYPE)
    prototypes = [draw_product(rng, wording, types[i % len(types)], str(i)) for i in range(count)]
    said = [
        _sentences([each for each in prototypes if each.type == name], wording) for name in types
    ]
    usual = Counter(piece for of_type in said for each in of_type
                    for piece in _PIECE[wording.script].findall(each))  # fmt: skip
    words = [*sorted(usual, key=lambda each: (-usual[each], each))]
    words += pc.utf8_lower(make_words(rng, WORDS, wording.script)).to_pylist()
    odd = ODD[wording.script]
    before = len(words) + len(odd) + len(TAGS)
    # Where a prototype has none: a sentence of its type.
    own = [
        gap.join(_lines(text, wording)) if text else said[i % len(types)][0]
        for gap, texts in (
            ("\n", [each.bullets for each in prototypes]),
            (" ", [each.description for each in prototypes]),
        )
        for i, text in enumerate(texts)
    ]
    line_words = make_words(rng, max(shape.products // PRODUCTS_A_LINE, 1), wording.script)
    numbers = pa.array(rng.integers(10, 1000, size=len(line_words))).cast(pa.string())
    numbered = pa.array(rng.random(len(line_words)) < 0.3)
    return Bank(
        script=wording.script,
        prototypes=prototypes,
        queries=list(
            _queries(rng, wording, prototypes, shape.queries // QUERIES_A_PROTOTYPE_QUERY + 1)
        ),
        types=np.arange(count) % len(types),
        titles=pa.array([each.title for each in prototypes]),
        brands=pa.array([wording.brands[each.traits["brand"]].said[0] for each in prototypes]),
        colors=pa.array(
            [
                inflect(wording.colors[each.traits["color"]].said[0], "ms")
                if "color" in each.traits
                else None
                for each in prototypes
            ],
            pa.string(),
        ),
        lines=pc.binary_join_element_wise(line_words, pc.if_else(numbered, numbers, ""), ""),
        parts=pa.array(
            [*words, *odd, *TAGS, *(each for of_type in said for each in of_type), *own]
        ),
        words=len(words),
        odd=len(odd),
        tags=len(TAGS),
        sentences=np.cumsum([before, *map(len, said)]),
    )


def _sentences(products: Sequence[Product], wording: Wording) -> list[str]:
    """Return what products of a type say, a line each."""
    texts = [text for each in products for text in (each.bullets, each.description) if text]
    return sorted({line for text in texts for line in _lines(text, wording)})


def _lines(text: str, wording: Wording) -> list[str]:
    """Return a text's lines, without marks before them: in real ones those are rarer."""
    marks = tuple(filter(None, wording.marks))
    lines = text.split("\n")
    return [
        line.removeprefix(next((mark for mark in marks if line.startswith(mark)), ""))
        for line in lines
    ]


def _queries(
    rng: Rng, wording: Wording, prototypes: Sequence[Product], count: int
) -> Iterator[Query]:
    """Yield queries that judge some prototype with each label."""
    shop = Shop(prototypes)
    while count:
        query = draw_query(rng, wording, shop)
        if len({label for _, label in query.judgements}) == len(LABELS):
            count -= 1
            yield query
