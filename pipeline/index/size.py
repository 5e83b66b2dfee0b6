"""What an index will take on disk, and in memory while it is built.

The sizes on disk are sums over what FAISS 1.15 writes. They leave out the headers (some hundred
bytes). For hnsw, FAISS draws for each node how many links it has above the ground level; the size
counts the expectation.
"""

from pipeline.core import memory
from pipeline.core.params import (
    EdenIndex,
    FlatIndex,
    HnswIndex,
    Index,
    Ivf,
    IvfFlatIndex,
    IvfPqFastscanIndex,
    IvfPqIndex,
    PqFastscanIndex,
    RabitqIndex,
    Sq8Index,
)
from pipeline.vectors.shards import PIECE_ROWS

POINTS_A_CENTROID = 256
"""How many vectors k-means is given for each centroid at most, as FAISS has it; more do not move
one."""

LIST_GROWTH = 1.5
"""The memory of inverted lists over what is in them: a full one gets twice the room, which makes
1 / ln 2 = 1.44 on average (measured: 1.43)."""

FLOAT, ID, LINK = 4, 8, 4
"""Bytes of a component, of a number of a vector, of a link of a graph."""

FAST_SCAN_BITS, FAST_SCAN_CENTROIDS = 4, 16
"""Bits of a code whose table of distances fits a register, and how many codes there are."""

FAST_SCAN_ROWS = 32
"""Codes are compared this many at once; the last ones, of each list too, are filled up."""

FastScan = PqFastscanIndex | IvfPqFastscanIndex
"""The kinds of which FAISS compares codes by tables in registers."""

TABLE_ROOM = 3
"""The most memory of a table of codes over its size: its room is a power of two, and the half of it
is copied when it doubles."""

LINK_ROOM = 1.01
"""Room for links over those expected: the more nodes, the closer the drawn number is to it."""

VISIT = 1
"""Bytes a node takes for each thread that adds vectors to a graph: whether it was visited."""

EDGE, EDGES_SHARE, ORDER = 12, 0.02, 4
"""Bytes of a new edge, of which FAISS 1.15 collects those of a fiftieth of all nodes before it
links them; of a node's place in the order in which nodes are added."""


def training_rows(index: Index, rows: int) -> int:
    """Return how many vectors k-means is trained on; 0 if the index does not use k-means."""
    match index:
        case IvfFlatIndex():
            centroids = index.lists
        case IvfPqIndex():
            centroids = max(index.lists, 2**index.bits)
        case IvfPqFastscanIndex():
            centroids = max(index.lists, FAST_SCAN_CENTROIDS)
        case PqFastscanIndex():
            centroids = FAST_SCAN_CENTROIDS
        case _:
            return 0
    return min(rows, POINTS_A_CENTROID * centroids)


def code_bytes(index: Index, dimension: int) -> int:
    """Return how many bytes hold one vector, without its number and its links."""
    match index:
        case Sq8Index():
            return dimension
        case IvfPqIndex():
            return -(-index.subvectors * index.bits // 8)
        case PqFastscanIndex() | IvfPqFastscanIndex():
            return -(-index.subvectors * FAST_SCAN_BITS // 8)
        case EdenIndex():
            return -(-dimension * index.bits // 8) + 2 * FLOAT
        case RabitqIndex(bits=1):
            return -(-dimension // 8) + 2 * FLOAT
        case RabitqIndex():
            # A bit of each component for a first estimate, the others for a second one.
            return -(-dimension // 8) + -(-dimension * (index.bits - 1) // 8) + 5 * FLOAT
        case FlatIndex() | HnswIndex() | IvfFlatIndex():
            return FLOAT * dimension


def graph_links(m: int, rows: int) -> int:
    """Return for how many links a graph of `m` links per node needs room while it is built."""
    return round(LINK_ROOM * rows * _links(m))


def _links(m: int) -> float:
    """Return the places for links that a node is expected to have.

    2m of them on the ground, m on each level above, which it reaches by 1/m.
    """
    return 2 * m + m / (m - 1)


def disk_bytes(index: Index, rows: int, dimension: int) -> int:
    """Return the size of an index of `rows` vectors as a file, and searched in memory."""
    codes = rows * code_bytes(index, dimension)
    match index:
        case FlatIndex():
            return codes
        case Sq8Index():
            return codes + 2 * FLOAT * dimension
        case RabitqIndex() | EdenIndex():
            # A rotation, a centre.
            return codes + FLOAT * dimension * (dimension + 1)
        case PqFastscanIndex():
            whole = -(-rows // FAST_SCAN_ROWS) * FAST_SCAN_ROWS
            books = FAST_SCAN_CENTROIDS * dimension * FLOAT
            return whole * code_bytes(index, dimension) + books
        case HnswIndex():
            # Links, an offset, a level.
            return codes + round(rows * (_links(index.m) * LINK + ID + LINK))
        case IvfFlatIndex() | IvfPqIndex() | IvfPqFastscanIndex():
            # A centroid and a size for each list.
            lists = index.lists * (FLOAT * dimension + ID)
            padding = books = 0
            if isinstance(index, IvfPqIndex):
                books = 2**index.bits * dimension * FLOAT
            if isinstance(index, IvfPqFastscanIndex):
                # Half of the last codes of a list, on average.
                padding = index.lists * FAST_SCAN_ROWS // 2 * code_bytes(index, dimension)
                books = FAST_SCAN_CENTROIDS * dimension * FLOAT
            return codes + padding + rows * ID + lists + books


def memory_bytes(index: Index, rows: int, dimension: int, threads: int) -> int:
    """Return how many bytes the stage `index` takes at most; the shards stay on disk.

    They are the index (and one list twice: it is copied when it gets more room; and the vectors of
    a graph, which gets them at once) or the training vectors (twice: FAISS draws from them, or
    takes their residuals), and some pieces of vectors.
    """
    size = disk_bytes(index, rows, dimension)
    vector = FLOAT * dimension
    training = training_rows(index, rows) * vector
    if isinstance(index, Ivf):
        size = round((LIST_GROWTH + 1 / index.lists) * size)
        training *= 2
    if isinstance(index, PqFastscanIndex):
        size = round(TABLE_ROOM * size)
        training *= 2
    if isinstance(index, HnswIndex):
        room = graph_links(index.m, rows) - round(rows * _links(index.m))
        edges = EDGE * EDGES_SHARE * graph_links(index.m, rows)
        size += room * LINK + rows * (threads * VISIT + ORDER + vector) + round(edges)
    pieces = 6 * min(rows, PIECE_ROWS) * vector
    return memory.PROCESS_BYTES + pieces + max(size, training)
