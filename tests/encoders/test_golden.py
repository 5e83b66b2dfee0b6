"""Real models give the numbers that were printed of them elsewhere, on both engines."""

import os

import numpy as np
import pytest
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer

from pipeline.core import layout
from pipeline.core.params_file import load_params
from pipeline.encoders.distances import cosine_distance
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import at_hand, resolve_weights
from tests.helpers.tiny_models import runtime

pytestmark = [pytest.mark.weights, pytest.mark.slow]

REAL_CACHE = layout.cache().absolute()
ENGINES = ("torch", "openvino")
MPNET = "TEST_MPNET"
"""An environment variable: fetch all-mpnet-base-v2, 405 MB, where the cache lacks it."""

LONG = [
    f"Stainless steel bottle {n}, double wall, keeps drinks cold, " * (2 * n) for n in range(1, 16)
]
"""Texts up to and beyond 256 tokens: MPNet's relative positions change their form at 128."""


@pytest.fixture(autouse=True)
def real_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(REAL_CACHE))


def load(name: str, engine: str) -> TextEncoder:
    spec = load_params().encoders[name]
    return load_encoder(spec, resolve_weights(spec, name), runtime(engine))


def check_reference(name: str, found: NDArray[np.float32]) -> None:
    """Compare the vectors of LONG with those of SentenceTransformer."""
    spec = load_params().encoders[name]
    reference = SentenceTransformer(str(resolve_weights(spec, name).folder), device="cpu")
    reference.max_seq_length = spec.max_tokens
    assert len(reference.tokenizer(LONG[-1])["input_ids"]) > spec.max_tokens
    assert cosine_distance(found, reference.encode(LONG)).max() < 1e-6


def test_minilm_gives_the_similarities_that_were_printed_of_it() -> None:
    texts = [
        "def add(a, b): return a + b", "def min(a, b): return a - b",
        "The quick brown fox jumps over a lazy dog", "Today is a sunny day",
        "The weather today is beautiful", "It's raining!", "Dogs are awesome",
    ]  # fmt: skip
    for engine in ENGINES:
        encoder = load("minilm", engine)
        add, smaller, fox, sunny, *others = encoder.encode_passages(texts)
        assert float(add @ smaller) == pytest.approx(0.5379666, abs=1e-6), engine
        assert float(smaller @ fox) == pytest.approx(0.087309256, abs=1e-6), engine
        assert [round(float(sunny @ other), 4) for other in others] == [0.7344, 0.4180, 0.1060]
        check_reference("minilm", encoder.encode_passages(LONG))


def test_mpnet_gives_the_vectors_that_were_printed_of_it() -> None:
    if not at_hand(load_params().encoders["mpnet"].weights) and MPNET not in os.environ:
        pytest.skip(f"mpnet's weights are not in {REAL_CACHE}; {MPNET}=1 fetches them (405 MB)")
    printed = [
        [0.0225, -0.0783, -0.0230, -0.0083, 0.0265, -0.0020],
        [0.0417, 0.0011, -0.0155, -0.0218, -0.0636, -0.0088],
    ]
    for engine in ENGINES:
        encoder = load("mpnet", engine)
        vectors = encoder.encode_passages(
            ["This is an example sentence", "Each sentence is converted"]
        )
        found = np.hstack([vectors[:, :3], vectors[:, -3:]])
        np.testing.assert_allclose(found, printed, atol=5.01e-5, err_msg=engine)
        check_reference("mpnet", encoder.encode_passages(LONG))
