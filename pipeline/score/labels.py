"""What the labels of judgements mean: E, S, C and I, whatever scale they are written in."""

import re
import shlex
from collections.abc import Mapping
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError, named_as, shorten
from pipeline.core.tables import LABELS
from pipeline.evaluate import metrics
from pipeline.given.table import LABEL_COLUMNS, Given, is_text

Meanings = Mapping[str, str] | Mapping[int, str] | Mapping[float, str]
"""The label E, S, C or I of each value."""

GAINS = {f"{gain:g}": label for label, gain in metrics.GAINS.items()}
GRADES = {str(grade): label for label, grade in metrics.GRADES.items()}
"""As `python -m pipeline.trec` writes them."""

_MOST_SHOWN = 8
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?", re.ASCII)


def read_labels(given: Given, meanings: Meanings | None) -> NDArray[np.int8]:
    """Return the position in `LABELS` of each judgement's label, [rows].

    Without `meanings`, a column `label` or `esci_label` holds E, S, C and I, a column `gain` 1,
    0.1, 0.01 and 0, and the grades of a TREC file or a column `grade` are 100, 10, 1 and 0. Grades
    of 0 and 1 alone are refused: in many files 1 is the best grade, here it would be a complement.

    Raises:
        PipelineError: there is no such column or more than one, a label is of another scale, or
            `meanings` gives something else than E, S, C or I.
    """
    names = given.names(*LABEL_COLUMNS)
    if len(names) != 1:
        raise PipelineError(
            f"{given.where}: there must be one column of {', '.join(LABEL_COLUMNS)} (found "
            f"{', '.join(names) or 'none'}). Rename yours."
        )
    (name,) = names
    column = given.column(name)
    kind, types = column.type, pa.types
    if not (
        is_text(kind) or types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
    ):
        raise PipelineError(
            f"{given.where}: {name} must be text, integers, floats or booleans (found {kind}). "
            "Cast it."
        )
    if types.is_float16(kind):  # of which Arrow finds no unique values
        column = column.cast(pa.float32())
    values = pc.unique(column)
    # The shortest text of a number of few bits is what was meant: 0.1, not 0.10000000149011612.
    floats = types.is_floating(kind)
    shown = np.asarray(values, kind.to_pandas_dtype()) if floats else values.to_pylist()
    keys = [_key(value) for value in shown]
    meant = _usual(given, name, keys) if meanings is None else _checked(meanings)
    places = np.asarray(pc.index_in(column, value_set=values))
    if unknown := [key for key in keys if key not in meant]:
        row = int(np.argmax(places == keys.index(unknown[0])))
        raise given.wrong(
            row,
            f"{name} must be one of {', '.join(meant)} (found {_shown(unknown[0])}; in all: "
            f"{_listed(keys)}). {_advice(keys, unknown[0])}",
        )
    positions: NDArray[np.int8] = np.array([LABELS.index(meant[key]) for key in keys], np.int8)
    found: NDArray[np.int8] = positions[places]
    return found


def _usual(given: Given, name: str, keys: list[str]) -> Mapping[str, str]:
    if name == "gain":
        return GAINS
    if name != "grade":
        return dict(zip(LABELS, LABELS, strict=True))
    if set(keys) <= {"0", "1"}:
        raise PipelineError(
            f"{given.where}: the grades are only {_listed(keys)}, and 1 may be the best grade or, "
            f"as pipeline.trec writes it, a complement. {_advice(['1', '0'], '1', 'EI')}"
        )
    return GRADES


def _checked(meanings: Meanings) -> dict[str, str]:
    if not isinstance(meanings, Mapping) or not meanings:
        raise PipelineError(
            f"labels: must give each value a label (found {shorten(meanings)}). Give a dict."
        )
    found: dict[str, str] = {}
    for own, label in meanings.items():
        if label not in LABELS:
            raise PipelineError(
                f"labels: {shorten(own)} must mean one of {', '.join(LABELS)} (found "
                f"{shorten(label)}). Correct it."
            )
        if (key := _key(own)) in found:
            raise PipelineError(f"labels: {shorten(own)} is given twice, as {key}. Keep one.")
        found[key] = label
    return found


def _advice(keys: list[str], unknown: str, example: str = "ESCI") -> str:
    """Return how to say what values mean: an example of all, where they are numbers."""
    try:
        shown = list(zip(sorted(keys, key=float, reverse=True), example, strict=False))
    except ValueError:
        shown = [(unknown, "E")]
    shown = [(named_as(key), label) for key, label in shown]
    pairs = ", ".join(f"{key!r}: {label!r}" for key, label in shown)
    options = " ".join(f"--label {shlex.quote(f'{key}={label}')}" for key, label in shown)
    return (
        f"Say what each value means, such as labels={{{pairs}}}, or {options} (E exact, S "
        "substitute, C complement, I irrelevant)."
    )


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - _MOST_SHOWN} more" if len(keys) > _MOST_SHOWN else ""
    return ", ".join(map(_shown, sorted(keys)[:_MOST_SHOWN])) + more


def _shown(key: str) -> str:
    return shorten(key).strip("'")


def _key(value: object) -> str:
    """Return a value as text, equal numbers in one way: 1, 1.0 and "1"; all digits count."""
    text = str(value)
    if not _NUMBER.fullmatch(text):
        return text
    digits = format(Decimal(text), "f")
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return digits if Decimal(digits) else "0"
