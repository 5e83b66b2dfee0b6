"""Search a locale from the shell: systems side by side.

python -m pipeline.search "zapatillas rojas mujer" --locale es
"""

import argparse
import io
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.core import files, stage
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.log import log
from pipeline.core.params_file import load_params
from pipeline.core.systems import FIRST_SYSTEMS, System
from pipeline.search.answer import Answer
from pipeline.search.display import draw, list_hits
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.question import FIRST_PLACES, Question, check_k, read_filters, read_systems


def main() -> int:
    """Search; return the exit status."""
    arguments = _parser().parse_args()
    with stage.report_errors("search", "was interrupted.") as outcome:
        locale = _only_locale() if arguments.locale is None else arguments.locale
        queries = _queries(arguments.query, arguments.file)
        systems: tuple[System, ...] = FIRST_SYSTEMS
        if arguments.system is not None:
            systems = read_systems(arguments.system.split(","))
        filters = read_filters(brand=arguments.brand, color=arguments.color)
        engine = open_engine(locale)
        if "rerank" in systems:
            engine.reranker().load()
        check_k(arguments.k, engine.params.retrieve.depth)
        if arguments.collapse:
            engine.variants.groups()
        asked = Question("", systems, arguments.k, filters, arguments.collapse, arguments.as_typed)
        _answer(engine, asked, queries, arguments)
    return outcome.status


def _answer(
    engine: Engine,
    asked: Question,
    queries: Iterator[tuple[int, str]],
    arguments: argparse.Namespace,
) -> None:
    """Write the answer to each query; of a file, lines that cannot be searched for are left out.

    Raises:
        PipelineError: the query, or at least one line of the file, cannot be searched for; or the
            file has none.
        BrokenPipeError: nobody reads the answers.
    """
    write = _writer(arguments)
    failed = count = 0
    for count, (number, query) in enumerate(queries, 1):
        try:
            text = write(engine.search(replace(asked, query=query)), count == 1)
        except PipelineError as err:
            if arguments.file is None:
                raise
            failed += 1
            log.error("line %d: %s", number, err)
        else:
            sys.stdout.write(text)
            sys.stdout.flush()
    if not count:
        raise PipelineError(f"--file {arguments.file}: has no query. Write one on each line.")
    if failed:
        raise PipelineError(
            f"--file {arguments.file}: {failed} of {count} lines could not be searched for."
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.search",
        description="Search a locale with every system, as the stages do.",
    )
    parser.add_argument("query", nargs="?", help="what to search for")
    parser.add_argument("--locale", help="a key of `encoder` in params.yaml")
    parser.add_argument(
        "--system", help=f"one or more, separated by commas (default: {','.join(FIRST_SYSTEMS)})"
    )
    parser.add_argument(
        "-k", type=int, default=FIRST_PLACES, help="products per system (default: %(default)s)"
    )
    parser.add_argument("--brand", help="search only products of this brand")
    parser.add_argument("--color", help="search only products of this colour")
    parser.add_argument(
        "--collapse", action="store_true", help="show the first product of each group of duplicates"
    )
    parser.add_argument(
        "--as-typed",
        action="store_true",
        help="do not correct the spelling, even if `spelling` does",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one line of JSON per query")
    form.add_argument(
        "--table",
        action="store_true",
        help="systems side by side, even in a pipe, which otherwise gets a line per product",
    )
    parser.add_argument("--file", help="a file with a query on each line; - is standard input")
    return parser


def _only_locale() -> str:
    locales = load_params().locales
    if len(locales) > 1:
        raise PipelineError(
            f"--locale: must be one of {', '.join(locales)} (found none). Name one."
        )
    return next(iter(locales))


def _queries(query: str | None, file: str | None) -> Iterator[tuple[int, str]]:
    """Return the queries asked for, each with the number of its line; empty lines are none.

    The lines of standard input come as they are written.

    Raises:
        PipelineError: there is no query, or there are two sources of them; the file is not text,
            or is a closed standard input.
    """
    if (query is None) == (file is None):
        raise PipelineError(
            "query: must be given once, as an argument or by --file (found "
            f"{'both' if query is not None else 'none'})."
        )
    if query is not None:
        return iter([(1, query)])
    if file == "-":
        if sys.stdin is None:
            raise PipelineError(
                "--file -: standard input is closed. Give it queries, or name a file."
            )
        sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
        return _numbered(sys.stdin)
    data = files.read_bytes(Path(str(file)), "Name a file with a query on each line.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise PipelineError(f"--file {file}: must be UTF-8 (found {shorten(data)}).") from err
    return _numbered(io.StringIO(text))


def _numbered(lines: Iterable[str]) -> Iterator[tuple[int, str]]:
    return ((number, line.rstrip("\r\n")) for number, line in enumerate(lines, 1) if line.strip())


def _writer(arguments: argparse.Namespace) -> Callable[[Answer, bool], str]:
    """Return what makes the text of an answer, which may be the first."""
    if arguments.json:
        ascii_only = not (sys.stdout.encoding or "utf-8").lower().startswith("utf")
        return lambda answer, _: (
            json.dumps(answer.as_dict(), ensure_ascii=ascii_only, allow_nan=False) + "\n"
        )
    if arguments.table or sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        return lambda answer, first: ("" if first else "\n") + draw(answer, width)
    return lambda answer, _: list_hits(answer)
