"""The README and the pages of docs, as their tests read them."""

import itertools
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.helpers.artefacts import ROOT

PAGES = (
    Path("README.md"),
    Path("CONTRIBUTING.md"),
    Path("CHANGELOG.md"),
    *sorted(path.relative_to(ROOT) for path in (ROOT / "docs").glob("*.md")),
)
SHELLS = ("sh", "console")
RUN = (*SHELLS, "python")
"""The languages of blocks that are run."""

_COMMENT = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of code.

    Attributes:
        language: `sh`, `console`, `yaml`, `mermaid`, ….
        note: the comment just before it, such as `not run: it takes hours`.
    """

    page: Path
    line: int
    language: str
    code: str
    note: str


def text_of(page: Path) -> str:
    """Return a page's source."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def tokens_of(page: Path) -> tuple[Token, ...]:
    """Return a page's parts, in order."""
    return tuple(MarkdownIt().enable("table").parse(text_of(page)))


def blocks_of(page: Path) -> list[Block]:
    """Return a page's fenced blocks, in order."""
    found: list[Block] = []
    before = None
    for token in tokens_of(page):
        if token.type == "fence":
            note = _COMMENT.match(before.content if before else "")
            line = token.map[0] + 1 if token.map else 0
            language = token.info.strip()
            found.append(Block(page, line, language, token.content, note[1] if note else ""))
        before = token
    return found


def code_of(page: Path) -> list[str]:
    """Return what a page sets as code: spans, and the commands of its shell blocks."""
    spans = [
        child.content
        for token in tokens_of(page)
        for child in token.children or ()
        if child.type == "code_inline"
    ]
    return spans + [
        line.removeprefix("$ ")
        for block in blocks_of(page)
        for line in block.code.splitlines()
        if block.language == "sh" or line.startswith("$ ")
    ]


def links_of(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures."""
    return [
        str(child.attrs["href" if child.type == "link_open" else "src"])
        for token in tokens_of(page)
        for child in token.children or ()
        if child.type in ("link_open", "image")
    ]


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives a page's headings."""
    tokens = tokens_of(page)
    titles = [
        after.content for token, after in itertools.pairwise(tokens) if token.type == "heading_open"
    ]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
