"""The postings of a locale's products: kept in the cache, for every stage and command.

They depend on the texts and the analyser alone: k1, b and the queries may change.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from unicodedata import unidata_version

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.bm25 import analysers, counting, postings, texts
from pipeline.bm25.postings import Postings
from pipeline.bm25.search import BATCH_QUERIES
from pipeline.bm25.texts import count_products, worker_count
from pipeline.core import cache, files, languages, layout, memory, tables
from pipeline.core.arrays import write_npy
from pipeline.core.cache import Digests, forget
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Params
from pipeline.core.progress import track

FORM = 2
"""Version of the files; another makes them again."""

CODE = (analysers, counting, postings, texts, languages)
"""What decides the files, beside this module."""

LIBRARIES = ("pyarrow", "pystemmer", "regex", "sudachidict-core", "sudachipy")
"""What they also depend on; of Python it is the version of Unicode, for case and accents."""

MADE_OF = b"made_of"
"""Where the file of terms says what it was made of."""

REMEMBERED = 1 << 16


class SortedTerms(Mapping[str, int]):
    """The number of each term, looked up in a mapped table that is sorted by term."""

    def __init__(self, table: pa.Table) -> None:
        """Take the columns `term`, ascending, and `number`."""
        self._terms, self._numbers = table["term"], table["number"]
        self._number = lru_cache(REMEMBERED)(self._look_up)

    def __getitem__(self, term: str) -> int:
        """Return the number of a term."""
        if (number := self._number(term)) is None:
            raise KeyError(term)
        return number

    def _look_up(self, term: str) -> int | None:
        row = tables.find_sorted(self._terms, term)
        return None if row is None else int(self._numbers[row].as_py())

    def __iter__(self) -> Iterator[str]:
        """Yield the terms."""
        return (term.as_py() for term in self._terms)

    def __len__(self) -> int:
        """Return how many terms there are."""
        return len(self._terms)


def open_postings(
    params: Params,
    locale: str,
    analyser: analysers.Analyser,
    products: int,
    source_sha256: str,
    queries: int = 1,
    *,
    thorough: bool = False,
) -> tuple[Postings, bool]:
    """Return the postings of a locale's products, and whether they were kept before.

    Args:
        params: for memory and threads.
        locale: whose products they are.
        analyser: what makes the terms.
        products: how many there are.
        source_sha256: the hash of the clean products.
        queries: how many will be searched for.
        thorough: that of `postings_of`.

    Raises:
        MemoryLimitError: making or searching them would take more memory than allowed.
        PipelineError: the clean products are damaged.
    """
    workers = worker_count(analyser.name, products, params.runtime)

    def make() -> Postings:
        pieces = count_products(locale, analyser, products, params.runtime)
        counted = track(pieces, products, "products", lambda piece: len(piece.lengths))
        check = memory_check(params, locale, analyser, products, queries, workers)
        found = postings.collect(counted, check)
        path = layout.clean(locale).products
        if files.sha256_file(path) != source_sha256:
            raise PipelineError(f"{path} was replaced while it was read. Run it again.")
        return found

    found, reused = postings_of(
        locale, analyser, source_sha256, len(params.locales), make, thorough=thorough
    )
    if reused:
        check = memory_check(params, locale, analyser, products, queries, workers=0)
        check(postings.Collection(products=products, postings=len(found.products)))
    return found, reused


def memory_check(
    params: Params,
    locale: str,
    analyser: analysers.Analyser,
    products: int,
    queries: int,
    workers: int,
) -> Callable[[postings.Collection], None]:
    """Return what refuses a collection that will take more memory than allowed.

    It runs after each piece: a stage that must fail fails soon. `workers` are those of
    `postings.memory_bytes`.
    """
    threads = params.runtime.thread_count()
    results = min(queries, BATCH_QUERIES) * min(params.retrieve.depth, products)

    def check(found: postings.Collection) -> None:
        memory.check(
            found.memory_bytes(analyser.name, products, results, threads, workers),
            f"bm25 of the {products} {locale} products",
            params.runtime,
            "draw fewer (sample.distractors) or make their texts of fewer fields (clean.fields)",
        )

    return check


def postings_of(
    locale: str,
    analyser: analysers.Analyser,
    source_sha256: str,
    locales: int,
    make: Callable[[], Postings],
    *,
    thorough: bool,
) -> tuple[Postings, bool]:
    """Return the postings of a locale's products, and whether they were kept before.

    New ones are kept. Where the cache cannot be written, they are returned all the same, after a
    message.

    Args:
        locale: whose products they are.
        analyser: what makes the terms.
        source_sha256: the hash of the clean products.
        locales: how many locales there are; see `cache.keep`.
        make: returns the postings.
        thorough: whether to compare the hashes of all files, and not only their sizes and times.

    Raises:
        PipelineError: as `make` does.
    """
    made_of = _made_of(analyser, source_sha256)
    folder = layout.postings(f"{locale}-{files.sha256_lines(made_of)[:16]}").folder
    made: list[Postings] = []

    def fill(partial: Path) -> None:
        made.append(make())
        _write(made[0], layout.PostingFiles(partial), made_of)

    try:
        for _ in range(cache.TRIES):
            digests = cache.keep(folder, fill, locales)
            if made:
                return made[0], False
            with suppress(FileNotFoundError):  # another process has just made room for its own
                found = _open(layout.PostingFiles(folder), digests if thorough else {}, made_of)
                if isinstance(found, Postings):
                    return found, True
                log.warning("warning: %s %s; the terms are made again", folder, found)
                forget(folder)
    except OSError as err:
        log.warning("warning: the %s terms are not kept for the next run: %s", locale, err)
    return (made[0] if made else make()), False


def _made_of(analyser: analysers.Analyser, source_sha256: str) -> list[str]:
    """Return all that decides the files, one thing a line."""
    code = [
        files.sha256_file(Path(str(path)))
        for path in (__file__, *(module.__file__ for module in CODE))
    ]
    libraries = [f"{name} {version(name)}" for name in LIBRARIES]
    # The name is that of several languages where no stemmer knows them.
    of = [analyser.name, analyser.language]
    return [str(FORM), source_sha256, *of, unidata_version, *code, *libraries]


def _write(found: Postings, out: layout.PostingFiles, made_of: list[str]) -> None:
    terms = pa.table(
        {
            "term": pa.array(found.vocabulary, pa.string()),
            "number": pa.array(found.vocabulary.values(), pa.int32()),
        }
    )
    terms = terms.take(pc.sort_indices(terms["term"]))
    cache.write_table(out.terms, terms.replace_schema_metadata({MADE_OF: "\n".join(made_of)}))
    for path, array in (
        (out.starts, found.starts),
        (out.products, found.products),
        (out.times, found.times),
        (out.lengths, found.lengths),
    ):
        write_npy(path, array)


def _open(found: layout.PostingFiles, digests: Digests, made_of: list[str]) -> Postings | str:
    """Return kept postings, or what is wrong with them; `digests` are compared.

    What is returned is what was checked: it stays whole if the folder is then deleted.

    Raises:
        FileNotFoundError: the folder is deleted, as a whole or in part.
    """
    try:
        for name, digest in digests.items():
            if files.sha256_file(found.folder / name) != digest:
                return "is damaged"
        terms = cache.map_table(found.terms)
        if (terms.schema.metadata or {}).get(MADE_OF) != "\n".join(made_of).encode():
            return "is of other texts"
        read = _read(found, terms)
    except FileNotFoundError:
        raise
    except (OSError, EOFError, ValueError, KeyError, pa.ArrowException):
        return "is damaged"
    starts = read.starts
    fits = len(starts) == len(terms) + 1 and starts[0] == 0
    fits = fits and starts[-1] == len(read.products) == len(read.times)
    return read if fits else "is damaged"


def _read(found: layout.PostingFiles, terms: pa.Table) -> Postings:
    # As plain arrays: every slice of numpy's own class for mapped files takes microseconds.
    return Postings(
        SortedTerms(terms),
        np.load(found.starts, allow_pickle=False),
        np.asarray(np.load(found.products, mmap_mode="r", allow_pickle=False)),
        np.asarray(np.load(found.times, mmap_mode="r", allow_pickle=False)),
        np.load(found.lengths, allow_pickle=False),
    )
