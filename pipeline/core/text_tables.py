"""Tables as text: Markdown for files and pull requests, aligned columns for a terminal."""

from collections.abc import Collection, Sequence

Rows = Sequence[Sequence[str]]


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
