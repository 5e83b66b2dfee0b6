"""Entries of one locale and one sample, ranked: pure functions of per-query tables.

The best is chosen by the same numbers that the others are then compared with, so a p-value is
adjusted as one of all pairs of entries: Holm's adjustment, in which the pairs without the best
count as not significant. That is never too optimistic, whichever entry comes out best.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.compare.pairs import mean
from pipeline.compare.sides import Side
from pipeline.core.params import AS_TYPED, ENCODER, SYSTEMS, Uncertainty
from pipeline.encoder_scores.form import JudgedSample, cut
from pipeline.evaluate import uncertainty
from pipeline.evaluate.per_query import Sample
from pipeline.evaluate.per_query_reader import values
from pipeline.evaluate.uncertainty import Floats, Interval
from pipeline.leaderboard.speed import Speed

WITH_VECTORS = (*(system for system in SYSTEMS if system != "bm25"), ENCODER)
"""What uses an encoder: other systems, and other engines, do not."""

BASELINE = "random"


@dataclass(frozen=True)
class Entry:
    """A system's numbers of one locale, and the revisions that hold just these.

    Attributes:
        revisions: their names, the first found first.
        locale: the locale.
        system: dense, bm25, hybrid, rerank, random, or another engine; or encoder, for its own
            measures.
        encoder: its name; empty for a system without vectors.
        index: its name; empty likewise, and for `encoder`.
        sample: what the numbers are of; an encoder's do not depend on the depth of runs.
        settings: settings of the first revision that not all revisions share, as they are written.
        measures: a value per query of each measure, [queries], NaN where undefined.
        means: of each measure, those of record where the revision has them; NaN of nothing.
        speed: what was measured of the encoder and the index.
    """

    revisions: tuple[str, ...]
    locale: str
    system: str
    encoder: str
    index: str
    sample: Sample | JudgedSample
    settings: Mapping[str, str]
    measures: Mapping[str, Floats]
    means: Mapping[str, float]
    speed: Speed


@dataclass(frozen=True)
class Placed:
    """An entry on its board.

    `rank` is 1 for the best and for all that are not surely worse; for others it is one more than
    the number of entries with a higher mean. `p` is adjusted; NaN for the best and the baseline.
    """

    entry: Entry
    rank: int
    interval: Interval
    p: float
    worse: bool


@dataclass(frozen=True)
class Board:
    """The entries of one locale and one sample, the highest mean first."""

    locale: str
    sample: Sample | JudgedSample
    queries: int
    placed: tuple[Placed, ...]


def entries_of(
    revision: str,
    sides: Mapping[str, Side],
    settings: Mapping[str, str],
    speeds: Mapping[str, Speed],
    means: Mapping[str, Mapping[str, float]],
) -> list[Entry]:
    """Return the entries of a revision: one for each locale and system.

    Args:
        revision: what messages and tables call it.
        sides: its per-query table of each locale.
        settings: its settings to be shown, as they are written.
        speeds: what was measured, by locale.
        means: what `read_means` returns, by locale.
    """
    found = []
    for locale, side in sides.items():
        sample = side.card.sample
        names = [name for name in side.table.column_names if name.endswith(".labels")]
        for system in (name.removesuffix(".labels") for name in names):
            measures = {
                name.partition(".")[2]: values(side.table, name)
                for name in side.table.column_names
                if name.startswith(f"{system}.") and not name.endswith(".labels")
            }
            uses = system in WITH_VECTORS
            index = side.card.index if uses and system != ENCODER else ""
            speed = speeds.get(locale, Speed()) if uses else Speed()
            found.append(
                Entry(
                    revisions=(revision,),
                    locale=locale,
                    system=system,
                    encoder=side.card.encoder if uses else "",
                    index=index,
                    sample=JudgedSample.of(sample) if system == ENCODER else sample,
                    settings=_decisive(settings, system, side),
                    measures=measures,
                    means={
                        name: means.get(locale, {}).get(f"{system}.{name}", _mean(each))
                        for name, each in measures.items()
                    },
                    # How large and fast an index is says nothing of the encoder by itself.
                    speed=speed if index else Speed(speed.tokens_per_second),
                )
            )
    return found


def merge_equal(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries, those with the same choices and numbers as one, in order of the first.

    An experiment on one locale leaves the others' numbers as they were, and bm25's do not depend
    on the encoder: without this, a board would be full of copies.
    """
    merged: dict[object, Entry] = {}
    for entry in entries:
        contents = tuple((name, each.tobytes()) for name, each in sorted(entry.measures.items()))
        key = (entry.locale, entry.sample, entry.system, entry.encoder, entry.index, contents)
        if (first := merged.get(key)) is None:
            merged[key] = entry
        else:
            merged[key] = _with(first, entry)
    return list(merged.values())


def rank_entries(
    entries: Sequence[Entry], measure: str, draws: Uncertainty, alpha: float
) -> list[Board]:
    """Return a board for each locale and sample, the locales in order of the first entry of each.

    Args:
        entries: what `merge_equal` returns.
        measure: what ranks them, such as ndcg@10; an entry without it is left out.
        draws: of bootstrap and randomisation.
        alpha: the level of the adjusted p-values.
    """
    boards: dict[object, list[Entry]] = {}
    for entry in entries:
        if measure in entry.measures:
            # Where evaluate changed, a measure may be defined for other queries of one sample.
            defined = np.isnan(entry.measures[measure]).tobytes()
            boards.setdefault((entry.locale, entry.sample, defined), []).append(entry)
    found = [_board(each, measure, draws, alpha) for each in boards.values()]
    locales = list(dict.fromkeys(board.locale for board in found))
    return sorted(found, key=lambda board: locales.index(board.locale))


def adjust_for_all_pairs(p_values: Sequence[float], entries: int) -> list[float]:
    """Return Holm's adjustment of the best's p-values, as if every pair had been compared.

    Args:
        p_values: of the best against each of the others.
        entries: how many entries there are, the best among them.
    """
    pairs = entries * (entries - 1) // 2
    filled = [*p_values, *[1.0] * (pairs - len(p_values))]
    return uncertainty.holm(filled)[: len(p_values)]


def _decisive(settings: Mapping[str, str], system: str, side: Side) -> dict[str, str]:
    """Return the settings that a system's numbers depend on."""
    locale = side.card.sample.locale
    shared = ("clean.", "evaluate.", "retrieve.", f"spelling.{locale}")
    encoder = ("embed.", *_of_model(settings, side.card.encoder))
    vectors = (*encoder, f"indexes.{side.card.index}.")
    words = ("bm25.", f"language.{locale}")
    chosen = settings.get(f"rerank.{locale}", "")
    named = (f"rerankers.{chosen}.", f"trained.{chosen}.") if chosen else ("rerankers.",)
    reranker = (f"rerank.{locale}", *named)
    sections = {
        "bm25": (*shared, *words),
        ENCODER: ("clean.", *encoder),
        "dense": (*shared, *vectors),
        "hybrid": (*shared, *vectors, *words, "hybrid."),
        "rerank": (*shared, *vectors, *words, "hybrid.", "reranking.", *reranker),
        BASELINE: (),
    }.get(system, (*shared, f"systems.{locale}.{system}", f"systems.{locale}.{system}."))
    # Metrics of before there was the setting are of queries as they are typed.
    usual = f"spelling.{locale}", AS_TYPED
    decisive = {
        key: value
        for key, value in settings.items()
        if any(key == each or (each.endswith(".") and key.startswith(each)) for each in sections)
    }
    return dict(each for each in decisive.items() if each != usual)


def _of_model(settings: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Return the sections of a model: its entry, or how it is trained and its base's."""
    base = settings.get(f"trained.{name}.base", name)
    if base == name:
        return (f"encoders.{name}.",)
    others = {
        key: value for key, value in settings.items() if not key.startswith(f"trained.{name}.")
    }
    return ("training.", f"trained.{name}.", *_of_model(others, base))


def _with(first: Entry, other: Entry) -> Entry:
    shared = {
        key: value for key, value in first.settings.items() if other.settings.get(key) == value
    }
    return Entry(
        revisions=(*first.revisions, *other.revisions),
        locale=first.locale,
        system=first.system,
        encoder=first.encoder,
        index=first.index,
        sample=first.sample,
        settings=shared,
        measures=first.measures,
        means=first.means,
        speed=first.speed.filled_by(other.speed),
    )


def _board(entries: Sequence[Entry], measure: str, draws: Uncertainty, alpha: float) -> Board:
    def height(entry: Entry) -> float:
        found = entry.means[measure]
        return -math.inf if math.isnan(found) else found

    order = sorted(entries, key=height, reverse=True)  # stable: equal means in order of finding
    rivals = [entry for entry in order if entry.system != BASELINE]
    p_values = dict(zip(map(id, rivals[1:]), _p_values(rivals, measure, draws, alpha), strict=True))
    placed = []
    for entry in order:
        p = p_values.get(id(entry), math.nan)
        worse = entry.system == BASELINE or p < alpha
        above = sum(height(other) > height(entry) for other in order)
        placed.append(
            Placed(
                entry=entry,
                rank=1 + above if worse else 1,
                interval=cut(
                    uncertainty.bootstrap_interval(
                        entry.measures[measure], draws.samples, draws.confidence, draws.seed
                    ),
                    measure,
                )._replace(mean=entry.means[measure]),
                p=p,
                worse=worse,
            )
        )
    first = entries[0]
    return Board(first.locale, first.sample, first.sample.queries, tuple(placed))


def _p_values(
    rivals: Sequence[Entry], measure: str, draws: Uncertainty, alpha: float
) -> list[float]:
    """Return the adjusted p of each entry after the first, against the first."""
    if len(rivals) < 2:
        return []
    pairs = len(rivals) * (len(rivals) - 1) // 2
    # No p is below 1 / (samples + 1): with too few draws, many pairs could never be significant.
    samples = max(draws.samples, math.ceil(2 * pairs / alpha))
    best = rivals[0].measures[measure]
    alone = [
        uncertainty.paired_randomisation(each.measures[measure] - best, samples, draws.seed)
        for each in rivals[1:]
    ]
    return adjust_for_all_pairs(alone, len(rivals))


def _mean(numbers: Floats) -> float:
    return mean(numbers[~np.isnan(numbers)])
