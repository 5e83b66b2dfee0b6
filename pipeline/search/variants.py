"""Groups of duplicates, as the stage found them: by choice, one product of each is shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.systems import System
from pipeline.duplicates.collapse import firsts
from pipeline.duplicates.table import read_kept
from pipeline.runs.ranking import Ranked
from pipeline.search.nearest import Allowed
from pipeline.vectors.manifest import Manifest


@dataclass(frozen=True)
class VariantGroups:
    """The group of each product.

    Attributes:
        kept: the row that names the group of each product, int64 [products].
    """

    kept: Ints

    def collapse(self, rankings: Mapping[System, Ranked]) -> dict[System, Ranked]:
        """Return rankings of one query with the first product of each group alone."""
        collapsed: dict[System, Ranked] = {}
        for system, (rows, codes, scores) in rankings.items():
            first = firsts(rows, self.kept[codes])
            collapsed[system] = rows[first], codes[first], scores[first]
        return collapsed

    def count_others(self, codes: Ints, allowed: Allowed | None) -> Ints:
        """Return how many other products of its group may be found, for each product."""
        sizes = self._sizes
        if allowed is not None:
            sizes = np.bincount(self.kept[allowed], minlength=len(self.kept))
        others: Ints = sizes[self.kept[codes]] - 1
        return others

    @cached_property
    def _sizes(self) -> Ints:
        return np.bincount(self.kept, minlength=len(self.kept))


@dataclass(frozen=True)
class Variants:
    """The groups of a locale, or why there are none to collapse by."""

    found: VariantGroups | None
    problem: str = ""

    def groups(self) -> VariantGroups:
        """Return the groups.

        Raises:
            PipelineError: they are missing, damaged, or of other products, vectors or settings.
        """
        if self.found is None:
            raise PipelineError(self.problem)
        return self.found


def open_variants(params: Params, locale: str, manifest: Manifest) -> Variants:
    """Return the groups of a locale; without them, everything but collapsing works."""
    try:
        return Variants(VariantGroups(read_kept(params, locale, manifest)))
    except PipelineError as err:
        return Variants(None, str(err))
