"""Cards, the JSON files that say what an artefact is: read as checked types and compared."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from pipeline.core import files
from pipeline.core.errors import PipelineError, explain_first, shorten

M = TypeVar("M")


def read_model(path: Path, form: type[M], remedy: str, version: tuple[str, int] | None = None) -> M:
    """Read a JSON file as a pydantic type.

    Args:
        path: the file.
        form: the type, such as a `Strict` model.
        remedy: a sentence that says what brings the file back; the message ends with it.
        version: the key that holds the version of the form, and the version that is expected.

    Raises:
        PipelineError: the file is missing, is not JSON, is of another version, or breaks the form.
    """
    data = files.read_json(path, remedy)
    if version is not None:
        key, expected = version
        found = data.get(key) if isinstance(data, dict) else None
        if found != expected:
            raise PipelineError(
                f"{path}: {key} must be {expected} (found {shorten(found)}). {remedy}"
            )
    return check_model(path, form, data, remedy)


def check_model(path: Path, form: type[M], data: object, remedy: str) -> M:
    """Return what was read from a JSON file as a pydantic type; raises as `read_model` does."""
    # By way of JSON: strict still, yet lists may become tuples.
    text = files.canonical_json(data)
    try:
        return TypeAdapter(form).validate_json(text)
    except ValidationError as err:
        raise PipelineError(f"{path}: {explain_first(err)}. {remedy}") from err


def refuse_differences(
    path: Path, found: Mapping[str, Any], expected: Mapping[str, Any], why: str, remedy: str
) -> None:
    """Check that a card says what it must.

    Args:
        path: the card.
        found: its keys and values.
        expected: those that it must have, all of them and no other.
        why: what a difference means, such as "the runs are of other tables".
        remedy: a sentence that says what to do.

    Raises:
        PipelineError: a value differs; the message names the first such key and both values.
    """
    for key in [*expected, *(key for key in found if key not in expected)]:
        value, must = found.get(key), expected.get(key)
        if value != must:
            raise PipelineError(
                f"{path}: {key} must be {brief(must)} (found {brief(value)}): {why}. {remedy}"
            )


def check_hash(path: Path, sha256: str, card: Path, remedy: str) -> None:
    """Check that a file is the one that a card names by its hash.

    Raises:
        PipelineError: the file is missing, is not a regular file, or has another hash.
    """
    files.check_regular(path, remedy)
    why = f"it is damaged, or it or {card.name} was edited"
    refuse_differences(path, {"sha256": files.sha256_file(path)}, {"sha256": sha256}, why, remedy)


def brief(value: object) -> str:
    """Return a value for a message: of a hash the first 12 digits."""
    if isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value):
        return value[:12]
    return shorten(value)
