"""The artefacts of a locale in Python: tables, and search as the stages do.

    from pipeline import workspace
    es = workspace.open("es")
    es.search("zapatillas rojas mujer")

Run in the project's folder, where params.yaml is.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Params
from pipeline.core.params_file import load_params
from pipeline.core.spelling import typed_texts
from pipeline.core.stage import check_locale
from pipeline.core.systems import FIRST_SYSTEMS, SYSTEMS, System
from pipeline.evaluate.per_query_reader import check_measured, read_per_query
from pipeline.runs.card import read_card, rerun_hint
from pipeline.runs.inputs import read_judgements
from pipeline.runs.others import read_others
from pipeline.search.engine import Engine
from pipeline.search.freshness import Signature, signature
from pipeline.search.opening import open_engine
from pipeline.search.question import Question, check_text, read_filters, read_names, read_systems


@dataclass(frozen=True)
class Workspace:
    """A locale's artefacts as they are now; each is read, and checked, when it is asked for.

    Every method raises a `PipelineError` where an artefact is missing, damaged or of another
    version; its message ends with the command that makes it.
    """

    locale: str
    _opened: dict[Signature, Engine] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def params(self) -> Params:
        """The settings as params.yaml has them now."""
        params = load_params()
        check_locale(params, self.locale, "locale")
        return params

    @property
    def queries(self) -> pd.DataFrame:
        """The clean queries: query_id, text, typed.

        `text` is what is searched for, which may be corrected. Search for `typed`: a query is known
        as it was typed.
        """
        queries = self._clean("queries", tables.QUERIES)
        typed = pa.array(typed_texts(queries, self.locale), pa.string())
        return queries.append_column("typed", typed).to_pandas()

    @property
    def judgements(self) -> pd.DataFrame:
        """The labels: query_id, product_id, label (E, S, C or I)."""
        return self._clean("judgements", tables.JUDGEMENTS).to_pandas()

    @property
    def products(self) -> pa.Table:
        """The products as they are shown: product_id, title, brand, color; mapped, in Arrow."""
        shown = self._engine.shown
        table = shown.products
        for name, facet in shown.facets.items():
            codes = pa.array(facet.codes, mask=facet.codes < 0)
            values = pa.DictionaryArray.from_arrays(codes, facet.shown.combine_chunks())
            table = table.append_column(name, values)
        return table

    def run(self, system: str) -> pd.DataFrame:
        """Return a system's ranking of the catalogue: query_id, product_id, score, rank.

        Args:
            system: dense, bm25, hybrid or, where the locale has them, rerank or another engine.
        """
        params = self.params
        (name,) = read_names([system], params.evaluated_systems(self.locale))
        if name not in SYSTEMS:
            read_others(params, self.locale)  # refuses a run of another file
        ids, _, _ = read_judgements(self.locale)
        runs, remedy = layout.runs(name, self.locale), rerun_hint(name, self.locale)
        read_card(runs, name, ids.queries, ids.products, remedy)
        found = tables.read_table(runs.catalogue, tables.RUN, remedy)
        return found.drop(["product_row"]).to_pandas()

    @property
    def per_query(self) -> pd.DataFrame:
        """Each query's measures and the labels of its first products, by system.

        Raises:
            PipelineError: the table is missing or damaged, or the sample has no judgements.
        """
        path, remedy = layout.per_query(self.locale), layout.rerun_hint("evaluate", self.locale)
        data = files.read_bytes(path, remedy)
        rows, card = read_per_query(data, str(path), self.locale, remedy)
        check_measured(card, str(path))
        return rows.to_pandas()

    def search(
        self,
        query: str,
        *,
        systems: Iterable[System] | None = None,
        k: int = 10,
        brand: str | None = None,
        color: str | None = None,
        collapse: bool = False,
        as_typed: bool = False,
    ) -> pd.DataFrame:
        """Search for a query, as the stages do.

        Args:
            query: any text.
            systems: which systems; None: dense, bm25 and hybrid, not `rerank`, which takes seconds.
            k: how many products of each, `retrieve.depth` at most.
            brand: search only products of this brand, in any case.
            color: search only products of this colour.
            collapse: show only the first product of each group of duplicates.
            as_typed: correct no spelling, where `spelling` in params.yaml does.

        Returns:
            system, rank, score, product_id, title, brand, color, label; label is empty where the
            product is not judged for the query. Collapsed, also variants: how many other products
            the group has.

        Raises:
            PipelineError: the query, k or a filter cannot be searched for, an argument is of
                another type, or there are no groups to collapse by.
        """
        filters = read_filters(brand=brand, color=color)
        for name, value in (("collapse", collapse), ("as_typed", as_typed)):
            if not isinstance(value, bool):
                raise PipelineError(f"{name}: must be True or False (found {shorten(value)}).")
        names = FIRST_SYSTEMS if systems is None else read_systems(systems)
        question = Question(query, names, k, filters, collapse, as_typed)
        answer = self._engine.search(question)
        hits = [
            {"system": system, **hit.as_dict()}
            for system, found in answer.systems.items()
            for hit in found
        ]
        columns = ["system", "rank", "score", *_PRODUCT, "label", *["variants"] * collapse]
        return pd.DataFrame(hits, columns=columns).fillna({"label": ""})

    def similar(self, product_id: str, *, k: int = 10) -> pd.DataFrame:
        """Return the products whose vectors are nearest to that of one.

        Returns:
            rank, score, product_id, title, brand, color.

        Raises:
            PipelineError: there is no such product, or k is out of range.
        """
        hits = [hit.as_dict() for hit in self._engine.similar(product_id, k).hits]
        return pd.DataFrame(hits, columns=["rank", "score", *_PRODUCT])

    @property
    def _engine(self) -> Engine:
        """The engine; opened again if an artefact has changed, as the tables are read again."""
        now = signature(self.locale)
        if now not in self._opened:
            engine = open_engine(self.locale)
            for before in self._opened.values():
                engine.keep_models(before)
            self._opened.clear()
            self._opened[now] = engine
        return self._opened[now]

    def _clean(self, side: str, schema: pa.Schema) -> pa.Table:
        remedy = layout.rerun_hint("clean", self.locale)
        return tables.read_table(layout.clean(self.locale).side(side), schema, remedy)


_PRODUCT = ("product_id", "title", "brand", "color")


def open(locale: str) -> Workspace:
    """Return the artefacts of a locale.

    Raises:
        PipelineError: this folder has no params.yaml, or it does not name the locale, which is
            a text.
    """
    check_text("locale", locale)
    check_locale(load_params(), locale, "locale")
    return Workspace(locale)
