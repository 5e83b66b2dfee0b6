"""Tables as text: Markdown for files and pull requests, aligned columns for a terminal.

Texts that anyone may have written are made safe first, by `plain` for a terminal and by `inline`
for Markdown.
"""

import html
import math
from collections.abc import Collection, Sequence

Rows = Sequence[Sequence[str]]

LONGEST = 70
"""How many characters of a text `plain` keeps."""


def markdown(header: Sequence[str], rows: Rows, numbers: Collection[str] = ()) -> str:
    """Return a Markdown table, each line closed by a newline.

    Args:
        header: the names of the columns.
        rows: the cells; a `|` in them is the caller's to escape.
        numbers: the names of the columns that are aligned to the right.
    """
    rule = ["---:" if name in numbers else "---" for name in header]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def aligned(header: Sequence[str], rows: Rows, numbers: Collection[str] = ()) -> str:
    """Return a table for a terminal, with columns as wide as they need to be.

    Args:
        header: the names of the columns.
        rows: the cells.
        numbers: the names of the columns that are aligned to the right.
    """
    lines = [header, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = (
        "  ".join(
            cell.rjust(width) if name in numbers else cell.ljust(width)
            for name, cell, width in zip(header, cells, widths, strict=True)
        )
        for cells in lines
    )
    return "".join(f"{line.rstrip()}\n" for line in padded)


def four_digits(value: float) -> str:
    """Return a number as tables show it; nothing for NaN.

    A mean is rounded here alone: rounded to 5 digits before, it may end in another fourth digit.
    """
    return "" if math.isnan(value) else f"{value:.4f}"


def plain(text: str) -> str:
    """Return text on one line, shortened, without characters that steer a terminal."""
    text = printable(text)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def printable(text: str) -> str:
    """Return the whole of a text on one line, without characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def inline(text: str) -> str:
    """Return text on one line, with all that Markdown would read as more written as entities."""
    text = "".join(c if c.isprintable() else " " for c in text)
    escaped = html.escape(text, quote=False)
    return "".join(f"&#{ord(c)};" if c in "\\`*_[]|~!@#:" else c for c in escaped)
