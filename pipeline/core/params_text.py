"""params.yaml as plain data: YAML 1.2 as DVC reads and writes it, and parameters only."""

import itertools
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from pipeline.core.errors import PipelineError, one_line, shorten
from pipeline.core.files import read_bytes

MOST_BYTES = 1 << 17
"""What a parameter file may have at most; the shipped one has some 20,000 bytes. The
YAML library takes a second for 50,000."""

MOST_VALUES = 20_000
"""How many values a parameter file may have with every alias written out; the shipped one has some
400. Nine levels of nine aliases each are a billion."""

MOST_LEVELS = 20
"""How deep a parameter file may be nested; the shipped one is 5 levels deep."""

_TOO_DEEP = f"must have at most {MOST_LEVELS} levels. Nest it less."

MOST_LINES = 20
"""How many mistakes a message lists."""

_PLAIN = ("str", "int", "float", "bool", "null")

_READ_AS = {
    "int": "a number", "float": "a number", "bool": "true or false", "null": "empty",
    "timestamp": "a date", "value": "a default",
}  # fmt: skip
"""How a message names what YAML takes an unquoted word for, by the end of its tag."""


def read_data(path: Path) -> Any:
    """Read a parameter file as dicts, lists, texts, numbers, booleans and None.

    Raises:
        PipelineError: the file is missing or unreadable, or `parse` refuses it.
    """
    return parse(read_bytes(path, "Run from the root of the project.", MOST_BYTES), str(path))


def parse(text: bytes, where: str) -> Any:
    """Return what the text of a parameter file says.

    Args:
        text: YAML 1.2 in UTF-8: `yes` is a text, `1e-3` a number.
        where: where it comes from; messages begin with it.

    Raises:
        PipelineError: it is not YAML, or holds more than parameters: a key that is not text, a key
            given twice, a date, a number of more than 64 bits, aliases within themselves or without
            end, too many levels.
    """
    if len(text) > MOST_BYTES:
        raise PipelineError(
            f"{where} must have at most {MOST_BYTES} bytes (found {len(text)}). Shorten it."
        )
    if _deepest_bracket(text) > 10 * MOST_LEVELS:  # the YAML library takes seconds over these
        raise PipelineError(f"{where} {_TOO_DEEP}")
    yaml = YAML(typ="safe", pure=True)
    try:
        with _yaml_errors(where):
            node = yaml.compose(text.decode("utf-8-sig"))
        if node is None:
            return None
        _check_size(node)
        if wrong := list(_Checks(yaml).lines(node, "", set())):
            raise PipelineError(_listed(where, wrong))
        with _yaml_errors(where):
            return yaml.constructor.construct_document(node)
    except RecursionError as err:
        raise PipelineError(f"{where} {_TOO_DEEP}") from err
    except _TooMuchError as err:
        raise PipelineError(f"{where}: {err}") from err


@contextmanager
def _yaml_errors(where: str) -> Iterator[None]:
    """Raise a `PipelineError` for what the YAML library raises."""
    try:
        yield
    except UnicodeDecodeError as err:
        raise PipelineError(f"{where} is not YAML: it must be UTF-8 ({err}). Save it so.") from err
    except RecursionError:
        raise
    # It raises what Python's own conversions do, such as ValueError for "\U00110000".
    except Exception as err:
        what = one_line(err) or type(err).__name__
        raise PipelineError(f"{where} is not YAML: {what}. Correct it.") from err


def _listed(where: str, wrong: list[str]) -> str:
    """Return a message of the first mistakes, and how many more there are."""
    lines = wrong[:MOST_LINES]
    if more := len(wrong) - len(lines):
        lines.append(f"… and {more} more")
    return f"{where}:\n" + "\n".join(f"  {line}" for line in lines)


def _deepest_bracket(text: bytes) -> int:
    """Return how many brackets are open at once at most, those in texts too."""
    steps = (1 if one in b"[{" else -1 for one in re.findall(rb"[\[{\]}]", text))
    return max(itertools.accumulate(steps), default=0)


class _TooMuchError(Exception):
    """Aliases lead back to themselves, or to too much."""


def _check_size(root: Node) -> None:
    """Raise a `_TooMuchError` where the file is too much with its aliases written out."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: Node, level: int) -> int:
        if level > MOST_LEVELS:
            raise _TooMuchError(f"it {_TOO_DEEP}")
        if id(node) in open_:
            raise _TooMuchError(f"the alias {node.anchor} is within itself. Write its value out.")
        if id(node) not in sizes:
            open_.add(id(node))
            sizes[id(node)] = 1 + sum(size(one, level + 1) for one in _parts(node))
            open_.remove(id(node))
        if sizes[id(node)] > MOST_VALUES:
            raise _TooMuchError(f"its aliases make more than {MOST_VALUES} values. Use fewer.")
        return sizes[id(node)]

    size(root, 0)


def _parts(node: Node) -> Iterator[Node]:
    if isinstance(node, MappingNode):
        for pair in node.value:
            yield from pair
    elif isinstance(node, SequenceNode):
        yield from node.value


def is_read_otherwise(word: str) -> bool:
    """Say whether YAML reads an unquoted word as something other than this text."""
    return bool(YAML(typ="safe", pure=True).load(word) != word)


@dataclass(frozen=True)
class _Checks:
    """Finds the keys and values that no parameter file may have."""

    yaml: YAML

    def lines(self, node: Node, path: str, seen: set[int]) -> Iterator[str]:
        """Yield a line for each; `seen` are the nodes that were looked at, since aliases repeat."""
        if id(node) in seen:
            return
        seen.add(id(node))
        if isinstance(node, ScalarNode):
            yield from self._of_value(node, path)
        elif isinstance(node, SequenceNode):
            if _tag(node) != "seq":
                yield f"{path or '(top level)'}: must be plain YAML (found the tag {_tag(node)})"
            for place, one in enumerate(node.value):
                yield from self.lines(one, f"{path}.{place}".lstrip("."), seen)
        elif isinstance(node, MappingNode):
            if _tag(node) != "map":
                yield f"{path or '(top level)'}: must be plain YAML (found the tag {_tag(node)})"
            yield from self._of_mapping(node, path, seen)

    def _of_mapping(self, node: MappingNode, path: str, seen: set[int]) -> Iterator[str]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if _tag(key) == "merge":
                yield from self.lines(value, path, seen)
                continue
            if not isinstance(key, ScalarNode):
                yield f"{path or '(top level)'}: a key must be a text (found a list or a mapping)"
                continue
            name = f"{path}.{_shown(key.value)}".lstrip(".")
            line = key.start_mark.line + 1
            if _tag(key) != "str":
                kind = _READ_AS.get(_tag(key), _tag(key))
                yield f"{name}: YAML reads this key as {kind} (line {line}). Put it in quotes."
            elif key.value in lines:
                yield f"{name}: is repeated (lines {lines[key.value]} and {line})"
            yield from self._of_text(key.value, name)
            lines.setdefault(key.value, line)
            yield from self.lines(value, name, seen)

    def _of_value(self, node: ScalarNode, path: str) -> Iterator[str]:
        where = path or "(top level)"
        if (tag := _tag(node)) in _READ_AS.keys() - set(_PLAIN):
            kind = _READ_AS[tag]
            yield f"{where}: YAML reads {shorten(node.value)} as {kind}. Put it in quotes."
            return
        if tag not in _PLAIN:
            yield f"{where}: must be plain YAML (found the tag {tag})"
            return
        yield from self._of_text(node.value, where)
        if tag == "str":
            return
        try:
            value = self.yaml.constructor.construct_object(node)
        except (ValueError, LookupError, ArithmeticError, YAMLError):
            yield f"{where}: must be {_READ_AS[tag]} (found {shorten(node.value)})"
            return
        if isinstance(value, float) and not math.isfinite(value):
            yield f"{where}: must be a finite number (found {shorten(node.value)})"
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            yield f"{where}: must be a number of at most 64 bits (found {shorten(node.value)})"

    def _of_text(self, text: str, where: str) -> Iterator[str]:
        try:
            text.encode()
        except UnicodeEncodeError:
            yield f"{where}: holds half of a surrogate pair (found {shorten(text)})"


def _shown(key: str) -> str:
    """Return a key as a message may show it: on one line, which is no command of a CI runner."""
    return key if re.fullmatch(r"[\w@.~=+-][\w@.~=+ -]{0,59}", key) else shorten(key)


def _tag(node: Node) -> str:
    """Return the end of a node's tag, such as int."""
    return str(node.tag).rpartition(":")[2]
