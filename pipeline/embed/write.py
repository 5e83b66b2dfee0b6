"""The shards of one side, read from the store, and the count of what max_tokens cut off."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.core.params import Embed
from pipeline.embed.fill import SideEncoder, Survey
from pipeline.encoders.dimension import check_dimension, warn_of_cut
from pipeline.vectors.lengths import apply_contract
from pipeline.vectors.manifest import Cut, Side, SideCut, side_of
from pipeline.vectors.shards import ShardWriter


def write_shards(
    side: SideEncoder, survey: Survey, table_sha256: str, out: Path, settings: Embed
) -> tuple[Side, SideCut]:
    """Write the shards of a side whose store is filled, each vector as its entry says.

    Args:
        side: the side.
        survey: of all its texts.
        table_sha256: of the table that holds them, as it was before the first was read.
        out: the folder for the shards.
        settings: the form of the shards.

    Returns:
        The side as the manifest lists it, and what max_tokens cut off its texts.

    Raises:
        PipelineError: the entry's dimension is not one of the model's, a vector is zero or does
            not fit in the shards' type, or as `SideEncoder.read`.
    """
    encoder, table = side.encoder, side.table
    if survey.texts:  # of no text, no width is known
        check_dimension(encoder.spec, encoder.weights, side.width)
    if table.kind == "products":  # once per locale
        warn_of_cut(encoder.spec, encoder.weights, side.width)
    writer = ShardWriter(out, table.kind, survey.texts, side.dimension, settings)
    cuts = _CutCounter(table.fields)
    ids: list[pa.Array] = []
    for window in table.windows():
        ids += window.ids.chunks
        raw, counts = side.read(window)

        def name(row: int, start: int = window.start) -> str:
            return f"{encoder.weights.entry}: row {start + row} of {table.path}"

        writer.add(apply_contract(raw, encoder.spec, name))
        cuts.add(counts)
    return side_of(_joined(ids), table_sha256, writer.finish()), cuts.total()


def _joined(ids: list[pa.Array]) -> pa.ChunkedArray:
    """Return ids in one column; a source without judgements has no queries, and so none."""
    return pa.chunked_array(ids, None if ids else pa.int64())


class _CutCounter:
    """Adds up the token counts of a side's texts."""

    def __init__(self, fields: tuple[str, ...]) -> None:
        self._fields = fields
        self._texts = self._tokens = self._texts_cut = 0
        self._field_tokens = np.zeros(len(fields), dtype=np.int64)
        self._field_texts = np.zeros(len(fields), dtype=np.int64)

    def add(self, counts: NDArray[np.int32]) -> None:
        """Add the counts of some texts; see `SideEncoder`."""
        cut = counts[:, 1:]
        self._texts += len(counts)
        self._tokens += int(counts[:, 0].sum())
        self._texts_cut += int(cut.any(axis=1).sum())
        self._field_tokens += cut.sum(axis=0)
        self._field_texts += np.count_nonzero(cut, axis=0)

    def total(self) -> SideCut:
        """Return the sums as the manifest has them."""
        each = zip(
            self._fields, self._field_texts.tolist(), self._field_tokens.tolist(), strict=True
        )
        return SideCut(
            texts=self._texts,
            texts_cut=self._texts_cut,
            tokens=self._tokens,
            tokens_cut=int(self._field_tokens.sum()),
            fields={name: Cut(texts_cut=texts, tokens_cut=cut) for name, texts, cut in each},
        )
