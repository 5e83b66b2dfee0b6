"""Single fields out of the clean products' texts: titles to show, brands to look for."""

from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.field_ends import field_bounds
from pipeline.core.params import Clean
from pipeline.evaluate.judged_run import Ints

TITLE_CHARACTERS = 200
BATCH_ROWS = 16_384


def first_ends(ends: Ints) -> Ints:
    """Return where the first field that holds anything ends in each text; `ends` as below."""
    first = np.argmax(ends > 0, axis=1)
    return np.asarray(ends[np.arange(len(ends)), first])


def _slice(text: str, start: int, stop: int) -> str:
    return text[start:stop]


def read_shown(
    path: Path, shown: Ints, settings: Clean, remedy: str
) -> tuple[dict[int, str], set[str] | None]:
    """Read what is shown of products, and all brands, some thousands of products at a time.

    Args:
        path: the clean products.
        shown: the rows of the products to show, ascending.
        settings: which fields the texts were made of.
        remedy: a sentence that says what brings the file back; messages end with it.

    Returns:
        The titles of the shown rows, the first field in 200 characters at most; all brands, or
        None where the texts have no such field.
    """
    place = settings.fields.index("product_brand") if "product_brand" in settings.fields else None
    titles: dict[int, str] = {}
    brands: set[str] = set()
    done = 0
    for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
        ends = batch["field_ends"].combine_chunks().flatten().to_numpy().reshape(len(batch), -1)
        # Only the part that is read: a text is a kilobyte, and there are a million.
        longest = int(max(TITLE_CHARACTERS, 0 if place is None else ends[:, place].max()))
        texts = pc.utf8_slice_codeunits(batch["text"], 0, longest).to_pylist()
        of_batch = shown[slice(*np.searchsorted(shown, [done, done + len(batch)]))]
        stops = np.minimum(first_ends(ends), TITLE_CHARACTERS)
        for row, stop in zip(of_batch.tolist(), stops[of_batch - done].tolist(), strict=True):
            titles[row] = texts[row - done][:stop]
        if place is not None:
            brands.update(map(_slice, texts, *field_bounds(ends, place, settings.separator)))
        done += len(batch)
    return titles, None if place is None else brands - {""}
