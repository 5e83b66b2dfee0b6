"""What correcting the spelling of queries brings: `corrected` against `typed`.

    python -m bench.spelling --source DIR [--split test] [--folder build/spelling]

Three sources, each in the locales that can be corrected: the demo, with 1,500 queries a locale;
DIR, which has ESCI's two parquet files; DIR with a typo in each query: one drawn edit of a word of
four letters or more. Queries of the split are searched for in all products of the source.

The report is reports/bench/spelling.md. Its statistics are those of `pipeline.compare`: the mean,
the paired difference with its bootstrap interval, and p by paired randomisation, adjusted (Holm)
over the systems, measures and locales of a source. A query that stays as typed has a difference of
0, which changes no p: it is the same over all queries and over the corrected ones alone.
"""

import argparse
import contextlib
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
import pyarrow as pa
import regex

from bench.scale import commit
from bench.typos import mistype
from pipeline.compare.differences import Move, measure_moves
from pipeline.compare.pairs import pair
from pipeline.core import layout, stage
from pipeline.core.files import atomic_file
from pipeline.core.languages import UNSPACED, fold_accents
from pipeline.core.params import AS_TYPED, CORRECTED, FIRST_SYSTEMS, Params
from pipeline.core.params_file import load_params
from pipeline.core.text_tables import markdown
from pipeline.demo.marketplace import FORMS, Wording, inflect, load_wording
from pipeline.demo.stage import demo
from pipeline.evaluate.per_query_reader import read_per_query
from pipeline.sample.stage import sample

STAGES = ("clean", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate")
MEASURES = ("ndcg@10", "recall@100")
DEMO_QUERIES = 1500
SEED = 29
LISTED = 30
"""At most so many corrected words of a locale are listed."""

DEMO, ESCI, TYPOS = "demo", "esci", "esci-typos"
TITLES = {DEMO: "The demo", ESCI: "ESCI", TYPOS: "ESCI, with a typo in each query"}

EXPLANATION = """A cell has the mean as typed; by how much `corrected` differs, and its interval;
the adjusted p. Restored: the words are those that were meant, whatever their case and accents.

"""

_WORD = regex.compile(r"[\p{L}\p{M}]+")


@dataclass(frozen=True)
class Sides:
    """The per-query tables of a locale, of the same queries: as typed, and corrected."""

    typed: pa.Table
    corrected: pa.Table

    def texts(self) -> Iterator[tuple[str, str]]:
        """Yield each query as it is typed and as it is searched for."""
        tables = (self.typed, self.corrected)
        return zip(*(table["query"].to_pylist() for table in tables), strict=True)


Found = Mapping[str, Sides]
"""By locale."""
Case = tuple[str, str, bool]
"""A query as it is typed, as it is searched for, and whether that is right."""


def main() -> int:
    """Measure, write the report, print it; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.spelling")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--split", choices=("train", "test"), default="test")
    parser.add_argument("--folder", type=Path, default=Path("build/spelling"))
    options = parser.parse_args()
    with stage.report_errors("bench") as outcome:
        params, folder, measured = load_params(), options.folder.resolve(), commit()
        os.environ.setdefault(layout.CACHE_VARIABLE, str(layout.cache().resolve()))
        source, split = options.source.resolve(), options.split
        found = {name: run(params, name, source, split, folder / name) for name in TITLES}
        cases = {DEMO: misspelled, TYPOS: mistyped(found[ESCI])}
        text = EXPLANATION
        for name, each in found.items():
            parts = [moves_table(params, name, each)]
            if name in cases:
                parts.append(outcomes_table(each, cases[name]))
            if name != TYPOS:
                parts += [list_corrections(*of) for of in each.items()]
            text += "\n".join([f"## {TITLES[name]}\n", *parts, ""])
        text += f"`python -m bench.spelling --source DIR --split {split}`, commit {measured}.\n"
        with atomic_file(layout.SPELLING_BENCH) as partial:
            partial.write_text(text, encoding="utf-8", newline="\n")
        sys.stdout.write(text)
    return outcome.status


def run(params: Params, name: str, source: Path, split: str, project: Path) -> Found:
    """Run the stages of a source in a new folder, with each spelling."""
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir(parents=True)
    locales = [each for each in params.locales if params.language[each] not in UNSPACED]
    with contextlib.chdir(project):
        if name == DEMO:
            source = layout.DEMO
            params = updated(params, "demo", queries=DEMO_QUERIES)
            demo(params)
        if name == TYPOS:
            source = mistype(source, project / "source", locales, SEED)
        drawn = {"version": "all", "splits": (split,), "queries": "all", "distractors": "all"}
        params = updated(params, "sample", source=str(source), **drawn)
        sample(params)
        return {locale: run_locale(params, locale) for locale in locales}


def run_locale(params: Params, locale: str) -> Sides:
    """Run the stages of a locale with each spelling."""
    tables = []
    for spelling in (AS_TYPED, CORRECTED):
        each = params.model_copy(update={"spelling": {**params.spelling, locale: spelling}})
        for name in STAGES:
            getattr(import_module(f"pipeline.{name}.stage"), name)(each, locale)
        path = layout.per_query(locale)
        table, _ = read_per_query(path.read_bytes(), str(path), locale, "Run it again.")
        tables.append(table)
    return Sides(*tables)


def updated(params: Params, section: str, **values: object) -> Params:
    """Return the settings with some of a section changed."""
    return params.model_copy(
        update={section: getattr(params, section).model_copy(update=dict(values))}
    )


def moves_table(params: Params, name: str, found: Found) -> str:
    """Return how each measure moved, over all queries and over some of them."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for group in ("all", "corrected", *["misspelled"] * (name == DEMO)):
        chosen = {locale: choose(group, locale, sides) for locale, sides in found.items()}
        for move in moves(params, chosen):
            count = f"{group}, {len(chosen[move.locale].typed):,}"
            rows.setdefault((move.locale, count, move.system), []).append(cell(move))
    body = [[*key, *cells] for locale in found for key, cells in rows.items() if key[0] == locale]
    return markdown(("locale", "queries", "system", *MEASURES), body)


def moves(params: Params, found: Found) -> tuple[Move, ...]:
    """Return how each measure moved."""
    pairs = [
        pair(locale, f"{system}.{measure}", sides.typed, sides.corrected)
        for locale, sides in found.items()
        for system in FIRST_SYSTEMS
        for measure in MEASURES
    ]
    settings = params.compare
    return measure_moves(pairs, settings.alpha, settings.max_drop, params.uncertainty, 0)


def choose(group: str, locale: str, sides: Sides) -> Sides:
    """Return the queries of a group."""
    if group == "all":
        return sides
    wanted = {typed for typed, _, _ in misspelled(locale, sides)} if group == "misspelled" else None
    mask = pa.array(
        [old != new if wanted is None else old in wanted for old, new in sides.texts()], pa.bool_()
    )
    return Sides(sides.typed.filter(mask), sides.corrected.filter(mask))


def said_words(wording: Wording) -> set[str]:
    """Return the words that the demo's queries have where they are not misspelled."""
    said: list[str] = []
    for name, kind in wording.types.items():
        said += [*kind.asked, *(use.query for use in kind.uses)]
        for values in wording.attributes[name].values():
            said += [text for value in values.values() for text in (*value.asked, *value.avoid)]
    return {word for text in said for form in FORMS for word in words_of(inflect(text, form))}


def words_of(text: str) -> list[str]:
    """Return the words of a text without their case and accents."""
    return [fold_accents(word) for word in _WORD.findall(text.lower())]


def cell(move: Move) -> str:
    """Return "0.5000, +0.0100 [+0.0050, +0.0150], p 0.012": the mean as typed, what moved."""
    mean, low, high, _ = move.difference
    return f"{move.a:.4f}, {mean:+.4f} [{low:+.4f}, {high:+.4f}], p {move.p_adjusted:.3f}"


def outcomes_table(found: Found, cases: Callable[[str, Sides], Iterator[Case]]) -> str:
    """Return what became of the queries that `cases` yields of each locale."""
    header = ("locale", "misspelled queries", "restored", "made others", "left as typed")
    rows = []
    for locale, sides in found.items():
        counts = Counter(
            "restored" if right else "left" if corrected == typed else "other"
            for typed, corrected, right in cases(locale, sides)
        )
        total = counts.total()
        shares = (f"{counts[each] / max(1, total):.0%}" for each in ("restored", "other", "left"))
        rows.append([locale, f"{total:,}", *shares])
    return markdown(header, rows, header[1:])


def misspelled(locale: str, sides: Sides) -> Iterator[Case]:
    """Yield the demo's misspelled queries; one is right if its wording has all words."""
    known = said_words(load_wording(locale))
    for typed, corrected in sides.texts():
        if not known.issuperset(words_of(typed)):
            yield typed, corrected, known.issuperset(words_of(corrected))


def mistyped(right: Found) -> Callable[[str, Sides], Iterator[Case]]:
    """Return what yields queries with a typo; one is right if it has the words that were meant."""

    def cases(locale: str, sides: Sides) -> Iterator[Case]:
        meant = (text for text, _ in right[locale].texts())
        for (typed, corrected), text in zip(sides.texts(), meant, strict=True):
            if typed != text:
                yield typed, corrected, words_of(corrected) == words_of(text)

    return cases


def list_corrections(locale: str, sides: Sides) -> str:
    """Return the corrected words in alphabetical order; of many, some that are drawn."""
    words = sorted(
        {
            each
            for texts in sides.texts()
            for each in zip(*(_WORD.findall(text.lower()) for text in texts), strict=True)
            if each[0] != each[1]
        }
    )
    rng = np.random.Generator(np.random.PCG64(SEED))
    listed = [words[place] for place in sorted(rng.permutation(len(words))[:LISTED])]
    text = ", ".join(f"{old} → {new}" for old, new in listed)
    return f"{locale}, {len(listed)} of {len(words)} corrections: {text}.\n"


if __name__ == "__main__":
    sys.exit(main())
