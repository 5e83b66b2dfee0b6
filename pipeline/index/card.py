"""An index on disk: `index.faiss` and `index.json`, the card that says what is in it."""

from pathlib import Path
from typing import Any

from pipeline.core import layout
from pipeline.core.cards import check_hash, read_model, refuse_differences
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.faiss import faiss
from pipeline.core.param_types import Strict
from pipeline.core.params import Index, Params, Similarity, split_settings
from pipeline.index.kinds import set_search, unset_search
from pipeline.vectors.manifest import Manifest

INDEX_SCHEMA = 2
"""Version of index.json; older artefacts are refused, and `dvc repro` rewrites them."""


class IndexCard(Strict):
    """What an index is and which vectors are in it: index.json beside index.faiss.

    `settings` are those that it was built with; how it is searched is decided when it is read.
    """

    index_schema: int
    index: str
    settings: dict[str, str | int]
    similarity: Similarity
    dimension: int
    rows: int
    ids_sha256: str
    vectors_sha256: str
    index_sha256: str


def read_index(params: Params, locale: str, manifest: Manifest) -> faiss.Index:
    """Read a locale's index, to be searched as params.yaml says.

    It is mapped: the system loads pages as they are searched.

    Raises:
        PipelineError: it is missing, damaged, or was built from other vectors or settings.
    """
    files_of, remedy = layout.index(locale), layout.rerun_hint("index", locale)
    card = read_model(files_of.card, IndexCard, remedy, ("index_schema", INDEX_SCHEMA))
    expected = make_card(params, locale, manifest, index_sha256=card.index_sha256)
    why = "the index was built from something else"
    refuse_differences(files_of.card, card.model_dump(), expected.model_dump(), why, remedy)
    path = files_of.index
    check_hash(path, card.index_sha256, files_of.card, remedy)
    try:
        return open_index(path, params.index_of(locale))
    except RuntimeError as err:
        raise PipelineError(f"{path} cannot be read ({one_line(err)}). {remedy}") from err


def open_index(path: Path, settings: Index) -> faiss.Index:
    """Return the index of a file, to be searched as its settings say; mapped if FAISS can.

    Raises:
        RuntimeError: FAISS cannot read the file.
    """
    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    set_search(index, settings)
    return index


def is_mapped(index: faiss.Index) -> bool:
    """Say whether FAISS searches the vectors or codes of an index on disk, not a copy in memory."""
    held: Any = faiss.downcast_index(index)
    if isinstance(held, faiss.IndexPreTransform):
        held = faiss.downcast_index(held.index)
    if isinstance(held, faiss.IndexHNSW):
        held = faiss.downcast_index(held.storage)
    if isinstance(held, faiss.IndexIVF):
        return _lists_are_mapped(held)
    return isinstance(held, faiss.IndexFlatCodes) and not held.codes.is_owned


def _lists_are_mapped(index: Any) -> bool:
    lists: Any = faiss.downcast_InvertedLists(index.invlists)
    are_arrays = isinstance(lists, faiss.ArrayInvertedLists)
    # An empty list has nothing to map.
    return are_arrays and not all(lists.codes.at(number).is_owned for number in range(index.nlist))


def write_index(built: faiss.Index, path: Path) -> None:
    """Write an index, not how it is searched; a full disk raises the system's own error."""
    unset_search(built)
    # Through Python's own file: FAISS's only prints when it cannot write the last bytes.
    with path.open("wb") as handle:
        faiss.write_index(built, faiss.PyCallbackIOWriter(handle.write))  # type: ignore[attr-defined]


def make_card(params: Params, locale: str, manifest: Manifest, *, index_sha256: str) -> IndexCard:
    """Return the card of a locale's index, built from the vectors of `manifest`."""
    return IndexCard(
        index_schema=INDEX_SCHEMA,
        index=params.index[locale],
        settings=split_settings(params.index_of(locale))[0],
        similarity=params.encoder_of(locale).similarity,
        dimension=manifest.dimension,
        rows=manifest.products.rows,
        ids_sha256=manifest.products.ids_sha256,
        vectors_sha256=manifest.products.sha256(),
        index_sha256=index_sha256,
    )
