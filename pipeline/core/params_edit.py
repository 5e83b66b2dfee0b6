"""A value is put into the text of a parameter file: no other line changes, comments stay.

Commands that edit params.yaml write it in one place, so that none undoes what another one writes.
"""

import io
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node

from pipeline.core import files, layout, params_text
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.core.params_file import PARAMS_FILE, check_params

_WIDE = 1 << 16  # no text is folded
_REMEDY = "Run from the root of the project."
_MARK = b"\xef\xbb\xbf"


def put(text: bytes, path: Sequence[str], value: Any, where: str) -> bytes:
    """Return the text of a parameter file with a value at a path, added or replaced.

    A new key comes last in its section. What the result says is compared with what it must say, so
    a form that cannot be edited by lines is found.

    Args:
        text: the file; block style, as DVC writes it.
        path: the keys down to the value; all but the last must be there.
        value: what YAML can hold: dicts, lists, texts, numbers, true, false and None.
        where: the file, for messages.

    Raises:
        PipelineError: it is not a parameter file, or has a form that this cannot edit.
    """
    data = params_text.parse(text, where)
    source = text.decode("utf-8-sig")
    newline = "\r\n" if "\r\n" in source else "\n"
    lines = source.splitlines(keepends=True)
    new: list[str] = []
    edited = text
    place = _place(YAML(typ="safe", pure=True).compose(source), path, lines)
    if place is not None:
        begin, end, indent = place
        if begin and not lines[begin - 1].endswith("\n"):
            lines[begin - 1] += newline
        new = [f"{' ' * indent}{line}{newline}" for line in _dump({path[-1]: value}).splitlines()]
        joined = "".join([*lines[:begin], *new, *lines[end:]])
        edited = (_MARK if text.startswith(_MARK) else b"") + joined.encode()
    if place is None or not _says(edited, _with(data, path, value), where):
        raise PipelineError(
            f"{where}: {'.'.join(path)} has a form that cannot be edited line by line (such as "
            f"braces or an alias). Set it yourself to:\n{_dump({path[-1]: value})}"
        )
    return edited


def put_all(text: bytes, changes: Mapping[tuple[str, ...], Any], where: str) -> bytes:
    """Return the text of a parameter file with values at paths; raises as `put` does."""
    data = params_text.parse(text, where)
    for path, value in changes.items():
        if replaced(data, {path: value}) != data:
            text = put(text, path, value, where)
    return text


def replaced(data: Any, changes: Mapping[tuple[str, ...], Any]) -> Any:
    """Return what a parameter file says, with values at paths."""
    for path, value in changes.items():
        data = _with(data, path, value)
    return data


def write(change: Callable[[bytes], bytes]) -> Params:
    """Write params.yaml as `change` makes it of what is there; return what it says then.

    Other commands that write it wait meanwhile. The file keeps its mode, and a link to it stays.

    Args:
        change: returns the new text of the text that it gets.

    Raises:
        PipelineError: the file is missing, is read-only or would break a rule; or `change` raises.
    """
    from filelock import FileLock  # here: to check the file must not wait for this import

    check_writable()
    layout.cache().mkdir(parents=True, exist_ok=True)
    with FileLock(layout.params_lock()):
        before = files.read_bytes(PARAMS_FILE, _REMEDY)
        after, where = change(before), str(PARAMS_FILE)
        params = check_params(params_text.parse(after, where), where)
        mode = stat.S_IMODE(PARAMS_FILE.stat().st_mode)
        with files.atomic_file(PARAMS_FILE, follow_links=True) as partial:
            partial.write_bytes(after)
            partial.chmod(mode)
    return params


def check_writable() -> None:
    """Raise a `PipelineError` if nobody may write params.yaml, though another could replace it."""
    files.check_regular(PARAMS_FILE, _REMEDY)
    if not (os.access(PARAMS_FILE, os.W_OK) and PARAMS_FILE.stat().st_mode & 0o222):
        raise PipelineError(
            f"{PARAMS_FILE} is read-only. Make it writable (chmod u+w {PARAMS_FILE})."
        )


def _says(text: bytes, wanted: Any, where: str) -> bool:
    try:
        return bool(params_text.parse(text, where) == wanted)
    except PipelineError:
        return False


def _with(data: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    inner = data.get(path[0]) if isinstance(data, dict) else None
    return {**(data if isinstance(data, dict) else {}), path[0]: _with(inner, path[1:], value)}


def _place(
    section: Node | None, path: Sequence[str], lines: list[str]
) -> tuple[int, int, int] | None:
    """Return the lines, from 0, that a key and its value take (none if new), and their indentation.

    None: a section on the way is missing or is not a mapping.
    """
    end = len(lines)
    for depth, name in enumerate(path):
        if not isinstance(section, MappingNode) or not section.value:
            return None
        pairs = section.value
        indent = pairs[0][0].start_mark.column
        end = _without_comments(lines, end, indent - 1 if depth else 0)
        at = next((at for at, (key, _) in enumerate(pairs) if key.value == name), None)
        last = depth == len(path) - 1
        if at is None:
            return (end, end, indent) if last else None
        begin = pairs[at][0].start_mark.line
        if at + 1 < len(pairs):
            end = pairs[at + 1][0].start_mark.line
        if last:
            return begin, _without_comments(lines, end, indent), indent
        section = pairs[at][1]
    return None


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


def _dump(value: Any) -> str:
    """Return YAML in the form that DVC writes."""
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = _WIDE
    stream = io.StringIO()
    yaml.dump(value, stream)
    return stream.getvalue()
