"""ESCI's two files with one edit in each query."""

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import regex

from pipeline.core import layout
from pipeline.core.languages import UNSPACED_LETTERS
from pipeline.text.normalise import normalise

Rng = np.random.Generator

_LONG_WORD = regex.compile(rf"(?:(?![{UNSPACED_LETTERS}])\p{{L}}){{4,}}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"


def mistype(source: Path, folder: Path, locales: Collection[str], seed: int) -> Path:
    """Write a source to a new folder, with a typo in each query of some locales; return it."""
    folder.mkdir()
    examples = pq.read_table(source / layout.EXAMPLES_FILE)
    queries, locale_of = examples["query"], examples["product_locale"]
    theirs = pc.is_in(locale_of, pa.array(locales))
    rng = np.random.Generator(np.random.PCG64(seed))
    typos = {text: with_typo(rng, text) for text in sorted(set(queries.filter(theirs).to_pylist()))}
    mistyped = pa.array([typos.get(text, text) for text in queries.to_pylist()], pa.string())
    place = examples.schema.get_field_index("query")
    texts = pc.if_else(theirs, mistyped, queries)
    pq.write_table(examples.set_column(place, "query", texts), folder / layout.EXAMPLES_FILE)
    (folder / layout.PRODUCTS_FILE).symlink_to(source.resolve() / layout.PRODUCTS_FILE)
    return folder


def with_typo(rng: Rng, query: str) -> str:
    """Return a clean query with one edit in one of its words of four letters or more, if any."""
    text = normalise(query)
    words = list(_LONG_WORD.finditer(text))
    if not words:
        return text
    found = words[rng.integers(len(words))]
    word: str = found[0]
    while word == found[0]:
        word = edit(rng, word)
    return f"{text[: found.start()]}{word}{text[found.end() :]}"


def edit(rng: Rng, word: str) -> str:
    """Insert, leave out or replace a letter anywhere in a word, or swap two neighbours."""
    kind, letter = rng.integers(4), _LETTERS[rng.integers(len(_LETTERS))]
    at = int(rng.integers(len(word) + (kind == 0)))  # a letter may come after the last one
    tail = word[at:]
    tails = (letter + tail, tail[1:], letter + tail[1:], tail[1::-1] + tail[2:])
    return word[:at] + tails[kind]
