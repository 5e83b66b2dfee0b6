"""An entry is written into the text of params.yaml: no other line changes, comments stay."""

import io
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from pipeline.core import params_text
from pipeline.core.errors import PipelineError

_WIDE = 1 << 16  # no text is folded


def put_entry(
    text: bytes, data: Mapping[str, Any], name: str, entry: Mapping[str, Any], where: str
) -> tuple[bytes, Any]:
    """Return a parameter file with an entry under `encoders`, added or replaced: text and data.

    A new entry comes last. What the result says is compared with what it must say, so a form that
    cannot be edited by lines is found.

    Args:
        text: the file; block style, as DVC writes it.
        data: what it says; see `params_text.parse`.
        name: the entry's key.
        entry: its value.
        where: the file, for messages.

    Raises:
        PipelineError: the file has a form that this cannot edit.
    """
    source = text.decode("utf-8-sig")
    newline = "\r\n" if "\r\n" in source else "\n"
    lines = source.splitlines(keepends=True)
    root = YAML(typ="safe", pure=True).compose(source)
    begin, end, indent = _place(root, name, lines)
    if begin and not lines[begin - 1].endswith("\n"):
        lines[begin - 1] += newline
    new = [f"{' ' * indent}{line}{newline}" for line in _dump({name: entry}).splitlines()]
    edited = "".join([*lines[:begin], *new, *lines[end:]])
    result = (b"\xef\xbb\xbf" if text.startswith(b"\xef\xbb\xbf") else b"") + edited.encode()
    wanted = {**data, "encoders": {**data["encoders"], name: dict(entry)}}
    try:
        found = params_text.parse(result, where)
    except PipelineError:
        found = None
    if found != wanted:
        raise PipelineError(
            f"{where}: encoders has a form that cannot be edited line by line (such as "
            f"braces or an alias). Put this entry there yourself:\n{''.join(new)}"
        )
    return result, found


def _place(root: Node, name: str, lines: list[str]) -> tuple[int, int, int]:
    """Return the lines, from 0, that an entry takes (none if it is new), and its indentation."""
    encoders, end = _value(root, "encoders", len(lines))
    assert isinstance(encoders, MappingNode)
    indent = encoders.value[0][0].start_mark.column
    end = _without_comments(lines, end, 0)
    keys = [key for key, _ in encoders.value]
    for at, key in enumerate(keys):
        if key.value == name:
            last = keys[at + 1].start_mark.line if key is not keys[-1] else end
            begin = key.start_mark.line
            return begin, _without_comments(lines, last, indent), indent
    return end, end, indent


def _value(root: Node, name: str, total: int) -> tuple[Node, int]:
    """Return the value of a key at the top, and the line at which the next key begins."""
    assert isinstance(root, MappingNode)
    pairs = root.value
    at = next(at for at, (key, _) in enumerate(pairs) if key.value == name)
    following = pairs[at + 1][0].start_mark.line if at + 1 < len(pairs) else total
    return pairs[at][1], following


def _without_comments(lines: list[str], end: int, indent: int) -> int:
    """Return where a block ends that `end` follows: before comments of what comes next."""
    while end and (
        not lines[end - 1].strip()
        or (lines[end - 1].lstrip().startswith("#") and _indent(lines[end - 1]) <= indent)
    ):
        end -= 1
    return end


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


def _dump(entry: Mapping[str, Any]) -> str:
    """Return YAML in the form that DVC writes."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = _WIDE
    stream = io.StringIO()
    yaml.dump(dict(entry), stream)
    return stream.getvalue()
