"""The vector of a query: the stored one where the query is of the sample, else by its encoder."""

import threading
from weakref import WeakValueDictionary

import numpy as np

from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.embed.locale_encoder import LocaleEncoder
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.engine import OnThreads
from pipeline.encoders.loading import load_engine
from pipeline.search.at_hand import refuse_absent
from pipeline.vectors.lengths import to_index_form
from pipeline.vectors.manifest import Manifest
from pipeline.vectors.shards import ShardReader

_LOADED: WeakValueDictionary[str, TextEncoder] = WeakValueDictionary()
"""The models in use by what was loaded and how: locales with one encoder share its model."""

_LOADING = threading.Lock()


class QueryVectors:
    """Gives the vectors of queries in the form that the index compares, [1, dimension]."""

    def __init__(self, params: Params, locale: str, manifest: Manifest, *, fetch: bool) -> None:
        """Keep what the vectors are made with; the model is loaded when it is needed.

        Without `fetch` it must be on this machine then.
        """
        self._params = params.model_copy(update={"runtime": params.runtime.local()})
        self._locale, self._manifest, self._fetch = locale, manifest, fetch
        self._stored = ShardReader(manifest, "queries", locale)
        self._similarity = params.encoder_of(locale).similarity
        self._model: TextEncoder | None = None

    def check(self) -> None:
        """Open all stored vectors, which stay readable when their files are replaced.

        Raises:
            PipelineError: a shard is missing or unreadable, or differs from the manifest.
        """
        self._stored.check()

    def stored(self, row: int) -> Matrix:
        """Return the vector of a query of the sample, by its row."""
        vector = self._stored.take(np.array([row]))
        return to_index_form(vector, self._similarity, f"{self._locale} queries", row)

    def encode(self, text: str) -> Matrix:
        """Return the vector of a clean text, rounded as the shards are.

        Raises:
            PipelineError: the encoder cannot be loaded or is not the one of the shards, or the
                vector is zero.
        """
        if self._model is None:  # else nobody waits while another locale's is being loaded
            with _LOADING:
                if self._model is None:
                    self._model = self._load()
        vector = self._model.encode_queries([text])
        rounded = vector.astype(self._manifest.dtype).astype(np.float32)
        return to_index_form(rounded, self._similarity, "the query")

    def take_model(self, other: "QueryVectors") -> None:
        """Use the model that another one of this locale has loaded, if it is the same."""
        same = other._manifest.weights_sha256 == self._manifest.weights_sha256
        if same and other._params.encoder_of(self._locale) == self._params.encoder_of(self._locale):
            self._model = other._model

    def _load(self) -> TextEncoder:
        """Return the model; its batches hold one text, which is faster for a single one.

        A model that another locale uses already is shared.
        """
        if not self._fetch:
            entry = self._params.entry_of(self._params.encoder[self._locale])
            weights = self._params.encoder_of(self._locale).weights
            refuse_absent(weights, entry, self._locale, "dense")
        encoder = LocaleEncoder(self._params, self._locale)
        expected, found = self._manifest.weights_sha256, encoder.weights.sha256
        if found != expected:
            raise PipelineError(
                f"{layout.embeddings(self._locale).manifest}: the vectors are of other weights "
                f"({expected[:12]}) than those of {encoder.weights.entry} ({found[:12]}). "
                f"{layout.rerun_hint('embed', self._locale)}"
            )
        settings = encoder.spec.model_dump_json(exclude={"languages"})
        key = f"{encoder.name} {encoder.engine} {encoder.threads} {found} {settings}"
        if (shared := _LOADED.get(key)) is not None:
            return shared
        loaded = load_engine(encoder.engine, encoder.spec, encoder.weights, encoder.threads)
        loaded.engine.batch_tokens = 1
        model = TextEncoder(
            OnThreads(loaded.engine), loaded.tokenizer, loaded.pad_id, encoder.spec,
            encoder.weights, pads=encoder.engine.pads,
        )  # fmt: skip
        _LOADED[key] = model
        return model
