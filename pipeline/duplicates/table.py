"""The table of groups and its card: `groups.parquet`, `groups.json`."""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core import files, layout, tables
from pipeline.core.arrays import Floats, Ints
from pipeline.core.cards import check_hash, read_model, refuse_differences
from pipeline.core.param_types import Sha256, Strict
from pipeline.core.params import Duplicates, Params
from pipeline.similar.table import SimilarCard, make_card
from pipeline.vectors.manifest import Manifest

GROUPS = pa.schema(
    [
        pa.field("product_id", pa.string(), nullable=False),
        pa.field("group", pa.int32(), nullable=False),
        pa.field("kept", pa.bool_(), nullable=False),
        pa.field("kept_id", pa.string(), nullable=False),
        pa.field("cosine", pa.float32(), nullable=False),
        pa.field("text", pa.float32(), nullable=False),
        pa.field("why", pa.string(), nullable=False),
        pa.field("product_row", pa.int32(), nullable=False),
        pa.field("kept_row", pa.int32(), nullable=False),
    ]
)
"""The products of groups of two or more; sorted by group, the kept one first, then by product.
`cosine` and `text` compare a product with the one that is kept. `why`: kept, equal text, near
text."""

KEPT, EQUAL, NEAR = "kept", "equal text", "near text"

DUPLICATES_SCHEMA = 2
"""Version of groups.json; older artefacts are refused, and `dvc repro` rewrites them."""


class Groups(NamedTuple):
    """The members of all groups: rows of products, [members], as `GROUPS` is sorted."""

    product: Ints
    kept: Ints
    cosine: Floats
    text: Floats
    equal: NDArray[np.bool_]

    def numbers(self) -> Ints:
        """Return the number of each member's group, from 0."""
        return np.unique(self.kept, return_inverse=True)[1].astype(np.int64)

    def why(self) -> list[str]:
        """Return why each member is in its group."""
        reason = np.where(self.equal, EQUAL, NEAR)
        reason[self.product == self.kept] = KEPT
        return [str(each) for each in reason]


class DuplicatesCard(Strict):
    """What the groups are: by which settings and threshold, of which products and neighbours.

    `table_sha256` is of the clean products, and `neighbours` is the card of `similar`.
    """

    duplicates_schema: int
    settings: Duplicates
    cosine: float | None
    table_sha256: Sha256
    neighbours: SimilarCard
    groups_sha256: Sha256


def write_groups(
    params: Params,
    locale: str,
    ids: pa.ChunkedArray,
    found: Groups,
    cosine: float | None,
    table_sha256: str,
    neighbours: SimilarCard,
) -> None:
    """Write a locale's groups and their card.

    Args:
        params: the settings.
        locale: whose products they are.
        ids: all product_ids, in the order of rows.
        found: the groups.
        cosine: their threshold.
        table_sha256: of the clean products.
        neighbours: the card of the neighbours that they were found among.
    """
    kept_ids = ids.take(pa.array(found.kept))
    table = pa.table(
        {
            "product_id": ids.take(pa.array(found.product)),
            "group": found.numbers().astype(np.int32),
            "kept": found.product == found.kept,
            "kept_id": kept_ids,
            "cosine": found.cosine.astype(np.float32),
            "text": found.text.astype(np.float32),
            "why": pa.array(found.why(), pa.string()),
            "product_row": found.product.astype(np.int32),
            "kept_row": found.kept.astype(np.int32),
        }
    )
    with files.atomic_directory(layout.duplicates(locale).folder) as folder:
        out = layout.DuplicateFiles(folder)
        tables.write_table(out.groups, table, GROUPS)
        card = DuplicatesCard(
            duplicates_schema=DUPLICATES_SCHEMA,
            settings=params.duplicates,
            cosine=cosine,
            table_sha256=table_sha256,
            neighbours=neighbours,
            groups_sha256=files.sha256_file(out.groups),
        )
        files.write_json(out.card, card.model_dump(mode="json"))


def read_kept(params: Params, locale: str, manifest: Manifest) -> Ints:
    """Return the row of the product that is kept for each product, itself where in no group.

    Args:
        params: the settings that the groups must be of.
        locale: whose groups.
        manifest: of the vectors, which `check_texts` has found to be of the clean products.

    Returns:
        Rows of the clean table, int64 [products].

    Raises:
        PipelineError: table or card is missing or edited, or they are of other products, vectors
            or settings.
    """
    found, remedy = layout.duplicates(locale), layout.rerun_hint("duplicates", locale)
    if locale not in params.explore:
        remedy = f"Add {locale} to explore in params.yaml. {remedy}"
    card = read_model(found.card, DuplicatesCard, remedy, ("duplicates_schema", DUPLICATES_SCHEMA))
    of = card.model_copy(
        update={"settings": params.duplicates, "table_sha256": manifest.products.table_sha256}
    )
    why = "the groups are of other products or settings"
    refuse_differences(found.card, card.model_dump(), of.model_dump(), why, remedy)
    digest = card.neighbours.neighbours_sha256
    neighbours = make_card(params, locale, manifest, neighbours_sha256=digest)
    why = "the groups are of other vectors or settings"
    refuse_differences(
        found.card, card.neighbours.model_dump(), neighbours.model_dump(), why, remedy
    )
    check_hash(found.groups, card.groups_sha256, found.card, remedy)
    table = tables.read_table(found.groups, GROUPS, remedy)
    kept = np.arange(manifest.products.rows)
    kept[table["product_row"].to_numpy()] = table["kept_row"].to_numpy()
    return kept
