"""Put generated tables between their markers in README.md and docs: `python -m bench.readme`.

A table is between `<!-- NAME: begin -->` and `<!-- NAME: end -->` on one page.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from bench import large, reports
from pipeline.core import files, layout, text_tables
from pipeline.core.errors import PipelineError

README = Path("README.md")
DOCS = Path("docs")

SHOWN_LOCALES = ("es", "mean")
SHOWN_COLUMNS = ("locale", "system", "ndcg@10", "recall@100", "judged@10")
"""What the README shows of reports/report.md: eight rows, and three measures that it explains."""


def put_between_markers(text: str, name: str, block: str) -> str:
    """Return `text` with `block` between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        PipelineError: the markers are not there, once each and in order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end or begin in tail or end in tail:
        raise PipelineError(f"there must be one line {begin!r} and, after it, one {end!r}")
    return f"{head}{begin}\n{block.strip()}\n{end}{tail}"


def shorten(table: str) -> str:
    """Return `SHOWN_COLUMNS` and the rows of `SHOWN_LOCALES` of the first table of the report.

    Raises:
        PipelineError: there is no table, or it has no such column or locale.
    """
    first = table.partition("\n\n")[0]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines(first)]
    if len(cells) < 2:
        raise PipelineError(f"the report has no table (found {first.strip()!r})")
    header, _, *rows = cells
    missing = [name for name in SHOWN_COLUMNS if name not in header]
    if missing:
        raise PipelineError(f"the report has no column {', '.join(missing)}")
    places = [header.index(name) for name in SHOWN_COLUMNS]
    shown, locale = [], ""
    for row in rows:
        locale = row[0] or locale  # a locale's name is in its first row only
        if locale in SHOWN_LOCALES:
            shown.append([row[place] for place in places])
    if {row[0] for row in shown} - {""} != set(SHOWN_LOCALES):
        raise PipelineError(f"the report must have the rows {', '.join(SHOWN_LOCALES)}")
    return text_tables.markdown(SHOWN_COLUMNS, shown, SHOWN_COLUMNS[2:])


def lines(table: str) -> list[str]:
    """Return the lines of a Markdown table."""
    return table.strip().splitlines()


TABLES: tuple[tuple[str, Path, Path, Callable[[str], str]], ...] = (
    ("results", README, Path("reports/report.md"), shorten),
    ("bench", DOCS / "encoders.md", layout.ENCODE_BENCH.with_suffix(".md"), str),
    ("large", DOCS / "scale.md", layout.SCALE_BENCH, large.of_scale),
    ("real", DOCS / "indexes.md", reports.indexes(9_190).with_suffix(".md"), str),
    ("repeated", DOCS / "indexes.md", reports.indexes(1_200_000).with_suffix(".md"), str),
)
"""Of each table: its name, its page, the file it comes from, and how it is changed on the way."""


def main() -> int:
    """Fill every table; return the exit status."""
    try:
        for name, page, source, change in TABLES:
            block = change(source.read_text(encoding="utf-8"))
            try:
                text = put_between_markers(page.read_text(encoding="utf-8"), name, block)
            except PipelineError as err:
                raise PipelineError(f"{page}: {err}") from err
            files.write_text(page, text)
    except (PipelineError, FileNotFoundError) as err:
        sys.stderr.write(f"error: {err}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
