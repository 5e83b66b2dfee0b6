"""Where single fields are in the clean products' texts."""

import numpy as np

from pipeline.core.arrays import Ints


def field_bounds(ends: Ints, place: int, separator: str) -> tuple[list[int], list[int]]:
    """Return where one field of some texts starts and stops; both are the same where it is empty.

    Args:
        ends: where the texts' fields end, as `join_fields` made them, [texts, fields].
        place: which field.
        separator: what is between fields that hold anything.
    """
    stops = ends[:, place]
    starts = ends[:, place - 1] if place else np.zeros_like(stops)
    after = np.where(starts > 0, starts + len(separator), 0)
    return np.where(starts == stops, stops, after).tolist(), stops.tolist()
