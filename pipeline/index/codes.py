"""Add vectors to an index, here or on a Ray cluster: the same codes, so the same index.

A trained inverted file decides for each vector alone which list it goes to, and with which code.
Workers get the trained index once, then pieces of vectors, and send codes back. The codes are added
in the order of the rows. Merging the indexes of shards would give the same, but each would carry
the codebooks.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.connection import connected
from pipeline.cluster.fingerprint import check_fingerprint, fingerprint
from pipeline.cluster.fleet import Fleet, Work
from pipeline.core.arrays import Matrix, blocks
from pipeline.core.faiss import faiss
from pipeline.core.params import Runtime

ADDED_ROWS = 4_096
"""Rows that are added at once, here and on a cluster: the last bits of a matrix product may depend
on the number of its rows."""

MOST_PIECES = 24
"""How many pieces are with workers or wait for an earlier one: no more than
`index_size.memory_bytes` counts for pieces of `shards.PIECE_ROWS`."""

Codes = NDArray[np.uint8]
Adder = Callable[[faiss.Index, Iterable[Matrix]], None]
"""Adds vectors to a trained index, in their order."""

_PACKAGES = ("faiss-cpu", "numpy")


@dataclass(frozen=True)
class Job:
    """What a worker gets: the trained, empty index, and what its codes depend on."""

    index: NDArray[np.uint8]
    kind: dict[str, str]


def adder_for(runtime: Runtime) -> Adder:
    """Return what adds vectors to an inverted file, here or on a Ray cluster."""
    return partial(add_on_cluster, runtime) if runtime.executor == "ray" else add_here


def add_here(index: faiss.Index, matrices: Iterable[Matrix]) -> None:
    """Add vectors to a trained index."""
    for piece in _pieces(matrices):
        index.add(piece)


def add_on_cluster(runtime: Runtime, index: faiss.Index, matrices: Iterable[Matrix]) -> None:
    """Add vectors to a trained, empty index as `add_here` does, to the last byte; on a cluster.

    Raises:
        PipelineError: as `connected` and `Fleet`, or a worker would compute other codes.
    """
    job = Job(faiss.serialize_index(index), fingerprint(_PACKAGES))
    # One thread per worker, as here: the number decides how a matrix product is cut up.
    single = runtime.model_copy(update={"threads": 1, "device": "cpu"})
    with (
        connected(runtime) as ray,
        Fleet[Matrix, Codes](ray, single, partial(begin, job)) as fleet,
    ):
        early: dict[int, Codes] = {}
        following = 0
        for number, codes in fleet.map(_pieces(matrices), MOST_PIECES):
            early[number] = codes
            while following in early:
                _add_codes(index, early.pop(following))
                following += 1


def begin(job: Job, _cores: int) -> Work[Matrix, Codes]:
    """Read the index on a worker, and return what makes codes.

    Raises:
        PipelineError: the worker would compute other codes.
    """
    check_fingerprint(job.kind)
    index: Any = faiss.deserialize_index(job.index)

    def codes(piece: Matrix) -> Codes:
        faiss.omp_set_num_threads(1)  # for the calling thread
        made: Codes = index.sa_encode(np.ascontiguousarray(piece))
        return made

    return Work(codes)


def _add_codes(index: Any, codes: Codes) -> None:
    ids = np.arange(index.ntotal, index.ntotal + len(codes), dtype=np.int64)
    index.add_sa_codes(np.ascontiguousarray(codes), ids)


def _pieces(matrices: Iterable[Matrix]) -> Iterator[Matrix]:
    for matrix in matrices:
        yield from blocks(matrix, ADDED_ROWS)
