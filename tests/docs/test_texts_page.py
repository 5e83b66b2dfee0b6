"""docs/texts.md shows what `normalise` does: every example of its table."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it.token import Token

from pipeline.text.normalise import normalise
from tests.helpers.pages import tokens_of

UNCHANGED = "unchanged"


def examples() -> list[tuple[str, str]]:
    """Return each text of the column Before with its result in the column After."""
    cells = [
        after
        for token, after in pairwise(tokens_of(Path("docs/texts.md")))
        if token.type == "td_open"
    ]
    found: list[tuple[str, str]] = []
    for before, after in zip(cells[2::5], cells[3::5], strict=True):
        given = [text for text in _texts(before) if text != UNCHANGED]
        wanted = _texts(after)
        assert len(given) == len(wanted), before.content
        pairs = zip(given, wanted, strict=True)
        found += [(text, text if result == UNCHANGED else result) for text, result in pairs]
    return found


def _texts(cell: Token) -> list[str]:
    """Return the code of a cell, with its escapes read, and each `unchanged`."""
    texts: list[str] = []
    for child in cell.children or ():
        if child.type == "code_inline":
            texts.append(re.sub(r"\\(u[0-9a-f]{4}|x[0-9a-f]{2})", _character, child.content))
        elif "`" not in cell.content:
            return []  # emoji and the like, without code
        else:
            texts += [UNCHANGED] * child.content.count(UNCHANGED)
    return texts


def _character(escape: re.Match[str]) -> str:
    return chr(int(escape[1][1:], 16))


@pytest.mark.parametrize(("before", "after"), examples())
def test_every_example_of_the_page_is_what_normalise_does(before: str, after: str) -> None:
    assert normalise(before) == after
    assert normalise(after) == after
