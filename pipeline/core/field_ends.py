"""Where single fields are in the clean products' texts."""

import numpy as np
import pyarrow as pa

from pipeline.core.arrays import Ints


def field_ends(products: pa.Table) -> Ints:
    """Return where the texts' fields end, [texts, fields]; for some rows of the clean products."""
    ends = products["field_ends"].combine_chunks().flatten().to_numpy()
    return np.asarray(ends.reshape(len(products), -1))


def field_bounds(ends: Ints, place: int, separator: str) -> tuple[list[int], list[int]]:
    """Return where one field of some texts starts and stops; both are the same where it is empty.

    Args:
        ends: where the texts' fields end, as `field_ends` returns them, [texts, fields].
        place: which field.
        separator: what is between fields that hold anything.
    """
    stops = ends[:, place]
    starts = ends[:, place - 1] if place else np.zeros_like(stops)
    after = np.where(starts > 0, starts + len(separator), 0)
    return np.where(starts == stops, stops, after).tolist(), stops.tolist()
