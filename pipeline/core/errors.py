"""The one exception that users read, and how its message is put together."""

import difflib
import itertools
import re
from collections.abc import Collection, Iterable
from importlib import metadata
from types import NoneType
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.core.text_tables import printable

LONGEST_CAUSE = 300
"""How many characters of a library's message a message shows, at most."""


class PipelineError(Exception):
    """Something the user can correct: where, what is wrong, the value found, what to do.

    A stage turns it into one message on stderr and exit status 1. Every other exception is a bug
    and keeps its traceback.
    """


def missing_package(err: ModuleNotFoundError) -> PipelineError | None:
    """Return what to install, or None if the light install does not explain what is not found."""
    package = (err.name or "").partition(".")[0]
    if package in ("", "pipeline", "esci_retrieval", "bench") or not _of_extra(package):
        return None
    return PipelineError(
        f"the module {package} is not installed: the light install can compare and evaluate, not "
        "run. Install the extra `run`: `make setup`, or `pip install '.[run]'` in a clone."
    )


def _of_extra(package: str) -> bool:
    """Return whether the extra `run` lists what has this module, or is not installed as a whole."""
    try:
        listed = metadata.requires("esci-retrieval") or []
    except metadata.PackageNotFoundError:  # a clone that is not installed
        return True
    names = [re.split(r"[^\w.-]", each)[0] for each in listed if re.search(r"extra == .run.", each)]
    owners = set(map(_normal, metadata.packages_distributions().get(package, ())))
    return not owners.isdisjoint(map(_normal, names)) or not all(map(_is_installed, names))


def _normal(distribution: str) -> str:
    """Return a distribution's name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _is_installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest of `known`, or nothing when none is near."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shorten(value: object) -> str:
    """Return `value` as Python writes it, in 60 characters at most."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # of more than 4,300 digits, or of too many levels
        text = f"{type(value).__name__} too large to show"
    return text if len(text) <= 60 else text[:57] + "..."


def list_first(values: Collection[object], most: int = 20) -> str:
    """Return values for a message, shortened, in their order: the first, and how many more."""
    listed = ", ".join(map(shorten, itertools.islice(values, most)))
    return f"{listed} and {len(values) - most:,} more" if len(values) > most else listed


def named_as(value: str) -> str:
    """Return a value as a line that names it may have it: itself, or VALUE.

    VALUE stands for what is too long, or holds characters that cannot be printed.
    """
    return value if len(value) <= 40 and value.isprintable() else "VALUE"


def on_one_line(key: str) -> str:
    """Return a key as a message may show it: a terminal or a CI runner obeys control characters."""
    return key if key.isprintable() else shorten(key)


def one_line(err: Exception) -> str:
    """Return a library's message without line breaks and other control characters."""
    return printable(str(err))


def rule(message: str) -> str:
    """Return what pydantic says of a value as a rule: "must be greater than 0"."""
    return message.replace("Input should", "must").replace("String should", "must")


def explain_first(errors: ValidationError) -> str:
    """Return the first of the errors: `key: what is wrong (found value)`."""
    first = errors.errors()[0]
    key = ".".join(map(str, first["loc"])) or "(top level)"
    return f"{key}: {rule(first['msg'])} (found {shorten(first['input'])})"


def explain(errors: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return a line for each key of `model` that is wrong: `key: what is wrong (found value)`."""
    found: dict[str, tuple[list[str], str]] = {}
    for error in errors.errors():
        key, known = _place(error["loc"], model)
        context, value = error.get("ctx", {}), f" (found {shorten(error['input'])})"
        match error["type"]:
            case "extra_forbidden":
                message, value = f"unknown key{did_you_mean(str(error['loc'][-1]), known)}", ""
            case "missing":
                message, value = "missing", ""
            case "union_tag_not_found":
                key, message, value = f"{key}.kind", "missing", ""
            case "union_tag_invalid":
                kinds = context["expected_tags"].replace("'", "").split(", ")
                hint = did_you_mean(context["tag"], kinds)
                key, message = f"{key}.kind", f"{context['tag']!r} is not one of {', '.join(kinds)}"
                value = hint
            case "string_type" if isinstance(error["input"], int | float):
                message, value = "must be a text", f"{value}. Put it in quotes."
            case _:
                message = rule(error["msg"])
        # What may be of two types has an error for each.
        found.setdefault(key, ([], value))[0].append(message)
    return [f"{key}: {' or '.join(messages)}{value}" for key, (messages, value) in found.items()]


def _place(location: tuple[str | int, ...], model: type[BaseModel]) -> tuple[str, list[str]]:
    """Return the key at a pydantic location, and the keys that may be beside it."""
    path: list[str] = []
    known: list[str] = []
    kind: Any = model
    for part in location:
        kind = _bare(kind)
        if _is_model(kind):
            path.append(on_one_line(str(part)))
            known = list(kind.model_fields)
            kind = kind.model_fields[part].annotation if part in kind.model_fields else None
        elif get_origin(kind) in (dict, tuple):
            path.append(on_one_line(str(part)))
            kind = get_args(kind)[get_origin(kind) is dict]
        else:  # the tag of one type of several, or what marks a key's own error
            kinds = filter(_is_model, get_args(kind))
            kind = next((one for one in kinds if part in get_args(_kind_of(one))), None)
    return ".".join(path) or "(top level)", known


def _bare(kind: Any) -> Any:
    """Return a type without its annotations, and without None where it may be that."""
    while True:
        if get_origin(kind) is Annotated:
            kind = get_args(kind)[0]
        elif len(others := set(get_args(kind)) - {NoneType}) == 1 and NoneType in get_args(kind):
            kind = others.pop()
        else:
            return kind


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _kind_of(model: type[BaseModel]) -> Any:
    return model.model_fields["kind"].annotation
