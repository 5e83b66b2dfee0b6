"""Every hub entry of params.yaml, as it is there except for the commit, from a hub to vectors.

The oracle is sentence-transformers alone, which fetches the same model from the same hub. With
`pytest -s`, the table of the largest cosine distances is printed.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from pipeline.core.params import Encoder, HubWeights
from pipeline.core.text_tables import markdown
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import resolve_weights
from tests.helpers import artefacts
from tests.helpers.hub_models import SHAPES, build_hub_model, product_texts
from tests.helpers.loopback_hub import LoopbackHub, loopback_hub, use_hub
from tests.helpers.tiny_jina import build_jina, jina_by_hand
from tests.helpers.tiny_models import runtime

pytestmark = pytest.mark.slow  # models are loaded

Vectors = NDArray[np.float32]

ENTRIES = artefacts.params().encoders
ENGINES = ("torch", "openvino")
OF_ONE_FORM = ("distiluse-v2", "e5-small", "quora-distilbert-multilingual")
"""Made of what others here are made of."""

JINA = "jina-small-en"
"""sentence-transformers cannot load it."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackHub]:
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as patch, loopback_hub() as served:
        patch.setenv("PIPELINE_CACHE", str(folder / "cache"))
        use_hub(patch, served.endpoint, folder / "home")
        yield served


@pytest.fixture(scope="module")
def table() -> Iterator[list[list[str]]]:
    """Rows of the table, printed at the end."""
    rows: list[list[str]] = []
    yield rows
    header = ["encoder", "modules", "dimension", "max_tokens", *ENGINES]
    sys.stdout.write("\n" + markdown(header, rows, numbers=header[2:]))


def test_every_hub_entry_has_a_model_here() -> None:
    named = {name for name, entry in ENTRIES.items() if isinstance(entry.weights, HubWeights)}
    assert named == {*SHAPES, JINA}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough) if name in OF_ONE_FORM else name
        for name in SHAPES
    ],
)
def test_an_entrys_vectors_are_those_of_sentence_transformers_on_both_engines(
    hub: LoopbackHub, tmp_path: Path, table: list[list[str]], name: str
) -> None:
    spec = publish(hub, name, build_hub_model(tmp_path / "model", name))
    oracle = load_oracle(spec)
    texts = [*product_texts(3, 100), *product_texts(1, 2 * spec.max_tokens, seed=2), "", "🎁"]
    lengths = [len(oracle.tokenizer(text)["input_ids"]) for text in texts]
    assert min(lengths) <= spec.max_tokens < max(lengths)
    prefixes = dict.fromkeys((spec.query_prefix, spec.passage_prefix))
    expected = [encode(oracle, spec, prefix, texts) for prefix in prefixes]
    weights = resolve_weights(spec, name)
    distances: dict[str, float] = {}
    for engine in ENGINES:
        encoder = load_encoder(spec, weights, runtime(engine))
        found = [encoder.encode_queries(texts), encoder.encode_passages(texts)]
        for vectors, right in zip(found, expected * (2 // len(expected)), strict=True):
            np.testing.assert_allclose(vectors, right, atol=1e-5)
            distances[engine] = max(distances.get(engine, 0.0), largest_distance(vectors, right))
        assert distances[engine] <= 1e-6
    modules = " ".join([SHAPES[name].family, *(type(one).__name__ for one in list(oracle)[1:])])
    dimension = str(expected[0].shape[1])
    figures = [f"{distance:.1e}" for distance in distances.values()]
    table.append([f"`{name}`", modules, dimension, str(spec.max_tokens), *figures])


def test_jinas_vectors_are_those_of_its_papers_on_both_engines(
    hub: LoopbackHub, tmp_path: Path, table: list[list[str]]
) -> None:
    folder = build_jina(tmp_path / "model", hidden=512, heads=8, dtype="float16")
    spec = publish(hub, JINA, folder)
    texts = [*product_texts(3, 100), *product_texts(1, 2 * spec.max_tokens, seed=2), "", "🎁"]
    right = jina_by_hand(folder, texts, max_tokens=spec.max_tokens)
    weights = resolve_weights(spec, JINA)
    distances = {
        engine: largest_distance(
            load_encoder(spec, weights, runtime(engine)).encode_passages(texts), right
        )
        for engine in ENGINES
    }
    assert max(distances.values()) <= 1e-6
    figures = [f"{distance:.1e}" for distance in distances.values()]
    modules = "jina-bert Pooling Normalize"
    table.append([f"`{JINA}`", modules, "512", str(spec.max_tokens), *figures])


def publish(hub: LoopbackHub, name: str, folder: Path) -> Encoder:
    """Serve an entry's model from a folder, and return the entry with its commit there."""
    weights = ENTRIES[name].weights
    assert isinstance(weights, HubWeights)
    commit = hub.publish(weights.model, folder)
    return ENTRIES[name].model_copy(
        update={"weights": weights.model_copy(update={"revision": commit})}
    )


def load_oracle(spec: Encoder) -> SentenceTransformer:
    """Let sentence-transformers fetch an entry's model by itself."""
    assert isinstance(spec.weights, HubWeights)
    return SentenceTransformer(spec.weights.model, revision=spec.weights.revision, device="cpu")


def encode(
    oracle: SentenceTransformer, spec: Encoder, prefix: str, texts: Sequence[str]
) -> Vectors:
    """Return what an entry means: prefixed texts, cut, one at a time, normalised."""
    oracle.max_seq_length = spec.max_tokens
    vectors: Vectors = oracle.encode(
        [prefix + text for text in texts],
        batch_size=1,
        normalize_embeddings=spec.normalize,
        show_progress_bar=False,
    )
    return vectors


def largest_distance(found: Vectors, right: NDArray[np.floating]) -> float:
    """Return the largest 1 - cosine between rows of two matrices."""
    a, b = found.astype(np.float64), right.astype(np.float64)
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(np.abs(1 - (a * b).sum(axis=1) / norms).max())
