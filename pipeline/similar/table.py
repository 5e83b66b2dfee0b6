"""The table of neighbours and its card: `neighbours.parquet`, `neighbours.json`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from pipeline.core import files, layout, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.cards import check_hash, read_model, refuse_differences
from pipeline.core.param_types import Sha256, Strict
from pipeline.core.params import Index, Params, Similarity
from pipeline.runs import ranking
from pipeline.vectors.manifest import Manifest

NEIGHBOURS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("neighbour_id", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("rank", pa.int32(), nullable=False),
        pa.field("product_row", pa.int32(), nullable=False),
        pa.field("neighbour_row", pa.int32(), nullable=False),
    ]
)
"""Each product's nearest others: score rounded to 1e-6, rank from 1; sorted by product and rank.
The rows are those of the clean products."""

SIMILAR_SCHEMA = 1
"""Version of neighbours.json; older artefacts are refused, and `dvc repro` rewrites them."""


class SimilarCard(Strict):
    """What the neighbours are: of which vectors, found by which index, how many at most."""

    similar_schema: int
    encoder: str
    index: str
    settings: Index
    similarity: Similarity
    neighbours: Annotated[int, Field(ge=1)]
    product_ids_sha256: Sha256
    vectors_sha256: Sha256
    neighbours_sha256: Sha256


def make_card(
    params: Params, locale: str, manifest: Manifest, *, neighbours_sha256: str
) -> SimilarCard:
    """Return the card of the neighbours that `similar` finds in the vectors of `manifest`."""
    return SimilarCard(
        similar_schema=SIMILAR_SCHEMA,
        encoder=params.encoder[locale],
        index=params.index[locale],
        settings=params.index_of(locale),
        similarity=params.encoder_of(locale).similarity,
        neighbours=params.similar.neighbours,
        product_ids_sha256=manifest.products.ids_sha256,
        vectors_sha256=manifest.products.sha256(),
        neighbours_sha256=neighbours_sha256,
    )


class NeighboursWriter:
    """Writes the table of neighbours, some products at a time."""

    def __init__(self, file: pq.ParquetWriter, ids: pa.ChunkedArray) -> None:
        self._file = file
        self._ids = ids

    def add(self, rows: Ints, scores: Floats, codes: Ints) -> None:
        """Add the neighbours of whole products, as `nearest_products` yields them."""
        place, column = np.nonzero(codes != ranking.NO_PRODUCT)
        if not len(place):
            return
        products, found = rows[place], codes[place, column]
        table = pa.table(
            {
                "product_id": self._ids.take(pa.array(products)),
                "neighbour_id": self._ids.take(pa.array(found)),
                "score": scores[place, column].astype(np.float32),
                "rank": (column + 1).astype(np.int32),
                "product_row": products.astype(np.int32),
                "neighbour_row": found.astype(np.int32),
            }
        )
        self._file.write_table(table.cast(NEIGHBOURS), row_group_size=len(place))


@contextmanager
def write_neighbours(
    params: Params, locale: str, manifest: Manifest, ids: pa.ChunkedArray
) -> Iterator[NeighboursWriter]:
    """Yield what writes a locale's neighbours; table and card are in place if the block succeeds.

    Args:
        params: the choices, for the card.
        locale: whose products they are.
        manifest: of the vectors that were compared.
        ids: all product_ids, in the order of rows.
    """
    with files.atomic_directory(layout.similar(locale).folder) as folder:
        out = layout.SimilarFiles(folder)
        with pq.ParquetWriter(out.neighbours, NEIGHBOURS, **tables.WRITE_OPTIONS) as file:
            yield NeighboursWriter(file, ids)
        digest = files.sha256_file(out.neighbours)
        card = make_card(params, locale, manifest, neighbours_sha256=digest)
        files.write_json(out.card, card.model_dump(mode="json"))


def check_neighbours(params: Params, locale: str, manifest: Manifest) -> SimilarCard:
    """Check that a locale's neighbours are whole and of these vectors; return their card.

    Raises:
        PipelineError: table or card is missing or edited, or they are of other vectors or settings.
    """
    found, remedy = layout.similar(locale), layout.rerun_hint("similar", locale)
    card = read_model(found.card, SimilarCard, remedy, ("similar_schema", SIMILAR_SCHEMA))
    expected = make_card(params, locale, manifest, neighbours_sha256=card.neighbours_sha256)
    why = "the neighbours are of other vectors or settings"
    refuse_differences(found.card, card.model_dump(), expected.model_dump(), why, remedy)
    check_hash(found.neighbours, card.neighbours_sha256, found.card, remedy)
    return card


def iter_neighbours(locale: str) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Yield the rows of products and of their neighbours, and the scores, in pieces.

    The table is checked first by `check_neighbours`.

    Raises:
        PipelineError: the table is missing or damaged.
    """
    path, remedy = layout.similar(locale).neighbours, layout.rerun_hint("similar", locale)
    columns = "product_row", "neighbour_row", "score"
    for piece in tables.iter_row_groups(path, NEIGHBOURS, remedy, columns):
        products, found, scores = (piece[name].to_numpy() for name in columns)
        yield (
            products.astype(np.int64),
            found.astype(np.int64),
            np.round(scores.astype(np.float64), ranking.SCORE_DECIMALS),
        )
