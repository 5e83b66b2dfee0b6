"""The default encoders on the demo and, where it is, on a real ESCI sample (`ESCI_DIR`).

What a search engineer would notice at once: an encoder that does not speak the language, a random
one, a forgotten prefix.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline.clean import stage as clean
from pipeline.core import layout
from pipeline.core.arrays import Matrix
from pipeline.core.params import Params
from pipeline.demo import stage as demo
from pipeline.embed import stage as embed
from pipeline.encoders.batching import Batch
from pipeline.encoders.openvino_engine import OpenVinoEngine
from pipeline.evaluate import metrics, system_scores
from pipeline.index import stage as index
from pipeline.retrieve import stage as retrieve
from pipeline.sample import stage as sample
from tests.helpers.artefacts import ROOT, params

pytestmark = pytest.mark.weights

Measure = Callable[[Params, str], float]


def _search(given: Params, locale: str) -> float:
    """Run the dense stages from embed on, and return nDCG@10."""
    for stage in (embed.embed, index.index, retrieve.retrieve):
        stage(given, locale)
    judged = system_scores.read_judged(locale)
    scores, _ = system_scores.score("dense", locale, judged, given.evaluate, given.retrieve.depth)
    return metrics.means(scores.measures)["ndcg@10"]


def _committed(locale: str) -> float:
    measures = json.loads((ROOT / layout.metrics(locale)).read_text())
    return float(measures["dense"]["ndcg@10"])


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder that shares the project's cache of encoders."""
    cache = os.environ.get("PIPELINE_CACHE", str(ROOT / ".cache"))
    monkeypatch.setenv("PIPELINE_CACHE", cache)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def english(elsewhere: Path) -> Params:
    """Params with an English encoder for Japanese, and the clean tables of that locale."""
    given = params({"encoder.jp": "minilm"})
    demo.demo(given)
    sample.sample(given)
    clean.clean(given, "jp")
    return given


@pytest.mark.thorough
def test_on_the_japanese_demo_an_english_encoder_is_clearly_worse(english: Params) -> None:
    assert _search(english, "jp") < _committed("jp") - 0.15


def test_on_the_japanese_demo_a_random_encoder_finds_nearly_nothing(
    english: Params, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)

    def random(self: OpenVinoEngine, batch: Batch) -> Matrix:
        return rng.standard_normal((len(batch.places), 384), dtype=np.float32)

    monkeypatch.setattr(layout, "store", lambda: elsewhere / "vectors")  # not into the real one
    monkeypatch.setattr(OpenVinoEngine, "__call__", random)
    assert _search(english, "jp") < 0.15


@pytest.mark.thorough
@pytest.mark.skipif("ESCI_DIR" not in os.environ, reason="ESCI_DIR names no real ESCI sample")
def test_on_real_data_the_prefixes_are_worth_a_twentieth_of_ndcg(elsewhere: Path) -> None:
    real = {
        "sample.source": str(Path(os.environ["ESCI_DIR"]).absolute()),
        "sample.version": "all",
        "sample.splits": ["test", "train"],
        "sample.queries": 400,
        "sample.distractors": 100,
    }
    given = params(real)
    sample.sample(given)
    clean.clean(given, "es")
    with_prefixes = _search(given, "es")
    entry = "encoders.e5-small-q4"
    bare = params({**real, f"{entry}.query_prefix": "", f"{entry}.passage_prefix": ""})
    assert _search(bare, "es") < with_prefixes - 0.05
