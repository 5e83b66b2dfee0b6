"""What memory allows where products are searched range by range."""

from pipeline.bm25.counting import Counted
from pipeline.bm25.postings import Collection, memory_bytes
from pipeline.bm25.search import BATCH_QUERIES
from pipeline.bm25.texts import worker_count
from pipeline.core import memory
from pipeline.core.params import Params

RANGE_POSTINGS = 1 << 27
"""The most postings of a range: 1.7 GB while it is searched. An English product has about 100."""

SENT_POSTINGS = 1 << 24
"""The most of one that goes to a worker of a cluster: 84 MB, and 0.2 GB while it is searched."""

HELD_BYTES = 40
"""A product found for a query, until all ranges are searched: a row and a score, of up to twice as
many as are wanted, and its part of what has just been found."""

HELD_SHARE = 2
"""Results take at most one such part of the memory that is free."""

MOST_HELD = 1 << 25
"""The most products found for the queries searched for at once: 1.3 GB."""

MOST_SENT = 1 << 23
"""The most that a worker of a cluster sends back of a range: 0.2 GB."""

SENT_BYTES = 24
"""One of these, while it is received."""


class Room:
    """What the memory that a stage may take allows, when products are searched range by range.

    Attributes:
        queries: how many are searched for at once; a multiple of `BATCH_QUERIES`.
    """

    def __init__(
        self, params: Params, locale: str, analyser: str, products: int, terms: int
    ) -> None:
        """Take what the work depends on; `terms` are those that queries have."""
        self._params, self._locale, self._analyser = params, locale, analyser
        self._products, self._terms = products, terms
        self._depth = min(params.retrieve.depth, products)
        free = memory.limit_bytes(params.runtime) - self._needed(0, 0, 0, 0)
        batch = BATCH_QUERIES * max(1, self._depth)
        sent = params.runtime.is_on_cluster()
        self._postings = SENT_POSTINGS if sent else RANGE_POSTINGS
        self._held_bytes = HELD_BYTES + SENT_BYTES if sent else HELD_BYTES
        most = min(MOST_HELD, MOST_SENT) if sent else MOST_HELD
        held = min(free // (HELD_SHARE * self._held_bytes), most)
        self.queries = BATCH_QUERIES * max(1, held // batch)

    def is_full(self, collected: Collection, piece: Counted) -> bool:
        """Say whether a range must end before a piece.

        Raises:
            MemoryLimitError: the piece does not even fit into a range of its own.
        """
        postings, terms = len(piece.products), int(piece.lengths.sum())
        products = len(piece.lengths)
        memory.check(
            self._needed(products, postings, terms, postings) + self._held(),
            f"bm25 of the {self._products} {self._locale} products",
            self._params.runtime,
            "draw fewer (sample.distractors) or make their texts of fewer fields (clean.fields)",
        )
        if not collected.pieces:
            return False
        both = collected.postings + postings
        longest = max(collected.piece_terms, terms), max(collected.piece_postings, postings)
        needed = self._needed(collected.products + products, both, *longest) + self._held()
        return both > self._postings or needed > memory.limit_bytes(self._params.runtime)

    def _held(self) -> int:
        return self.queries * self._depth * self._held_bytes

    def _needed(self, products: int, postings: int, piece_terms: int, piece_postings: int) -> int:
        runtime = self._params.runtime
        return memory_bytes(
            self._analyser,
            self._products,
            postings=postings,
            terms=self._terms,
            piece_terms=piece_terms,
            piece_postings=piece_postings,
            found=BATCH_QUERIES * self._depth,
            threads=runtime.thread_count(),
            workers=worker_count(self._analyser, self._products, runtime),
            searched=products,
        )
