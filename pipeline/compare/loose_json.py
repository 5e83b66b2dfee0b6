"""JSON of a revision, which may be missing, damaged or of any form: what is not there is None."""

import json
import math
from typing import Any


def parse(data: bytes | None) -> Any:
    """Return what a file holds."""
    try:
        return json.loads(data or b"null")
    except (ValueError, RecursionError):
        return None


def value_at(data: Any, *keys: str) -> Any:
    """Return the value under keys within keys."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def number_at(data: Any, *keys: str) -> float | None:
    """Return the finite number under keys within keys."""
    value = value_at(data, *keys)
    try:
        return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
    except OverflowError:
        return None
