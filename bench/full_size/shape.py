"""The size and shape of ESCI that `bench.full_size` gives its catalogue.

Sizes, labels and splits are those that the dataset's authors publish (README of esci-data: tables
of both versions and of the labels; the labels outside of us are what us leaves of them). Which of
the 599,070 other products are es and which jp is approximate. Nulls, lengths, markup and characters
were counted in a sample of real ones (3,465 products).
"""

from dataclasses import dataclass, replace

PRODUCTS = 1_814_924
"""The rows of ESCI's products file."""

JUDGED_LEAST, JUDGED_USUAL, JUDGED_MOST = 8, 16, 198
"""Judgements a query: at least, in the middle, at most."""

SOURCES = {
    "other": 0.869914, "negations": 0.053302, "parse_pattern": 0.046559, "behavioral": 0.028932,
    "nlqec": 0.001293,
}  # fmt: skip
"""Why ESCI holds a query, and how often."""


@dataclass(frozen=True)
class Length:
    """A log-normal length in characters: its median, its logarithm's standard deviation."""

    median: float
    spread: float


@dataclass(frozen=True)
class Shape:
    """One locale of ESCI.

    Attributes:
        products: rows of the products file.
        queries: distinct query_ids; of them `small` in the small version.
        judgements: rows of the examples file.
        test: test queries; of them `small_test` in the small version.
        labels: the shares of E, S, C, I.
        null: the shares of products without description, bullets, brand, color.
        description: how long one is.
        bullets: how long they are, all together.
        html: the share of the descriptions that hold markup.
        odd: the share of items (a bullet, some sentences) with characters beyond the keyboard's.
    """

    products: int
    queries: int
    judgements: int
    small: int
    test: int
    small_test: int
    labels: tuple[float, float, float, float]
    null: tuple[float, float, float, float]
    description: Length
    bullets: Length
    html: float
    odd: float


ELSEWHERE = (0.5740, 0.2553, 0.0444, 0.1263)
SHAPES = {
    "us": Shape(
        1_215_854, 97_345, 1_818_825, 29_844, 22_458, 8_956, (0.6859, 0.2031, 0.0220, 0.0890),
        (0.469, 0.147, 0.059, 0.287), Length(752, 0.64), Length(633, 0.61), 0.58, 0.11,
    ),
    "es": Shape(
        259_973, 15_180, 356_410, 8_049, 3_844, 2_417, ELSEWHERE,
        (0.555, 0.102, 0.037, 0.385), Length(966, 0.48), Length(615, 0.74), 0.70, 0.07,
    ),
    "jp": Shape(
        339_097, 18_127, 446_053, 10_407, 4_667, 3_123, ELSEWHERE,
        (0.580, 0.260, 0.170, 0.534), Length(204, 1.0), Length(174, 1.05), 0.47, 0.30,
    ),
}  # fmt: skip


def shapes(products: int) -> dict[str, Shape]:
    """Return the shape of each locale of a catalogue with this many products in all."""
    found = {locale: _scaled(shape, products) for locale, shape in SHAPES.items()}
    last = next(reversed(found))
    others = sum(shape.products for locale, shape in found.items() if locale != last)
    return found | {last: replace(found[last], products=products - others)}


def _scaled(shape: Shape, products: int) -> Shape:
    """Return a shape with its counts in proportion to a catalogue's."""
    factor = products / PRODUCTS

    def count(full: int) -> int:
        return max(round(full * factor), 1)

    return Shape(
        count(shape.products), count(shape.queries), count(shape.judgements), count(shape.small),
        count(shape.test), count(shape.small_test), shape.labels, shape.null, shape.description,
        shape.bullets, shape.html, shape.odd,
    )  # fmt: skip
