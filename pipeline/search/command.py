"""Search a locale from the shell: every system side by side.

python -m pipeline.search "zapatillas rojas mujer" --locale es
"""

import argparse
import io
import json
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.core import files, stage
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import FIRST_SYSTEMS
from pipeline.core.params_file import load_params
from pipeline.search.display import draw
from pipeline.search.engine import Engine
from pipeline.search.opening import open_engine
from pipeline.search.question import FIRST_PLACES, Question, check_k, read_filters, read_systems


def main() -> int:
    """Search; return the exit status."""
    arguments = _parser().parse_args()
    with stage.report_errors("search") as outcome:
        locale = arguments.locale or _only_locale()
        systems = read_systems(arguments.system.split(","))
        filters = read_filters(brand=arguments.brand, color=arguments.color)
        queries = _queries(arguments.query, arguments.file)
        engine = open_engine(locale)
        check_k(arguments.k, engine.params.retrieve.depth)
        failed = asked = 0
        for asked, (number, query) in enumerate(queries, 1):
            question = Question(query, systems, arguments.k, filters)
            try:
                _write(engine, question, as_json=arguments.json, first=asked == 1)
            except PipelineError as err:
                if arguments.file is None:
                    raise
                failed += 1
                stage.log.error("line %d: %s", number, err)
        if failed:
            raise PipelineError(
                f"--file {arguments.file}: {failed} of {asked} lines could not be searched for."
            )
    return outcome.status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.search",
        description="Search a locale with every system, as the stages do.",
    )
    parser.add_argument("query", nargs="?", help="what to search for")
    parser.add_argument("--locale", help="a key of `encoder` in params.yaml")
    parser.add_argument(
        "--system", default=",".join(FIRST_SYSTEMS), help="one or more, with commas (default: all)"
    )
    parser.add_argument("-k", type=int, default=FIRST_PLACES, help="products of each system")
    parser.add_argument("--brand", help="search only products of this brand")
    parser.add_argument("--color", help="search only products of this colour")
    parser.add_argument("--json", action="store_true", help="one line of JSON per query")
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
        PipelineError: there is no query, or there are two sources of them; the file is not text.
    """
    if (query is None) == (file is None):
        raise PipelineError(
            "query: must be given once, as an argument or by --file (found "
            f"{'both' if query is not None else 'none'})."
        )
    if query is not None:
        return iter([(1, query)])
    if file == "-":
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


def _write(engine: Engine, question: Question, *, as_json: bool, first: bool) -> None:
    answer = engine.search(question)
    if as_json:
        text = json.dumps(answer.as_dict(), ensure_ascii=False, allow_nan=False) + "\n"
    else:
        text = draw(answer, shutil.get_terminal_size().columns)
        text = text if first else f"\n{text}"
    sys.stdout.write(text)
    sys.stdout.flush()
