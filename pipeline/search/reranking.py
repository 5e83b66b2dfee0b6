"""The reranker of a locale: it orders the first products of a run again, as the stage does."""

import threading
from pathlib import Path
from weakref import WeakValueDictionary

import pyarrow as pa

from pipeline.core import cache, files, layout, tables
from pipeline.core.params import Params, Reranker
from pipeline.core.trained_folder import refuse_other_model
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.pairs import PairScorer, identity, scores_of
from pipeline.encoders.weights import resolve_weights
from pipeline.rerank.documents import BATCH_ROWS, documents_of
from pipeline.rerank.reorder import in_window, reorder
from pipeline.runs.ranking import Ranked
from pipeline.search.at_hand import refuse_absent

FORM = 1
"""Version of the kept documents; another makes them again."""

DOCUMENTS = pa.schema([("document", pa.string())])

_LOADED: WeakValueDictionary[str, PairScorer] = WeakValueDictionary()
"""The models in use by what was loaded and how: locales with one reranker share its model."""

_LOADING = threading.Lock()


class Reordering:
    """Reorders the ranking of one query, with a model that is loaded when it is needed."""

    def __init__(
        self, params: Params, locale: str, spec: Reranker, source_sha256: str, *, fetch: bool
    ) -> None:
        """Map what the model reads of each product; the first time, it is made.

        Args:
            params: which run is reranked, how deep, and what the texts are made of.
            locale: whose products they are.
            spec: the entry of the locale's reranker.
            source_sha256: the hash of the clean products.
            fetch: whether the model is fetched where it is not on this machine.

        Raises:
            PipelineError: the clean products are missing or damaged.
        """
        self._params, self._locale, self._spec, self._fetch = params, locale, spec, fetch
        # Now, while the products are those of that hash: a stage may replace them later.
        self._documents = _open_documents(params, locale, spec, source_sha256)
        self._model: PairScorer | None = None
        self._before: PairScorer | None = None

    def reorder(self, text: str, run: Ranked) -> Ranked:
        """Return the ranking of one query with its first products in the order of their scores.

        Args:
            text: the clean query.
            run: its ranking by the system that `reranking.run` names, as that run has it.

        Raises:
            PipelineError: as `load`; or a score is NaN or infinity.
        """
        model = self.load()
        settings = self._params.reranking
        window = in_window(run, settings.depth)
        pairs = [(text, self._documents[code].as_py()) for code in run[1][window].tolist()]
        scores = scores_of(model.logits(pairs), self._spec)
        return reorder(run, window, scores, settings.weight)

    def load(self) -> PairScorer:
        """Return the model.

        Raises:
            PipelineError: the weights are not there, cannot be loaded, or are refused by
                `refuse_other_model`.
        """
        if self._model is None:  # else nobody waits while another locale's is being loaded
            with _LOADING:
                if self._model is None:
                    self._model, self._before = self._load_model(), None
        return self._model

    def keep_model(self, other: "Reordering") -> None:
        """Keep the model of another one, so that it need not be loaded again if it is the same."""
        self._before = other._model or other._before

    def _load_model(self) -> PairScorer:
        name, here = self._params.rerank[self._locale], self._params.runtime.local()
        if not self._fetch:
            refuse_absent(self._spec.weights, f"rerankers.{name}", self._locale, "rerank")
        weights = resolve_weights(self._spec, name)
        refuse_other_model(self._params, name, weights.sha256)
        engine = resolve_engine(self._spec, weights, here)
        threads = here.thread_count()
        of = {"name": name, "labels": self._spec.labels, "threads": threads}
        key = files.canonical_json({**identity(self._spec, weights, engine), **of})
        if (shared := _LOADED.get(key)) is not None:
            return shared
        _LOADED[key] = model = PairScorer(self._spec, weights, engine, threads)
        return model


def _open_documents(
    params: Params, locale: str, spec: Reranker, source_sha256: str
) -> pa.ChunkedArray:
    """Return what the model reads of each product, mapped; made first where it is not kept."""
    clean, fields = params.clean, spec.fields
    lines = [str(FORM), source_sha256, *clean.fields, repr(clean.separator), repr(fields)]
    path = layout.documents(f"{locale}-{files.sha256_lines(lines)[:16]}")

    def write(folder: Path) -> None:
        source, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
        with (folder / path.name).open("wb") as file, pa.ipc.new_file(file, DOCUMENTS) as writer:
            for batch in tables.iter_table(source, tables.PRODUCTS, BATCH_ROWS, remedy):
                texts = pa.array(documents_of(batch, spec, clean), pa.string())
                writer.write_batch(pa.record_batch([texts], schema=DOCUMENTS))

    def read() -> pa.ChunkedArray:
        return cache.map_table(path)["document"]

    return cache.keep_and_read(path.parent, write, len(params.locales), read)
