"""params.yaml of a revision as one level of dotted keys; a commit may hold anything there."""

import json
from typing import Any, TypeGuard

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from pipeline.core.errors import PipelineError, one_line, shorten

LARGEST = 1 << 20
"""The most bytes that params.yaml may have."""

MOST_VALUES = 20_000
"""The most values it may have, those that its aliases repeat counted each time."""

Settings = dict[str, str]
"""A value, as it is written, by dotted key such as encoder.es."""


def read_settings(data: bytes, where: str) -> Settings:
    """Return a parameter file as dotted keys.

    Older revisions have other parameters, so the file is not checked as the workspace's is: it must
    only name an encoder and an index for each locale.

    Args:
        data: the file.
        where: what messages call it, such as "params.yaml of HEAD".

    Raises:
        PipelineError: the file is not YAML 1.2, is too large, or does not name an encoder and an
            index for each locale.
    """
    if len(data) > LARGEST:
        raise PipelineError(f"{where}: the file is larger than {LARGEST:,} bytes. Shorten it.")
    try:
        yaml = YAML(typ="safe", pure=True)
        root = yaml.compose(data)
        if _size(root) > MOST_VALUES:
            raise PipelineError(
                f"{where}: with its aliases, the file has more than {MOST_VALUES:,} values. "
                "Shorten it."
            )
        content = yaml.constructor.construct_document(root) if root else None
        settings = _flat(content)
    except PipelineError:
        raise
    # The reader of YAML raises whatever Python's own conversions do, such as KeyError for
    # `!!bool x` and RecursionError for 100,000 brackets.
    except Exception as err:
        what = one_line(err) or type(err).__name__
        raise PipelineError(f"{where} cannot be read as YAML 1.2 ({what}). Correct it.") from err
    _check_locales(content, where)
    return settings


def _check_locales(content: Any, where: str) -> None:
    """Raise a `PipelineError` unless a file names an encoder and an index for the same locales.

    A file that was cut off among them would look like one that drops a locale.
    """
    locales = []
    for name in ("encoder", "index"):
        section = content.get(name) if isinstance(content, dict) else None
        if not isinstance(section, dict) or not all(
            isinstance(each, str) for each in (*section, *section.values())
        ):
            raise PipelineError(
                f"{where}: {name} must give each locale a name (found {shorten(section)}). "
                "Correct it."
            )
        locales.append(sorted(section))
    if locales[0] != locales[1]:
        raise PipelineError(
            f"{where}: encoder has the locales {shorten(locales[0])}, but index has "
            f"{shorten(locales[1])}. Correct it."
        )


def _size(root: Node | None) -> int:
    """Return how many nodes a document expands to, or a number above `MOST_VALUES`."""
    waiting, found = [root], 0
    while waiting and found <= MOST_VALUES:
        node = waiting.pop()
        found += 1
        if isinstance(node, SequenceNode):
            waiting += node.value
        elif isinstance(node, MappingNode):
            waiting += [part for pair in node.value for part in pair]
    return found


def _flat(data: Any, prefix: str = "") -> Settings:
    if not isinstance(data, dict) or not data:
        return {prefix.removesuffix("."): data if _is_plain(data) else _quoted(data)}
    return {
        key: value
        for name, inner in data.items()
        for key, value in _flat(inner, f"{prefix}{_key(name)}.").items()
    }


def _key(name: object) -> str:
    # A CI runner takes a line that begins with :: for a command.
    return name if _is_plain(name) and not name.startswith(":") else _quoted(name)


def _is_plain(data: object) -> TypeGuard[str]:
    """Return whether a value is a text that is seen whole: no blanks at its ends, not empty."""
    return isinstance(data, str) and data.isprintable() and data == data.strip() != ""


def _quoted(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False, default=str)
    return text if text.isprintable() else json.dumps(data, default=str)
