"""How the demo's catalogue is worded on one marketplace: what wording/*.yaml hold."""

import json
import re
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field
from ruamel.yaml import YAML

from pipeline.core.param_types import Strict

Form = Literal["ms", "fs", "mp", "fp"]
FORMS: tuple[Form, ...] = ("ms", "fs", "mp", "fp")
"""Masculine and feminine singular, masculine and feminine plural."""


class Value(Strict):
    """One value of an attribute, such as `waterproof`.

    `said`: how listings put it. `detail`: the fact that a bullet adds. `asked`: how shoppers type
    it, after the rest of the query or, where there is a `~`, around it. `avoid`: how they exclude
    it.
    """

    said: tuple[str, ...]
    detail: str | None = None
    asked: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()


class Use(Strict):
    """A query that names a purpose, and the attribute values that serve it."""

    query: str
    needs: dict[str, tuple[str, ...]]


class ProductType(Strict):
    """What is alike in all products of a type; `complements` names the types used with it."""

    said: tuple[str, ...]
    asked: tuple[str, ...]
    misspelled: tuple[str, ...] = ()
    complements: tuple[str, ...]
    brands: tuple[str, ...]
    colors: tuple[str, ...] = ()
    series: tuple[str, ...]
    titles: tuple[str, ...]
    attributes: dict[str, dict[str, Value]]
    bullets: tuple[str, ...]
    description: tuple[str, ...]
    uses: tuple[Use, ...]


class Wording(Strict):
    """The words of one marketplace.

    `agreement` gives the gender and number of a noun by its first word; `roj<o|a|os|as>` takes
    the form of the noun it goes with. `marks` come before bullets, `closings` end descriptions.
    """

    script: Literal["latin", "japanese"]
    agreement: dict[str, Form] = Field(default_factory=dict)
    marks: tuple[str, ...]
    closings: tuple[str, ...]
    brands: dict[str, Value]
    colors: dict[str, Value]
    types: dict[str, ProductType]

    @cached_property
    def attributes(self) -> dict[str, dict[str, dict[str, Value]]]:
        """The attributes of each type and their values, brand and color among them."""
        found = {}
        for type_name, kind in self.types.items():
            choices = {"brand": {name: self.brands[name] for name in kind.brands}}
            choices |= kind.attributes
            if kind.colors:
                choices["color"] = {name: self.colors[name] for name in kind.colors}
            found[type_name] = choices
        return found

    def form_of(self, noun: str) -> Form:
        """Return the gender and number of a noun; "ms" where the language has none."""
        return self.agreement[noun.split()[0].lower()] if self.agreement else "ms"


def load_wording(locale: str) -> Wording:
    """Return the words of a locale, from pipeline/demo/wording."""
    path = Path(__file__).parent / "wording" / f"{locale}.yaml"
    return Wording.model_validate_json(json.dumps(YAML(typ="safe", pure=True).load(path)))


def inflect(text: str, form: Form) -> str:
    """Return `text` with every `<ms|fs|mp|fp>` replaced by the part for `form`."""
    part = FORMS.index(form)
    return re.sub(r"<([^<>|]*\|[^<>]*)>", lambda match: match[1].split("|")[part], text)
