"""Which system wins in which locale, and whether luck alone could make it look so."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.params import Uncertainty
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import Floats
from pipeline.report.inputs import LocaleResults
from pipeline.report.wording import display_name


@dataclass(frozen=True)
class Winner:
    """The system with the highest mean in a locale, and those that it does not surely beat.

    `best` is empty where there are not two systems with a mean.
    """

    locale: str
    best: str
    rivals: tuple[str, ...]


def find_winners(
    locales: Mapping[str, Mapping[str, Floats]], draws: Uncertainty
) -> tuple[Winner, ...]:
    """Return the winner of each locale.

    A system surely beats another where the paired randomisation test over the queries, adjusted
    for all pairs of systems in all locales (Holm), leaves p below 1 - confidence. All pairs count,
    though only those of the best are tested: which one is the best was seen in the same numbers.

    Args:
        locales: by locale and system, one measure of its queries; NaN where it is undefined.
        draws: of the test.
    """
    pairs = sum(math.comb(len(of), 2) for of in locales.values())
    alpha = round(1 - draws.confidence, 10)
    # No p is below 1 / (samples + 1): with too few draws, many pairs could never be significant.
    samples = max(draws.samples, math.ceil(2 * pairs / alpha))
    best: dict[str, str] = {}
    tested: list[tuple[str, str, float]] = []
    for locale, of in locales.items():
        known = {system: values[~np.isnan(values)] for system, values in of.items()}
        means = {system: float(values.mean()) for system, values in known.items() if len(values)}
        if len(means) < 2:
            continue
        first = best[locale] = max(means, key=lambda system: means[system])
        for other in means:
            if other != first:
                p = uncertainty.paired_randomisation(of[first] - of[other], samples, draws.seed)
                tested.append((locale, other, p))
    p_values = [p for _, _, p in tested]
    adjusted = uncertainty.holm([*p_values, *[1.0] * (pairs - len(p_values))])
    return tuple(
        Winner(
            locale,
            best.get(locale, ""),
            tuple(
                other
                for (of, other, _), p in zip(tested, adjusted, strict=False)
                if of == locale and p >= alpha
            ),
        )
        for locale in locales
    )


def describe_winners(winners: Sequence[Winner], measure: str) -> str:
    """Return a sentence about the winners by a measure; locales with the same outcome share it."""
    outcomes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for each in winners:
        outcomes.setdefault((each.best, each.rivals), []).append(each.locale)
    parts = []
    for (best, rivals), locales in outcomes.items():
        where = f"in {_listed(locales, 'and')}"
        if not best:
            parts.append(f"{where}, there are not two systems to compare")
        elif rivals:
            beaten = _listed(rivals, "or")
            parts.append(
                f"{where}, {best} has the highest mean, but may be no better than {beaten}"
            )
        else:
            parts.append(f"{where}, {best} is surely the best")
    return f"By {display_name(measure)}: {'; '.join(parts)}."


def verdict(locales: Sequence[LocaleResults], draws: Uncertainty) -> str:
    """Return what the page says first of its results: which system wins where, and how surely."""
    measure = locales[0].measures[0]
    values: dict[str, dict[str, Floats]] = {
        results.locale: {
            system: results.per_query[f"{system}.{measure}"].to_numpy() for system in results.runs
        }
        for results in locales
    }
    return describe_winners(find_winners(values, draws), measure)


def _listed(names: Sequence[str], last: str) -> str:
    return f" {last} ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
