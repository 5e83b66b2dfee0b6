"""A made-up shop: products drawn from words and attributes, queries judged by their needs.

The label of a query and a product follows from attributes alone, by `label`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from pipeline.demo.marketplace import Wording, inflect

T = TypeVar("T")
Rng = np.random.Generator
Needs = Mapping[str, frozenset[str]]
"""The values that satisfy a query, by attribute."""

MODEL_LETTERS = "ABDEGKLMRSTVXZ"
ASKED = (0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3, 3, 3)
"""How many attributes a query asks for, each number as likely as it is frequent here."""

CANDIDATES = 400
"""Products of a type that a query looks at, drawn anew for each, so that work grows linearly."""
DISTRACTORS = 80
"""Products of any type that a query's irrelevant ones are chosen from."""
MOST = {"E": 16, "S": 10, "C": 3, "I": 3}
"""The most judgements a query has of each label."""
LEAST = 8
"""The fewest judgements a query has; irrelevant products fill up."""


@dataclass(frozen=True, slots=True)
class Product:
    """A product with its attributes and its texts as ESCI has them.

    `listed`: it has a row in the products file. `judged`: queries may judge it.
    """

    product_id: str
    type: str
    traits: Mapping[str, str]
    title: str
    description: str | None
    bullets: str | None
    brand: str | None
    color: str | None
    listed: bool = True
    judged: bool = True


class Shop:
    """The products of a locale, grouped for the queries."""

    def __init__(self, products: Sequence[Product]) -> None:
        self.judged = [each for each in products if each.judged]
        self.findable = [each for each in self.judged if each.listed and each.title]
        self.by_type: dict[str, list[Product]] = {}
        for product in self.judged:
            self.by_type.setdefault(product.type, []).append(product)


@dataclass(frozen=True, slots=True)
class Query:
    """A query, its needs, and the ids and labels it judges, each id once.

    `avoids`: it excludes a value.
    """

    text: str
    type: str
    needs: Needs
    judgements: Sequence[tuple[str, str]]
    avoids: bool


def label(type_name: str, needs: Needs, complements: Sequence[str], product: Product) -> str:
    """Return the ESCI label of a product for a query that asks for a type and attribute values.

    E: of the asked type, and every asked attribute has an asked value. S: of the asked type, but
    some asked attribute has another value. C: of a type that complements the asked one. I: else.
    """
    if product.type == type_name:
        met = all(product.traits[name] in values for name, values in needs.items())
        return "E" if met else "S"
    return "C" if product.type in complements else "I"


def pick(rng: Rng, values: Sequence[T]) -> T:
    """Return one of `values`, all equally likely."""
    return values[int(rng.integers(len(values)))]


def pick_usual(rng: Rng, values: Sequence[T]) -> T:
    """Return the first of `values` half of the time, else any: most people use the usual word."""
    return values[0] if rng.random() < 0.5 else pick(rng, values)


def shuffled(rng: Rng, values: Sequence[T], most: int | None = None) -> list[T]:
    """Return `values`, or `most` of them, in random order."""
    return [values[i] for i in rng.permutation(len(values))[:most]]


def sampled(rng: Rng, values: Sequence[T], most: int) -> list[T]:
    """Return `values`, or `most` of them, in random order; quick for any number of them."""
    chosen = rng.choice(len(values), size=min(most, len(values)), replace=False)
    return [values[i] for i in chosen]


def draw_product(rng: Rng, wording: Wording, type_name: str, product_id: str) -> Product:
    """Draw a product's attributes and write its texts; nulls fall at about ESCI's shares.

    Each bullet and each sentence of the description has a line of its own.
    """
    kind = wording.types[type_name]
    attributes = wording.attributes[type_name]
    traits = {name: pick(rng, list(values)) for name, values in attributes.items()}
    noun = pick_usual(rng, kind.said)
    words = {name: pick_usual(rng, attributes[name][value].said) for name, value in traits.items()}
    facts = [
        (words[name], attributes[name][value].detail)
        for name, value in traits.items()
        if name not in ("brand", "color")
    ]
    headed = "【{}】{}" if wording.script == "japanese" else "{}: {}"
    details = [headed.format(said, fact) if fact else said for said, fact in facts]
    bullets = shuffled(rng, details + shuffled(rng, kind.bullets, 2))
    sentences = shuffled(rng, kind.description, 2)
    if rng.random() < 0.4:
        sentences.append(pick(rng, wording.closings))
    mark = pick(rng, wording.marks)
    letters = "".join(pick(rng, MODEL_LETTERS) for _ in range(2))
    fields = words | {
        "name": noun,
        "series": pick(rng, kind.series),
        "model": f"{letters}-{rng.integers(100, 1000)}",
    }
    form = wording.form_of(noun)

    def written(template: str) -> str:
        return inflect(template.format_map(fields), form)

    def unless_null(text: str | None, share: float) -> str | None:
        return None if rng.random() < share else text

    color = words.get("color")
    return Product(
        product_id,
        type_name,
        traits,
        title=written(pick(rng, kind.titles)),
        description=unless_null(written("\n".join(sentences)), 0.49),
        bullets=unless_null("\n".join(mark + written(each) for each in bullets), 0.13),
        brand=unless_null(words["brand"], 0.07),
        color=unless_null(color and inflect(color, "ms"), 0.2),
    )


def draw_query(rng: Rng, wording: Wording, shop: Shop, labels: str = "ESCI") -> Query:
    """Draw a query that some product of the shop satisfies, and judge a part of the shop for it.

    Args:
        rng: the source of chance.
        wording: the words of the shop's locale.
        shop: the products.
        labels: the labels that are judged; "SCI" gives a query without any E.
    """
    wanted = pick(rng, shop.findable)
    text, needs, avoids = _ask(rng, wording, wanted)
    complements = wording.types[wanted.type].complements

    def labelled(products: Sequence[Product]) -> dict[str, list[Product]]:
        by_label: dict[str, list[Product]] = {name: [] for name in "ESCI"}
        for product in products:
            by_label[label(wanted.type, needs, complements, product)].append(product)
        return by_label

    near = labelled(sampled(rng, shop.by_type[wanted.type], CANDIDATES))
    beside = [each for name in complements for each in sampled(rng, shop.by_type[name], MOST["C"])]
    far = labelled(sampled(rng, shop.judged, DISTRACTORS))["I"]
    # The hard ones first: another type, but the brand or the color that the shopper has in mind.
    far.sort(key=lambda each: not _alike(each, wanted))
    found = [wanted] + [each for each in near["E"] if each is not wanted and rng.random() < 0.98]
    chosen = {
        "E": found[: MOST["E"]],
        "S": near["S"][: int(rng.integers(2, max(3, MOST["S"] - len(found)) + 1))],
        "C": shuffled(rng, beside, int(rng.integers(MOST["C"] + 1))),
    }
    judgements = [
        (each.product_id, name) for name in chosen if name in labels for each in chosen[name]
    ]
    missing = max(int(rng.integers(1, MOST["I"] + 1)), LEAST - len(judgements))
    judgements += [(each.product_id, "I") for each in far[:missing]]
    return Query(text, wanted.type, needs, shuffled(rng, judgements), avoids)


def _ask(rng: Rng, wording: Wording, wanted: Product) -> tuple[str, Needs, bool]:
    """Return a query for a product as a shopper would type it, and what it asks for.

    The third says whether it excludes a value.
    """
    kind = wording.types[wanted.type]
    attributes = wording.attributes[wanted.type]
    uses = [
        use
        for use in kind.uses
        if all(wanted.traits[name] in values for name, values in use.needs.items())
    ]
    if uses and rng.random() < 0.15:
        use = pick(rng, uses)
        return use.query, {name: frozenset(values) for name, values in use.needs.items()}, False

    misspelled = rng.random() < 0.06
    noun = pick_usual(rng, kind.misspelled if misspelled else kind.asked)
    form = wording.form_of(kind.asked[0] if misspelled else noun)
    avoidable = [
        (name, value)
        for name, values in attributes.items()
        for value in values
        if values[value].avoid and wanted.traits[name] != value
    ]
    avoided = pick(rng, avoidable) if avoidable and rng.random() < 0.1 else None
    askable = [
        name
        for name, value in wanted.traits.items()
        if attributes[name][value].asked and (avoided is None or name != avoided[0])
    ]
    asked = shuffled(rng, askable, 1 if avoided else pick(rng, ASKED))
    if "brand" in askable and "brand" not in asked and rng.random() < 0.4:
        asked = [*asked[1:], "brand"]
    asked.sort(key=lambda name: name == "brand")  # the brand goes outermost
    phrases = [pick_usual(rng, attributes[name][wanted.traits[name]].asked) for name in asked]
    needs = {name: frozenset([wanted.traits[name]]) for name in asked}
    if avoided:
        name, value = avoided
        phrases.append(pick(rng, attributes[name][value].avoid))
        needs[name] = frozenset(attributes[name]) - {value}
    text = noun
    for phrase in phrases:
        text = phrase.replace("~", text) if "~" in phrase else f"{text} {phrase}"
    return inflect(text, form), needs, avoided is not None


def _alike(product: Product, wanted: Product) -> bool:
    return any(
        name in wanted.traits and product.traits.get(name) == wanted.traits[name]
        for name in ("brand", "color")
    )
