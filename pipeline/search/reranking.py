"""The reranker of a locale: it orders the first products of a run again, as the stage does."""

import threading
from pathlib import Path
from weakref import WeakValueDictionary

import pyarrow as pa

from pipeline.core import files, layout, tables
from pipeline.core.params import Params, Reranker
from pipeline.core.trained_folder import refuse_other_settings
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.pairs import PairScorer, identity, scores_of
from pipeline.encoders.weights import resolve_weights
from pipeline.rerank.documents import BATCH_ROWS, documents_of
from pipeline.rerank.reorder import in_window, reorder
from pipeline.runs.ranking import Ranked
from pipeline.search import kept

FORM = 1
"""Version of the kept documents; another makes them again."""

DOCUMENTS = pa.schema([("document", pa.string())])

_LOADED: WeakValueDictionary[str, PairScorer] = WeakValueDictionary()
"""The models in use by what was loaded and how: locales with one reranker share its model."""

_LOADING = threading.Lock()


class Reordering:
    """Reorders the ranking of one query, with a model that is loaded when it is needed."""

    def __init__(self, params: Params, locale: str, spec: Reranker, source_sha256: str) -> None:
        """Keep what it needs.

        Args:
            params: which run is reranked, how deep, and what the texts are made of.
            locale: whose products they are.
            spec: the entry of the locale's reranker.
            source_sha256: the hash of the clean products.
        """
        self._params, self._locale, self._spec = params, locale, spec
        self._source_sha256 = source_sha256
        self._model: PairScorer | None = None
        self._before: PairScorer | None = None
        self._documents: pa.ChunkedArray | None = None

    def reorder(self, text: str, run: Ranked) -> Ranked:
        """Return the ranking of one query with its first products in the order of their scores.

        Args:
            text: the clean query.
            run: its ranking by the system that `reranking.run` names, as that run has it.

        Raises:
            PipelineError: as `load`; or a score is NaN or infinity.
        """
        model, documents = self.load()
        settings = self._params.reranking
        window = in_window(run, settings.depth)
        pairs = [(text, documents[code].as_py()) for code in run[1][window].tolist()]
        scores = scores_of(model.logits(pairs), self._spec)
        return reorder(run, window, scores, settings.weight)

    def load(self) -> tuple[PairScorer, pa.ChunkedArray]:
        """Return the model, and what it reads of each product.

        Raises:
            PipelineError: the weights are not there, or cannot be loaded.
        """
        with _LOADING:
            if self._model is None:
                self._model, self._before = self._load_model(), None
            if self._documents is None:
                self._documents = self._open_documents()
            return self._model, self._documents

    def keep_model(self, other: "Reordering") -> None:
        """Keep the model of another one, so that it need not be loaded again if it is the same."""
        self._before = other._model

    def _load_model(self) -> PairScorer:
        name, runtime = self._params.rerank[self._locale], self._params.runtime
        here = runtime.model_copy(update={"executor": "local", "ray_address": None})
        weights = resolve_weights(self._spec, name)
        refuse_other_settings(self._params, name)
        engine = resolve_engine(self._spec, weights, here)
        threads = here.thread_count()
        of = {"name": name, "labels": self._spec.labels, "threads": threads}
        key = files.canonical_json({**identity(self._spec, weights, engine), **of})
        if (shared := _LOADED.get(key)) is not None:
            return shared
        _LOADED[key] = model = PairScorer(self._spec, weights, engine, threads)
        return model

    def _open_documents(self) -> pa.ChunkedArray:
        """Return what the model reads of each product, mapped; made first where it is not kept."""
        clean, fields = self._params.clean, self._spec.fields
        lines = [str(FORM), self._source_sha256, *clean.fields, repr(clean.separator), repr(fields)]
        path = layout.documents(f"{self._locale}-{files.sha256_lines(lines)[:16]}")
        kept.keep(
            path.parent, lambda folder: self._write(folder / path.name), len(self._params.locales)
        )
        return kept.map_table(path)["document"]

    def _write(self, path: Path) -> None:
        source = layout.clean(self._locale).products
        remedy = layout.rerun_hint("clean", self._locale)
        with path.open("wb") as file, pa.ipc.new_file(file, DOCUMENTS) as writer:
            for batch in tables.iter_table(source, tables.PRODUCTS, BATCH_ROWS, remedy):
                documents = documents_of(batch, self._spec, self._params.clean)
                writer.write_batch(
                    pa.record_batch([pa.array(documents, pa.string())], schema=DOCUMENTS)
                )
