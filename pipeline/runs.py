"""A system's runs of one locale: the card that says what they are, beside the run files."""

from pathlib import Path

import pyarrow as pa
from pydantic import ValidationError

from pipeline import files, tables
from pipeline.errors import PipelineError
from pipeline.params import Strict

SCHEMA = 1
"""Version of run.json; older artefacts are refused, and `dvc repro` rewrites them."""


class RunCard(Strict):
    """What runs are: their encoder's and index's names, their depth, ids and contents."""

    run_schema: int
    encoder: str
    index: str
    depth: int
    query_ids_sha256: str
    product_ids_sha256: str
    catalogue_sha256: str
    pool_sha256: str


def card(
    folder: Path,
    encoder: str,
    index: str,
    depth: int,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
) -> RunCard:
    """Return the card of the runs in `folder`, over these queries and products."""
    return RunCard(
        run_schema=SCHEMA,
        encoder=encoder,
        index=index,
        depth=depth,
        query_ids_sha256=tables.ids_sha256(queries),
        product_ids_sha256=tables.ids_sha256(products),
        catalogue_sha256=files.sha256_file(folder / "catalogue.parquet"),
        pool_sha256=files.sha256_file(folder / "pool.parquet"),
    )


def write_card(folder: Path, written: RunCard) -> None:
    """Write the card of the runs in `folder`."""
    files.write_json(folder / "run.json", written.model_dump(mode="json"))


def read_card(
    folder: Path, queries: pa.ChunkedArray, products: pa.ChunkedArray, remedy: str
) -> RunCard:
    """Read the card of the runs in `folder`.

    Raises:
        PipelineError: card or run is missing, the card is not of this version's form, the runs are
            of other queries or products than these, or were edited.
    """
    path = folder / "run.json"
    try:
        found = RunCard.model_validate(files.read_json(path, remedy))
    except ValidationError as err:
        raise PipelineError(f"{path}: {err.errors()[0]['msg']}; {remedy}") from err
    try:
        expected = card(folder, found.encoder, found.index, found.depth, queries, products)
    except FileNotFoundError as err:
        raise PipelineError(f"{err.filename} is missing; {remedy}") from err
    for key, value in expected.model_dump().items():
        if (told := getattr(found, key)) != value:
            raise PipelineError(
                f"{path}: {key} is {str(told)[:12]}, but {str(value)[:12]} is found: the runs are "
                f"of other tables, or were edited; {remedy}"
            )
    return found
