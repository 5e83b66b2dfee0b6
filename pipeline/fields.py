"""Single fields out of the clean products' texts: titles to show, brands to look for."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from pipeline import tables
from pipeline.judging import Ints
from pipeline.params import Clean

TITLE_CHARACTERS = 200
BATCH_ROWS = 16_384


def first_field(text: str, ends: Sequence[int]) -> str:
    """Return the first field that holds anything; `ends` as in `tables.PRODUCTS`."""
    return text[: next(end for end in ends if end)]


def field_at(text: str, ends: Sequence[int], place: int, separator: str) -> str:
    """Return one field of a text, empty where the product has none.

    Args:
        text: as `text.join_fields` made it.
        ends: where its fields end.
        place: which one.
        separator: what stands between fields that hold anything.
    """
    start = ends[place - 1] if place else 0
    if start == ends[place]:
        return ""
    return text[start + len(separator) * (start > 0) : ends[place]]


def read_shown(
    path: Path, shown: Ints, settings: Clean, remedy: str
) -> tuple[dict[int, str], set[str] | None]:
    """Read what is shown of products, and all brands, some thousands of products at a time.

    Args:
        path: the clean products.
        shown: the rows of the products to show, ascending.
        settings: what the texts were made of.
        remedy: what brings the file back; part of messages.

    Returns:
        The titles of the shown rows, the first field in 200 characters at most; all brands, or
        None where they are no field of the texts.
    """
    place = settings.fields.index("product_brand") if "product_brand" in settings.fields else None
    titles: dict[int, str] = {}
    brands: set[str] = set()
    done = 0
    for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
        ends = batch["field_ends"].combine_chunks().flatten().to_numpy().reshape(len(batch), -1)
        # No more of a text than is looked at: it is a kilobyte, and there are a million.
        longest = int(max(TITLE_CHARACTERS, 0 if place is None else ends[:, place].max()))
        texts = pc.utf8_slice_codeunits(batch["text"], 0, longest).to_pylist()
        of_batch = shown[slice(*np.searchsorted(shown, [done, done + len(batch)]))]
        for row in of_batch.tolist():
            title = first_field(texts[row - done], ends[row - done].tolist())
            titles[row] = title[:TITLE_CHARACTERS]
        if place is not None:
            separator = settings.separator
            for text, of_text in zip(texts, ends[:, : place + 1].tolist(), strict=True):
                brands.add(field_at(text, of_text, place, separator))
        done += len(batch)
    return titles, None if place is None else brands - {""}
