"""Which system wins in which locale, and whether luck alone could make it look so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.arrays import Floats
from pipeline.core.params import Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.per_query_reader import values
from pipeline.report.inputs import LocaleResults
from pipeline.report.wording import display_name


@dataclass(frozen=True)
class Winner:
    """The system with the highest mean in a locale, and those that it does not surely beat.

    `best` names several where their means are equal, and then no rivals; it is empty where there
    are not two systems with a mean.
    """

    locale: str
    best: tuple[str, ...]
    rivals: tuple[str, ...]


def find_winners(
    locales: Mapping[str, Mapping[str, Floats]], draws: Uncertainty, alpha: float
) -> tuple[Winner, ...]:
    """Return the winner of each locale.

    A system surely beats another where the paired randomisation test over the queries, adjusted
    for all pairs of systems in all locales (see `uncertainty.holm`), leaves p below alpha.

    Args:
        locales: by locale and system, one measure of its queries; NaN where it is undefined.
        draws: of the test.
        alpha: the level of the adjusted p.
    """
    best: dict[str, tuple[str, ...]] = {}
    tested: list[tuple[str, str, float]] = []
    for locale, of in locales.items():
        known = {system: each[~np.isnan(each)] for system, each in of.items()}
        means = {
            system: round(float(each.mean()), MEAN_DECIMALS)
            for system, each in known.items()
            if len(each)
        }
        if len(means) < 2:
            continue
        highest = max(means.values())
        best[locale] = tuple(s for s, mean in means.items() if mean == highest)
        first, *equal = best[locale]
        for other in [] if equal else [s for s in means if s != first]:
            differences = of[first] - of[other]
            p = uncertainty.paired_randomisation(differences, draws)
            tested.append((locale, other, p))
    adjusted = uncertainty.holm([p for _, _, p in tested], _pairs(locales))
    return tuple(
        Winner(
            locale,
            best.get(locale, ()),
            tuple(
                other
                for (of, other, _), p in zip(tested, adjusted, strict=True)
                if of == locale and p >= alpha
            ),
        )
        for locale in locales
    )


def describe_winners(winners: Sequence[Winner], measure: str) -> str:
    """Return a sentence about the winners by a measure; locales with the same outcome share it."""
    outcomes: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for each in winners:
        outcomes.setdefault((each.best, each.rivals), []).append(each.locale)
    parts = []
    for (best, rivals), locales in outcomes.items():
        where = f"in {_listed(locales, 'and')}"
        if not best:
            parts.append(f"{where}, there are not two systems to compare")
        elif len(best) > 1:
            parts.append(f"{where}, {_listed(best, 'and')} have the same highest mean")
        elif rivals:
            beaten = _listed(rivals, "or")
            parts.append(
                f"{where}, {best[0]} has the highest mean, but may be no better than {beaten}"
            )
        else:
            parts.append(f"{where}, {best[0]} is surely the best")
    return f"By {display_name(measure)}: {'; '.join(parts)}."


def verdict(locales: Sequence[LocaleResults], draws: Uncertainty, alpha: float) -> str:
    """Return what the page says first of its results: which system wins where, and how surely.

    Where the draws are too few to be sure of any, it says that, and names no winner.
    """
    measure = locales[0].measures[0]
    by_locale: dict[str, dict[str, Floats]] = {
        results.locale: {
            system: values(results.per_query, f"{system}.{measure}") for system in results.runs
        }
        for results in locales
    }
    if few := draws.too_few_for(_pairs(by_locale), alpha):
        return f"By {display_name(measure)}: no verdict. uncertainty.samples: {few}"
    return describe_winners(find_winners(by_locale, draws, alpha), measure)


def _pairs(locales: Mapping[str, Mapping[str, Floats]]) -> int:
    return sum(math.comb(len(of), 2) for of in locales.values())


def _listed(names: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
