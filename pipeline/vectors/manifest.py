"""The manifest of a locale's vectors: what they are, and what they were made with."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import pyarrow as pa
from pydantic import Field, model_validator

from pipeline.core import files, layout, tables
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.contract import contract_of
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.param_types import Number, Sha256, Strict
from pipeline.core.params import Params

Kind = Literal["products", "queries"]

Dtype = Literal["float32", "float16"]

MOST_ROWS = 2**40
"""More rows than any disk holds: a larger number in a manifest is damage."""

Rows = Annotated[int, Field(ge=1, le=MOST_ROWS)]

MANIFEST_SCHEMA = 3
"""Version of the manifest. Other versions are refused; `dvc repro` rewrites them."""


class Shard(Strict):
    """One .npy file; its rows follow those of the shard before."""

    file: str
    rows: Rows
    sha256: Sha256


class Side(Strict):
    """All shards of the products or the queries; row i belongs to row i of the clean table.

    `table_sha256` is of the file of that table: of the texts, and not of their ids alone.
    """

    rows: Annotated[int, Field(ge=0, le=MOST_ROWS)]
    ids_sha256: Sha256
    table_sha256: Sha256
    shards: tuple[Shard, ...]

    @model_validator(mode="after")
    def _shards_hold_all_rows(self) -> Self:
        if (held := sum(shard.rows for shard in self.shards)) != self.rows:
            raise ValueError(f"the shards hold {held} rows, not {self.rows}")
        return self

    def sha256(self) -> str:
        """Return a hash of the shards' hashes in order, which identifies the vectors."""
        return files.sha256_lines(shard.sha256 for shard in self.shards)


class Cut(Strict):
    """How many tokens max_tokens cut off, and how many texts lost any."""

    texts_cut: Number
    tokens_cut: Number

    @model_validator(mode="after")
    def _each_text_cut_lost_a_token(self) -> Self:
        if self.texts_cut > self.tokens_cut or (self.tokens_cut and not self.texts_cut):
            raise ValueError(f"{self.tokens_cut} tokens were cut off {self.texts_cut} texts")
        return self


class SideCut(Cut):
    """What max_tokens cut off the texts of one side, and off which of their fields.

    Attributes:
        texts: how many texts there are, one per row.
        tokens: how many tokens they have before the cut, prefix and special tokens included.
        fields: the cuts by the field that a token begins in: those of clean.fields, or `query`.
    """

    texts: Number
    tokens: Number
    fields: Annotated[dict[str, Cut], Field(min_length=1)]

    @model_validator(mode="after")
    def _nothing_is_cut_twice_or_from_nowhere(self) -> Self:
        if self.texts_cut > self.texts or self.tokens_cut > self.tokens:
            raise ValueError(
                f"{self.texts_cut} of {self.texts} texts and {self.tokens_cut} of {self.tokens} "
                "tokens were cut"
            )
        lost = sum(field.tokens_cut for field in self.fields.values())
        if lost != self.tokens_cut:
            raise ValueError(f"the fields lost {lost} tokens, the texts {self.tokens_cut}")
        return self


class Truncation(Strict):
    """What max_tokens cut off a locale's texts."""

    products: SideCut
    queries: SideCut


class Manifest(Strict):
    """What the vectors of one locale are, and what they were made with.

    `engine` names what computed them and the kind of device, such as "openvino-cpu".
    """

    manifest_schema: int
    locale: str
    encoder: str
    contract: dict[str, Any]
    weights_sha256: Sha256
    engine: Annotated[str, Field(pattern=r"^[a-z]+-[a-z]+$")]
    dimension: Annotated[int, Field(ge=1, le=65_536)]
    dtype: Dtype
    truncation: Truncation
    products: Side
    queries: Side

    @model_validator(mode="after")
    def _truncation_is_of_all_rows(self) -> Self:
        for kind in get_args(Kind):
            texts, rows = getattr(self.truncation, kind).texts, self.side(kind).rows
            if texts != rows:
                raise ValueError(f"truncation counts {texts} {kind}, but there are {rows}")
        return self

    @model_validator(mode="after")
    def _shards_are_numbered_in_order(self) -> Self:
        for kind in get_args(Kind):
            for number, shard in enumerate(self.side(kind).shards):
                expected = layout.EmbeddingFiles(Path()).shard(kind, number).name
                if shard.file != expected:
                    raise ValueError(
                        f"shard {number} of {kind} must be {expected}, not {shorten(shard.file)}"
                    )
        return self

    def side(self, kind: Kind) -> Side:
        """Return the products' or the queries' shards."""
        return self.products if kind == "products" else self.queries

    def vectors_sha256(self) -> dict[str, str]:
        """Return the hashes of both sides' vectors, by their keys in other cards."""
        return {
            "product_vectors_sha256": self.products.sha256(),
            "query_vectors_sha256": self.queries.sha256(),
        }


def side_of(ids: pa.ChunkedArray, table_sha256: str, shards: tuple[Shard, ...]) -> Side:
    """Bind shards to the clean table whose rows they encode, and to its ids."""
    return Side(
        rows=len(ids), ids_sha256=tables.ids_sha256(ids), table_sha256=table_sha256, shards=shards
    )


def read_manifest(params: Params, locale: str) -> Manifest:
    """Read a locale's manifest.

    Raises:
        PipelineError: it is missing, not of this version or form, or of another encoder than
            in `params`.
    """
    path, remedy = layout.embeddings(locale).manifest, layout.rerun_hint("embed", locale)
    manifest = read_model(path, Manifest, remedy, ("manifest_schema", MANIFEST_SCHEMA))
    choice = {"locale": locale, "encoder": params.encoder[locale]}
    expected = {**choice, **contract_of(params.encoder_of(locale))}
    found = {"locale": manifest.locale, "encoder": manifest.encoder, **manifest.contract}
    why = "the vectors are of another encoder or locale"
    refuse_differences(path, found, expected, why, remedy)
    return manifest


def check_ids(manifest: Manifest, kind: Kind, ids: pa.ChunkedArray, locale: str) -> None:
    """Check that vectors belong to these ids, row by row, and to their texts.

    Raises:
        PipelineError: they were made from other rows, in another order, or as `check_texts`.
    """
    side = manifest.side(kind)
    found = tables.ids_sha256(ids)
    if (side.rows, side.ids_sha256) != (len(ids), found):
        raise PipelineError(
            f"{layout.embeddings(locale).folder}: the {kind} vectors are of {side.rows} rows with "
            f"ids {side.ids_sha256[:12]}, but {layout.clean(locale).folder} has {len(ids)} rows "
            f"with ids {found[:12]}. {layout.rerun_hint('embed', locale)}"
        )
    check_texts(manifest, kind, locale)


def check_texts(manifest: Manifest, kind: Kind, locale: str) -> None:
    """Check that vectors were made from the clean table that is there: its rows and its texts.

    Raises:
        PipelineError: they were not, or the table is missing.
    """
    side, path = manifest.side(kind), layout.clean(locale).side(kind)
    now = hash_table(path, layout.rerun_hint("clean", locale))
    if now != side.table_sha256:
        raise PipelineError(
            f"{layout.embeddings(locale).manifest}: the {kind} vectors are of other texts "
            f"({side.table_sha256[:12]}) than {path} has ({now[:12]}). "
            f"{layout.rerun_hint('embed', locale)}"
        )


def hash_table(path: Path, remedy: str) -> str:
    """Return the SHA-256 of a clean table's file.

    Raises:
        PipelineError: it is missing or not a file; the message ends with `remedy`.
    """
    files.check_regular(path, remedy)
    return files.sha256_file(path)
