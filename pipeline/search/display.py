"""Answers as text: systems side by side within a terminal's width, or a line per product.

Neither has colours.
"""

import unicodedata

from pipeline.core.systems import System
from pipeline.core.text_tables import plain, printable
from pipeline.search.answer import Answer, Hit

GAP = "   "
LEAST_WIDTH = 24
"""A narrower column holds too little of a title: then systems are one below the other."""

ID_WIDTH = 44
"""From this width on, a column has room for ids."""

MOST_WIDTH = 72


def draw(answer: Answer, width: int) -> str:
    """Return an answer as lines of at most `width` columns, each closed by a newline."""
    systems = list(answer.systems)
    beside = max(1, min(len(systems), (width + len(GAP)) // (LEAST_WIDTH + len(GAP))))
    column = min(MOST_WIDTH, (width - (beside - 1) * len(GAP)) // beside)
    lines = [fit(_heading(answer), width).rstrip(), ""]
    for start in range(0, len(systems), beside):
        group = systems[start : start + beside]
        blocks = [_block(answer, system, column) for system in group]
        for row in range(max(map(len, blocks))):
            cells = [block[row] if row < len(block) else "" for block in blocks]
            lines.append(GAP.join(fit(cell, column) for cell in cells).rstrip())
        lines.append("")
    return "".join(f"{line}\n" for line in lines[:-1])


def list_hits(answer: Answer) -> str:
    """Return a line for each product, its values separated by tabs and never cut.

    They are: query, system, rank, score, label, product_id, brand, color, title; where duplicates
    are collapsed, also how many variants the product has. An empty text is a value too.
    """
    lines = []
    for system, hits in answer.systems.items():
        for hit in hits:
            about = hit.product
            values = [
                answer.searched, system, hit.rank, f"{hit.score:.6f}", hit.label or "",
                printable(about.product_id), about.brand, about.color, about.title,
            ]  # fmt: skip
            values += [] if hit.variants is None else [hit.variants]
            lines.append("\t".join(map(str, values)) + "\n")
    return "".join(lines)


def _heading(answer: Answer) -> str:
    judged = "not judged" if answer.query_id is None else f"judged, query_id {answer.query_id}"
    filters = "".join(f", {name} {value}" for name, value in answer.filters.items())
    collapsed = ", duplicates collapsed" if answer.collapsed else ""
    typed = "" if answer.typed is None else f", typed {answer.typed}"
    return f"{answer.searched} ({answer.locale}{filters}{collapsed}{typed}; {judged})"


def _block(answer: Answer, system: System, width: int) -> list[str]:
    hits = answer.systems[system]
    if not hits:
        none = "no term matches" if system == "bm25" else "nothing found"
        return [str(system), f"    {none}"]
    last = len(str(hits[-1].rank))
    lines = [str(system)]
    for hit in hits:
        mark = "" if answer.query_id is None else f" {hit.label or '·'}"
        product_id = plain(hit.product.product_id) if width >= ID_WIDTH else ""
        about = " · ".join(filter(None, (hit.product.brand, product_id, say_variants(hit))))
        lines += [f"{hit.rank:>{last}}  {hit.score:.4f}{mark}  {about}".rstrip()]
        lines += [f"{' ' * last}  {hit.product.title}"]
    return lines


def say_variants(hit: Hit) -> str:
    """Return how many variants a product has, as people read it; nothing where it has none."""
    return f"and {hit.variants} variant{'' if hit.variants == 1 else 's'}" if hit.variants else ""


def fit(text: str, width: int) -> str:
    """Return a text cut or filled up to `width` columns; East Asian wide characters take two."""
    kept, used = [], 0
    room = width if columns(text) <= width else width - 1
    for character in text:
        used += columns(character)
        if used > room:
            used -= columns(character)
            kept.append("…")
            used += 1
            break
        kept.append(character)
    return "".join(kept) + " " * (width - used)


def columns(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    return sum(
        0 if unicodedata.combining(each) or unicodedata.category(each) in ("Cf", "Mn", "Me")
        else 2 if unicodedata.east_asian_width(each) in "WF" else 1
        for each in text
    )  # fmt: skip
