"""The card of a system's runs, `run.json`: what the runs are, of which ids and contents."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, get_args

import pyarrow as pa
from pydantic import Field

from pipeline.core import files, layout, tables
from pipeline.core.cards import check_hash, read_model, refuse_differences
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.param_types import Name, Strict
from pipeline.core.params import Index
from pipeline.runs.inputs import Ids

RUN_SCHEMA = 4
"""Version of run.json; older artefacts are refused, and `dvc repro` rewrites them."""

RANDOM = "random"
"""Shown with the systems; it has no run, but the exact expectation of each measure."""

Track = Literal["catalogue", "pool"]
TRACKS: tuple[Track, ...] = get_args(Track)
"""The runs of a system: of the whole catalogue, and of each query's judged products."""

STAGE_OF: Mapping[str, str] = {
    "dense": "retrieve",
    "bm25": "bm25",
    "hybrid": "hybrid",
    "rerank": "rerank",
}
"""The stage that writes each system's runs; those of other engines, `OTHERS` does."""

OTHERS = "systems"

INDEX_OVERLAP = "index_overlap@100"
"""The name of `RunCard.index_overlap` in the metrics."""

OVERLAP_DECIMALS = 5
"""How many decimals it has, and so its difference from 1."""

OVERLAP_QUERIES = 1_000
"""How many queries it is measured on, at most: its mean is then known to about 0.005."""

INDEX_SETTINGS = "index_settings"
"""The key under which the metrics have what `index_settings` returns."""

NOT_MEASURED = "not_measured"
"""The key that says in a locale's metrics why there are no measures."""

NO_JUDGEMENTS = "there are no judgements"
"""Its value for a catalogue that is only searched."""


class RunCard(Strict):
    """What runs are: their system and what it was made `of`, their depth, ids and contents.

    `index_overlap`, where the system searches an index, is the share of the exact top 100 that the
    index finds, rounded to `OVERLAP_DECIMALS` (see `neighbours.index_overlap`).
    """

    run_schema: int
    system: Name
    of: dict[str, str]
    depth: Annotated[int, Field(ge=1)]
    index_overlap: Annotated[float, Field(ge=0, le=1)] | None
    query_ids_sha256: str
    product_ids_sha256: str
    catalogue_sha256: str
    pool_sha256: str


def of_index(name: str, settings: Index) -> dict[str, str]:
    """Return what `RunCard.of` says of an index: its name, and each of its settings."""
    dumped = settings.model_dump(mode="json").items()
    return {"index": name} | {f"index.{key}": str(value) for key, value in dumped}


def index_settings(of: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of the index in what `of_index` returns, as texts."""
    return {
        key.removeprefix("index."): value for key, value in of.items() if key.startswith("index.")
    }


def other_setting(measured: Mapping[str, Any], wanted: Mapping[str, str]) -> str:
    """Say which setting of an index the metrics have otherwise than `wanted`; "" if none."""
    for key in sorted(wanted.keys() | measured.keys()):
        found, expected = measured.get(key), wanted.get(key)
        if found != expected:
            must = "not be there" if expected is None else f"be {expected}"
            shown = "nothing" if found is None else shorten(found).strip("'")
            name = key if key.isidentifier() else shorten(key)
            return f"{INDEX_SETTINGS}.{name} must {must} (found {shown})"
    return ""


def rerun_hint(system: str, locale: str) -> str:
    """Return what brings a system's runs back, as messages say it."""
    return layout.rerun_hint(STAGE_OF.get(system, OTHERS), locale)


def make_card(
    runs: layout.RunFiles,
    system: str,
    of: Mapping[str, str],
    depth: int,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    index_overlap: float | None = None,
) -> RunCard:
    """Return the card of a system's runs, over these query and product ids."""
    return RunCard(
        run_schema=RUN_SCHEMA,
        system=system,
        of=dict(of),
        depth=depth,
        index_overlap=index_overlap,
        query_ids_sha256=tables.ids_sha256(queries),
        product_ids_sha256=tables.ids_sha256(products),
        catalogue_sha256=files.sha256_file(runs.catalogue),
        pool_sha256=files.sha256_file(runs.pool),
    )


def read_card(
    runs: layout.RunFiles,
    system: str,
    queries: pa.ChunkedArray,
    products: pa.ChunkedArray,
    remedy: str,
) -> RunCard:
    """Read the card of a system's runs, and check that the runs are those that it is of.

    Raises:
        PipelineError: card or run is missing, the card is not of this version's form, or the runs
            are of another system or of other queries or products than these; or a run is damaged or
            was edited: then the message names its file.
    """
    path = runs.card
    found = read_model(path, RunCard, remedy, ("run_schema", RUN_SCHEMA))
    ids = {
        "query_ids_sha256": tables.ids_sha256(queries),
        "product_ids_sha256": tables.ids_sha256(products),
    }
    for expected, other in (({"system": system}, "of another system"), (ids, "of other tables")):
        said = found.model_dump(include=set(expected))
        why = f"the runs are {other}, or the card was edited"
        refuse_differences(path, said, expected, why, remedy)
    for run, sha256 in (
        (runs.catalogue, found.catalogue_sha256),
        (runs.pool, found.pool_sha256),
    ):
        check_hash(run, sha256, path, remedy)
    return found


def read_cards(
    locale: str, systems: Iterable[str], ids: Ids, depth: int | None = None
) -> dict[str, RunCard]:
    """Read the cards of some systems' runs of a locale.

    Raises:
        PipelineError: as `read_card`, or a `depth` is given and runs are of another one.
    """
    cards = {}
    for system in systems:
        runs, remedy = layout.runs(system, locale), rerun_hint(system, locale)
        card = cards[system] = read_card(runs, system, ids.queries, ids.products, remedy)
        if depth is not None and card.depth != depth:
            raise PipelineError(
                f"{runs.card}: the runs are {card.depth} deep, but retrieve.depth is {depth}. "
                f"{remedy}"
            )
    return cards
