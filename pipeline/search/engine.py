"""The engine of a locale: every system over what the stages wrote, one query at a time.

For a query of the sample, the first products are those of its runs: the same text rules, vector,
index, terms, fusion, rounding and order. A flat index is the exception that proves small: the
stage compares thousands of queries at once, which rounds the last bits of a score otherwise, so
two products whose scores differ by a millionth may change places.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.bm25 import analysers
from pipeline.bm25.search import TermIndex, top
from pipeline.core.arrays import Ints, Matrix
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.faiss import faiss
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import Params
from pipeline.core.systems import System
from pipeline.hybrid.fuse import fuse
from pipeline.retrieve.rescored import Rescored
from pipeline.runs import ranking
from pipeline.runs.ranking import Ranked
from pipeline.search.answer import Answer, Hit, Product, Similar
from pipeline.search.facets import Facet
from pipeline.search.judged import Judged
from pipeline.search.nearest import Allowed, Nearest, nearest
from pipeline.search.parts import InParts
from pipeline.search.query_vectors import QueryVectors
from pipeline.search.question import Question, UnknownProductError, check_k, check_text
from pipeline.search.reranking import Reordering
from pipeline.search.shown import Shown
from pipeline.search.variants import VariantGroups, Variants
from pipeline.text.correction import Corrector
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.pairs import score_pairs
from pipeline.vectors.shards import ShardReader

FACET_VALUES = 12
"""How many values of a facet are offered."""

FACET_PLACES = 100
"""How many places of each system the values are counted in: beyond, they are those of any query."""

CANDIDATES_PER_PLACE = 10
LEAST_CANDIDATES = 100
"""How many neighbours the index proposes for similar products, whose vectors then decide: an index
of few bytes per vector puts some of the nearest in later places."""


@dataclass(frozen=True)
class Engine:
    """Everything that answers queries of one locale, opened once and mapped.

    What was opened stays readable when its files are replaced.
    """

    params: Params
    locale: str
    shown: Shown
    judged: Judged
    index: faiss.Index | InParts | Rescored
    vectors: ShardReader
    query_vectors: QueryVectors
    analyser: analysers.Analyser
    terms: TermIndex
    variants: Variants
    reordering: Reordering | None
    corrector: Corrector | None

    def search(self, question: Question) -> Answer:
        """Search for a query with some systems.

        Raises:
            PipelineError: the query, k or a filter cannot be searched for, there are no groups to
                collapse by, or no reranker.
        """
        typed = text = question.text(self.judged.rows)
        if self.corrector is not None and not question.as_typed:
            text = self.corrector.correct(typed)
        check_k(question.k, self.params.retrieve.depth)
        allowed = self._allowed(question.filters)
        row = self.judged.rows.get(typed)
        stored = row if row is not None and self.judged.texts[row] == text else None
        rankings = self._rank(text, stored, question.systems, allowed)
        groups = self.variants.groups() if question.collapse else None
        if groups is not None:
            rankings = groups.collapse(rankings)
        labels = {} if row is None else self.judged.labels(row)
        first = [codes[:FACET_PLACES] for _, codes, _ in rankings.values()]
        found = np.unique(np.concatenate(first))
        return Answer(
            locale=self.locale,
            query=question.query,
            searched=text,
            query_id=None if row is None else int(self.judged.query_ids[row]),
            filters=question.filters,
            systems=self._hits(rankings, question.k, labels, groups, allowed),
            found={system: len(ranked[1]) for system, ranked in rankings.items()},
            facets={
                name: facet.count(found, FACET_VALUES) for name, facet in self.shown.facets.items()
            },
            collapsed=question.collapse,
            typed=None if text == typed else typed,
        )

    def similar(self, product_id: str, k: int) -> Similar:
        """Return the products whose vectors are nearest to that of one.

        The index proposes them, and the vectors decide their order.

        Raises:
            UnknownProductError: there is no such product.
            PipelineError: k is out of range.
        """
        check_text("product_id", product_id)
        check_k(k, self.params.retrieve.depth)
        row = self.shown.row_of(product_id)
        if row is None:
            raise UnknownProductError(
                f"product_id: no {self.locale} product is {shorten(product_id)}. Use another id."
            )
        similarity = self.params.encoder_of(self.locale).similarity
        mine = to_index_form(self.vectors.take(np.array([row])), similarity, "products", row)
        wanted = max(CANDIDATES_PER_PLACE * k, LEAST_CANDIDATES) + 1
        _, codes = self._nearest(mine, wanted)
        codes = np.sort(codes[codes != row])
        others = to_index_form(self.vectors.take(codes), similarity, "products")
        scores = score_pairs(np.broadcast_to(mine, others.shape), others, similarity)
        ranked = ranking.rank_pairs(np.zeros(len(codes), np.int64), codes, scores)
        hits = [
            Hit(place + 1, _score(score), self.product(int(code)))
            for place, (code, score) in enumerate(zip(ranked[1][:k], ranked[2][:k], strict=True))
        ]
        return Similar(self.locale, self.product(row), hits)

    def product(self, row: int) -> Product:
        """Return what is shown of a product."""
        values = {name: facet.value(row) for name, facet in self.shown.facets.items()}
        product_id = str(self.shown.ids[row].as_py())
        return Product(
            product_id, self.shown.title(row), values.get("brand", ""), values.get("color", "")
        )

    def warm(self) -> None:
        """Open the vectors, which DVC may remove at any time, and load the models.

        The vectors come first: they answer judged queries where a model cannot be loaded.

        Raises:
            PipelineError: vectors are missing or damaged, or a model cannot be loaded.
        """
        self.query_vectors.check()
        self.vectors.check()
        self.query_vectors.encode("x")
        if self.reordering is not None:
            self.reordering.load()

    def reranker(self) -> Reordering:
        """Return what reranks.

        Raises:
            PipelineError: the locale has no reranker.
        """
        if self.reordering is None:
            raise PipelineError(
                f"system: {self.locale} has no rerank: rerank.{self.locale} is {NO_RERANKER} in "
                f"params.yaml. Choose a reranker: `make try SET='rerank.{self.locale}=NAME'`."
            )
        return self.reordering

    def keep_models(self, other: "Engine") -> None:
        """Take the models that an engine of this locale has loaded, where they are the same."""
        self.query_vectors.take_model(other.query_vectors)
        if self.reordering is not None and other.reordering is not None:
            self.reordering.keep_model(other.reordering)

    def _allowed(self, filters: Mapping[str, str]) -> Allowed | None:
        """Return which products pass the filters, None where there are none.

        Raises:
            PipelineError: no product does, or the texts were made without that field.
        """
        allowed: Allowed | None = None
        for name, value in filters.items():
            facet = self._facet(name)
            having = facet.codes == facet.code_of(value, self.locale)
            allowed = having if allowed is None else allowed & having
        if allowed is not None and not allowed.any():
            both = " and ".join(f"{name} {shorten(value)}" for name, value in filters.items())
            raise PipelineError(f"no {self.locale} product has {both}. Leave one of them out.")
        return allowed

    def _facet(self, name: str) -> Facet:
        if name not in self.shown.facets:
            raise PipelineError(
                f"{name}: clean.fields has no product_{name}, so products cannot be filtered by "
                "it. Add the field to clean.fields, or leave the filter out."
            )
        return self.shown.facets[name]

    def _rank(
        self, text: str, row: int | None, systems: tuple[System, ...], allowed: Allowed | None
    ) -> dict[System, Ranked]:
        """Return the whole ranking of each system, as deep as its run.

        `row` is that of the stored vector of the text, None where there is none.
        """
        depth = self.params.retrieve.depth
        needed = set(systems)
        if "rerank" in needed:
            needed.add(self.params.reranking.run)
        if "hybrid" in needed:
            needed |= {"dense", "bm25"}
        made: dict[System, Ranked] = {}
        if "dense" in needed:
            scores, codes = self._nearest(self._vector(text, row), depth, allowed)
            made["dense"] = _as_stored(codes, scores)
        if "bm25" in needed:
            found = self.terms.scores(self.analyser.terms(text))
            if allowed is not None:
                found[~allowed] = 0
            _, codes, scores = top(0, found, depth)
            made["bm25"] = _as_stored(codes, scores)
        if "hybrid" in needed:
            fused = fuse(made["dense"], made["bm25"], self.params.hybrid)
            inside = ranking.places(fused[0]) < depth
            made["hybrid"] = _as_stored(fused[1][inside], fused[2][inside])
        if "rerank" in needed:
            first = made[self.params.reranking.run]
            _, codes, scores = self.reranker().reorder(text, first)
            made["rerank"] = _as_stored(codes, scores)
        return {system: made[system] for system in systems}

    def _nearest(self, query: Matrix, depth: int, allowed: Allowed | None = None) -> Nearest:
        # OpenMP keeps this number for each thread, and a server searches on a thread of its own.
        faiss.omp_set_num_threads(self.params.runtime.thread_count())
        return nearest(self.index, query, depth, allowed)

    def _vector(self, text: str, row: int | None) -> Matrix:
        return self.query_vectors.encode(text) if row is None else self.query_vectors.stored(row)

    def _hits(
        self,
        rankings: Mapping[System, Ranked],
        k: int,
        labels: Mapping[str, str],
        groups: VariantGroups | None,
        allowed: Allowed | None,
    ) -> dict[System, list[Hit]]:
        # Collapsed, a system ranks a product where it ranks another of the same group.
        keys = {
            system: (codes if groups is None else groups.kept[codes]).tolist()
            for system, (_, codes, _) in rankings.items()
        }
        places = {
            system: {key: place for place, key in enumerate(of, 1)} for system, of in keys.items()
        }
        hits: dict[System, list[Hit]] = {}
        for system, (_, codes, scores) in rankings.items():
            hits[system] = []
            first = codes[:k]
            variants: list[int | None] = [None] * len(first)
            if groups is not None:
                variants = groups.count_others(first, allowed).tolist()
            for place, code in enumerate(first.tolist()):
                product, key = self.product(code), keys[system][place]
                others = {
                    other: held[key]
                    for other, held in places.items()
                    if other != system and key in held
                }
                label, score = labels.get(product.product_id), _score(scores[place])
                hits[system].append(Hit(place + 1, score, product, label, others, variants[place]))
        return hits


def _as_stored(codes: Ints, scores: NDArray[np.float64]) -> Ranked:
    """Return a ranking of one query as a run file has it: its scores are float32."""
    return np.zeros(len(codes), np.int64), codes, scores.astype(np.float32).astype(np.float64)


def _score(score: float) -> float:
    return round(float(score), ranking.SCORE_DECIMALS)
