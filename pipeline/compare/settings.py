"""params.yaml of a revision as one level of dotted keys; a commit may hold anything there."""

import json
from typing import Any, TypeGuard

from pipeline.core import params_text
from pipeline.core.errors import PipelineError, shorten

Settings = dict[str, str]
"""A value, as it is written, by dotted key such as encoder.es."""

ABSENT = "(absent)"
"""The value of a setting that a revision does not have."""


def read_settings(data: bytes, where: str) -> Settings:
    """Return a parameter file as dotted keys.

    Older revisions have other parameters, so the file is not checked as the workspace's is: it must
    only be one that this project can read, and name an encoder and an index for each locale.

    Args:
        data: the file.
        where: what messages call it, such as "params.yaml of HEAD".

    Raises:
        PipelineError: `params_text.parse` refuses the file, or it does not name an encoder and an
            index for each locale.
    """
    content = params_text.parse(data, where)
    _check_locales(content, where)
    return _flat(content)


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


def _flat(data: Any, prefix: str = "") -> Settings:
    if not isinstance(data, dict) or not data:
        return {prefix.removesuffix("."): data if _is_plain(data) else _quoted(data)}
    return {
        key: value
        for name, inner in data.items()
        for key, value in _flat(inner, f"{prefix}{_key(name)}.").items()
    }


def _key(name: str) -> str:
    # A CI runner takes a line that begins with :: for a command.
    return name if _is_plain(name) and not name.startswith(":") else _quoted(name)


def _is_plain(data: object) -> TypeGuard[str]:
    """Return whether a value is a text that is seen whole: no blanks at its ends, not empty."""
    return isinstance(data, str) and data.isprintable() and data == data.strip() != ""


def _quoted(data: object) -> str:
    text = json.dumps(data, ensure_ascii=False)
    return text if text.isprintable() else json.dumps(data)
