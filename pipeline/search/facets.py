"""Brands and colours as filters: values that differ only in case are one."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError, did_you_mean, shorten
from pipeline.text.normalise import normalise

FACETS: Mapping[str, str] = {"brand": "product_brand", "color": "product_color"}
"""The facets, and the field of each."""

NO_VALUE = -1
"""The code of a product without a brand or colour."""

COMPARED_VALUES = 2_000
"""How many values a message looks through for a similar one."""

Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Facet:
    """The values of a facet, by code.

    Attributes:
        name: brand or color.
        codes: of each product, int32 [products]; `NO_VALUE` where it has none.
        keys: the values, case folded.
        shown: the values as most products write them.
    """

    name: str
    codes: Codes
    keys: pa.ChunkedArray
    shown: pa.ChunkedArray

    def code_of(self, value: str, locale: str) -> int:
        """Return the code of a value, written in any case.

        A value as it is shown is clean; normalising it again could make another one of it.

        Raises:
            PipelineError: no product has it.
        """
        key = normalise(value).casefold()
        for each in (value.casefold(), key):
            code: int = pc.index(self.keys, each).as_py()
            if each and code >= 0:
                return code
        near = self.keys.filter(pc.starts_with(self.keys, key[:2])).slice(0, COMPARED_VALUES)
        raise PipelineError(
            f"{self.name}: no {locale} product has {shorten(value)}"
            f"{did_you_mean(key, near.to_pylist())}. Use another {self.name}, or none."
        )

    def count(self, rows: Ints, most: int) -> list[tuple[str, int]]:
        """Return the values that most of some products have, and how many: the most first."""
        codes = self.codes[rows]
        found, counts = np.unique(codes[codes != NO_VALUE], return_counts=True)
        order = np.lexsort((found, -counts))[:most]
        return [(self.shown[int(found[at])].as_py(), int(counts[at])) for at in order]

    def value(self, row: int) -> str:
        """Return the value of a product as most products write it; empty where it has none."""
        code = int(self.codes[row])
        return "" if code == NO_VALUE else str(self.shown[code].as_py())


@dataclass
class FacetBuilder:
    """Collects the values of a facet, product by product."""

    codes: dict[str, int] = field(default_factory=dict)
    forms: list[Counter[str]] = field(default_factory=list)

    def add(self, value: str) -> int:
        """Return the code of the next product's value, `NO_VALUE` where it is empty."""
        if not value:
            return NO_VALUE
        code = self.codes.setdefault(value.casefold(), len(self.codes))
        if code == len(self.forms):
            self.forms.append(Counter())
        self.forms[code][value] += 1
        return code

    def table(self) -> pa.Table:
        """Return the values: `key`, and `shown`, its most frequent form (the least of equals)."""
        shown = [min(forms, key=lambda form: (-forms[form], form)) for forms in self.forms]
        columns: dict[str, Any] = {"key": list(self.codes), "shown": shown}
        return pa.table(columns, pa.schema([("key", pa.string()), ("shown", pa.string())]))
