"""Entries of one locale and one sample, ranked: pure functions of per-query tables.

The best is chosen by the same numbers that the others are then compared with, so a p-value is
adjusted as one of all pairs of entries (see `uncertainty.holm`).
"""

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from pipeline.compare.settings import ABSENT
from pipeline.compare.sides import Side
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError
from pipeline.core.params import AS_TYPED, ENCODER, Uncertainty
from pipeline.core.systems import SYSTEMS
from pipeline.encoder_scores.form import JudgedSample, cut
from pipeline.evaluate import uncertainty
from pipeline.evaluate.metrics import mean
from pipeline.evaluate.per_query import Sample
from pipeline.evaluate.per_query_reader import values
from pipeline.evaluate.uncertainty import Interval
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
        settings: those that the numbers depend on, as the first revision writes them.
        measures: a value per query of each measure, [queries], NaN where undefined.
        recorded: the mean of each measure: as the revision's metrics have it, in 5 digits; of
            `measures`, not rounded, where `read_means` found none.
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
    recorded: Mapping[str, float]
    speed: Speed

    def mean(self, measure: str) -> float:
        """Return the mean of a measure, as a comparison has it; NaN of none."""
        return mean(self.measures.get(measure, np.empty(0)))


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
        settings: all its settings, as they are written.
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
                    recorded={
                        name: means.get(locale, {}).get(f"{system}.{name}", mean(each))
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
    on the encoder: without this, a board would be full of copies. An index of other settings is
    another choice even where the numbers are the same: its size and its latency are not.
    """
    merged: dict[object, Entry] = {}
    for entry in entries:
        contents = tuple((name, each.tobytes()) for name, each in sorted(entry.measures.items()))
        built = tuple(
            (key, value)
            for key, value in entry.settings.items()
            if key.startswith("indexes.") and value not in ("null", ABSENT)
        )
        chosen = entry.locale, entry.sample, entry.system, entry.encoder, entry.index
        key = (*chosen, tuple(sorted(built)), contents)
        if (first := merged.get(key)) is None:
            merged[key] = entry
        else:
            merged[key] = _with(first, entry)
    return list(merged.values())


def show_settings(entries: Iterable[Entry], shown: Container[str]) -> list[Entry]:
    """Return the entries with no other settings than these."""
    return [
        replace(entry, settings={key: each for key, each in entry.settings.items() if key in shown})
        for entry in entries
    ]


def rank_entries(
    entries: Sequence[Entry], measure: str, draws: Uncertainty, alpha: float
) -> list[Board]:
    """Return a board for each locale and sample, the locales in order of the first entry of each.

    Args:
        entries: what `merge_equal` returns.
        measure: what ranks them, such as ndcg@10; an entry without it is left out.
        draws: of bootstrap and randomisation.
        alpha: the level of the adjusted p-values.

    Raises:
        PipelineError: there are so few draws that no entry of a board could be surely worse.
    """
    if few := draws.too_few_for(most_pairs(entries, measure), alpha):
        raise PipelineError(f"--samples: {few}")
    found = [_board(each, measure, draws, alpha) for each in _by_board(entries, measure)]
    locales = list(dict.fromkeys(board.locale for board in found))
    return sorted(found, key=lambda board: locales.index(board.locale))


def most_pairs(entries: Sequence[Entry], measure: str) -> int:
    """Return how many pairs of entries are compared on the largest board."""
    boards = _by_board(entries, measure)
    return max((math.comb(len(_rivals(each)), 2) for each in boards), default=0)


def _by_board(entries: Iterable[Entry], measure: str) -> list[list[Entry]]:
    boards: dict[object, list[Entry]] = {}
    for entry in entries:
        if measure in entry.measures:
            # Where evaluate changed, a measure may be defined for other queries of one sample.
            defined = np.isnan(entry.measures[measure]).tobytes()
            boards.setdefault((entry.locale, entry.sample, defined), []).append(entry)
    return list(boards.values())


def _decisive(settings: Mapping[str, str], system: str, side: Side) -> dict[str, str]:
    """Return the settings that a system's numbers depend on."""
    locale = side.card.sample.locale
    shared = ("clean.", "evaluate.", "retrieve.", f"spelling.{locale}")
    encoder = ("embed.", *_of_model(settings, side.card.encoder))
    vectors = (*encoder, f"indexes.{side.card.index}.")
    words = ("bm25.", f"language.{locale}")
    reranker = _of_model(settings, settings.get(f"rerank.{locale}", ""))
    sections = {
        "bm25": (*shared, *words),
        ENCODER: ("clean.", f"spelling.{locale}", *encoder),
        "dense": (*shared, *vectors),
        "hybrid": (*shared, *vectors, *words, "hybrid."),
        "rerank": (
            *shared,
            *vectors,
            *words,
            "hybrid.",
            "reranking.",
            f"rerank.{locale}",
            *reranker,
        ),
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
    """Return the sections of a model: its entry, or how it is trained and what it learns from."""
    if f"trained.{name}.base" not in settings:  # no encoder has a reranker's name
        return (f"encoders.{name}.", f"rerankers.{name}.")
    others = {
        key: value for key, value in settings.items() if not key.startswith(f"trained.{name}.")
    }
    sources = (settings[f"trained.{name}.base"], settings.get(f"trained.{name}.teacher", ""))
    of_sources = (section for each in sources for section in _of_model(others, each))
    return ("training.", f"trained.{name}.", *of_sources)


def _with(first: Entry, other: Entry) -> Entry:
    shared = {
        key: value for key, value in first.settings.items() if other.settings.get(key) == value
    }
    return replace(
        first,
        revisions=(*first.revisions, *other.revisions),
        settings=shared,
        speed=first.speed.filled_by(other.speed),
    )


def _board(entries: Sequence[Entry], measure: str, draws: Uncertainty, alpha: float) -> Board:
    def height(entry: Entry) -> float:
        found = entry.mean(measure)
        return -math.inf if math.isnan(found) else found

    order = sorted(entries, key=height, reverse=True)  # stable: equal means in order of finding
    rivals = _rivals(order)
    p_values = dict(zip(map(id, rivals[1:]), _p_values(rivals, measure, draws), strict=True))
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
                    uncertainty.bootstrap_interval(entry.measures[measure], draws), measure
                ),
                p=p,
                worse=worse,
            )
        )
    first = entries[0]
    return Board(first.locale, first.sample, first.sample.queries, tuple(placed))


def _rivals(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries that are compared."""
    return [entry for entry in entries if entry.system != BASELINE]


def _p_values(rivals: Sequence[Entry], measure: str, draws: Uncertainty) -> list[float]:
    """Return the adjusted p of each entry after the first, against the first."""
    alone = [
        uncertainty.paired_randomisation(
            each.measures[measure] - rivals[0].measures[measure], draws
        )
        for each in rivals[1:]
    ]
    return uncertainty.holm(alone, math.comb(len(rivals), 2))
