"""Single fields out of the clean products' texts: titles to show, brands to look for."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import tables
from pipeline.core.arrays import Ints
from pipeline.core.errors import PipelineError
from pipeline.core.field_ends import field_bounds, field_ends
from pipeline.core.params import Clean

BRAND = "product_brand"
TITLE_CHARACTERS = 200
BATCH_ROWS = 16_384


def first_ends(ends: Ints) -> Ints:
    """Return where the first field that holds anything ends, [texts]; `ends` [texts, fields]."""
    first = np.argmax(ends > 0, axis=1)
    return np.asarray(ends[np.arange(len(ends)), first])


@dataclass(frozen=True)
class FieldBatch:
    """Single fields of some thousand products, in the order of their rows.

    Attributes:
        ids: the product_ids.
        titles: of each text the first field that holds anything, perhaps cut.
        values: the fields that were asked for, by name; empty where a product lacks one. Fields
            that the texts are not made of are not there.
    """

    ids: pa.ChunkedArray
    titles: list[str]
    values: Mapping[str, list[str]]


def iter_fields(
    path: Path,
    settings: Clean,
    names: Collection[str],
    remedy: str,
    title_characters: int | None = TITLE_CHARACTERS,
) -> Iterator[FieldBatch]:
    """Yield single fields of all products, in bounded memory.

    Args:
        path: the clean products.
        settings: which fields the texts were made of.
        names: the fields beside the title.
        remedy: a sentence that says what brings the file back; messages end with it.
        title_characters: where titles are cut; None for nowhere.

    Raises:
        PipelineError: the table is missing, damaged, or of another number of fields.
    """
    places = {name: settings.fields.index(name) for name in names if name in settings.fields}
    for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
        ends = field_ends(batch)
        if ends.shape[1] != len(settings.fields):
            raise PipelineError(
                f"{path}: the texts are of {ends.shape[1]} fields, but clean.fields has "
                f"{len(settings.fields)}. {remedy}"
            )
        stops = first_ends(ends)
        if title_characters is not None:
            stops = np.minimum(stops, title_characters)
        # Only the part that is read: a text is a kilobyte, and there are a million.
        longest = max(stops.max(), *(ends[:, place].max() for place in places.values()), 0)
        texts = pc.utf8_slice_codeunits(batch["text"], 0, int(longest)).to_pylist()
        yield FieldBatch(
            batch["product_id"],
            [text[:stop] for text, stop in zip(texts, stops.tolist(), strict=True)],
            {
                name: list(map(_slice, texts, *field_bounds(ends, place, settings.separator)))
                for name, place in places.items()
            },
        )


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
    titles: dict[int, str] = {}
    brands: set[str] = set()
    done = 0
    for batch in iter_fields(path, settings, [BRAND], remedy):
        of_batch = shown[slice(*np.searchsorted(shown, [done, done + len(batch.ids)]))]
        titles |= {row: batch.titles[row - done] for row in of_batch.tolist()}
        brands.update(batch.values.get(BRAND, ()))
        done += len(batch.ids)
    return titles, brands - {""} if BRAND in settings.fields else None
