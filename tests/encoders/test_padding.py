"""A text's vector is that of the text alone, whether or not its model reads padding."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from pipeline.core.errors import PipelineError
from pipeline.encoders.identity import identity
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.model import LoadedModel
from pipeline.encoders.padding import find_padding
from pipeline.encoders.weights import LocalWeights
from tests.helpers.tiny_models import (
    build_model,
    edit_json,
    encoder_of,
    entry,
    runtime,
    weights_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

TEXTS = ["tv", "red shoe", "kettle", "x" * 14, "zapatillas de running para mujer", "水筒", ""]
ENGINES = ("torch", "openvino")


def alone(folder: Path) -> np.ndarray:
    """Return each text's vector by sentence-transformers, which pads no text that is alone."""
    model = SentenceTransformer(str(folder), device="cpu")
    return np.stack([model.encode([text])[0] for text in TEXTS])


def test_a_model_that_mixes_padding_in_is_encoded_one_length_at_a_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_model(tmp_path / "model", family="fnet", normalize=False)
    expected = alone(folder)
    for engine in ENGINES:
        encoder = encoder_of(folder, engine=engine, normalize=False)
        found = encoder.encode_passages(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=engine)
        assert "encoders.tiny: the model mixes padding into its vectors" in caplog.text
        chosen = [4, 0, 4, 2]
        some = encoder.encode_passages([TEXTS[at] for at in chosen])
        assert some.tobytes() == found[chosen].tobytes()


def test_vectors_without_padding_have_a_store_of_their_own(tmp_path: Path) -> None:
    for family, pads in (("fnet", False), ("bert", True)):
        folder = build_model(tmp_path / family, family=family)  # type: ignore[arg-type]
        spec, weights = entry(folder), weights_of(folder)
        assert resolve_engine(spec, weights, runtime(), convert=False).pads
        choice = resolve_engine(spec, weights, runtime())
        assert choice.pads == pads
        assert resolve_engine(spec, weights, runtime(), convert=False) == choice
        assert ("pads" in identity(spec, weights, choice, "query")) is not pads


def test_a_window_of_padding_alone_moves_a_model_from_openvino_to_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_model(tmp_path / "model", family="modernbert", normalize=False)
    assert str(resolve_engine(entry(folder), weights_of(folder), runtime("auto"))) == "torch-cpu"
    assert "encoders.tiny runs on torch: for openvino its vectors differ" in caplog.text
    found = encoder_of(folder, engine="auto", normalize=False).encode_passages(TEXTS)
    np.testing.assert_allclose(found, alone(folder), atol=1e-5)


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
def test_a_tokenizer_that_pads_on_the_left_changes_no_vector(tmp_path: Path, pooling: str) -> None:
    folder = build_model(tmp_path / "model", family="llama", pooling=pooling, normalize=False)
    edit_json(folder / "tokenizer_config.json", padding_side="left")
    for engine in ENGINES:
        found = encoder_of(folder, engine=engine, normalize=False).encode_passages(TEXTS)
        np.testing.assert_allclose(found, alone(folder), atol=1e-5, err_msg=engine)


def test_a_model_without_a_padding_token_is_encoded_as_any(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", family="gpt2", normalize=False)
    expected = alone(folder)
    edit_json(folder / "tokenizer_config.json", pad_token=None)
    edit_json(folder / "config.json", pad_token_id=None)
    for engine in ENGINES:
        found = encoder_of(folder, engine=engine, normalize=False).encode_passages(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=engine)


class Made(torch.nn.Module):  # type: ignore[misc]
    """A model of one rule: token ids and mask to vectors."""

    def __init__(self, rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.rule = rule

    def forward(self, features: dict[str, Any]) -> dict[str, torch.Tensor]:
        mask = features["attention_mask"].float()[..., None]
        tokens = torch.stack([torch.sin(features["input_ids"] * n) for n in range(1, 9)], dim=-1)
        return {"sentence_embedding": self.rule(tokens.float(), mask)}


def _mean(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return (tokens * mask).sum(1) / mask.sum(1)


def _hidden_nan(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    few = (mask.sum(1) < mask.shape[1] / 2).float()
    return _mean(tokens, mask) / (1 - few)


def made(rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> LoadedModel:
    return LoadedModel(Made(rule), "{}", 0, 300, 128, 2, takes_types=False)


WEIGHTS = LocalWeights("tiny", Path("some/model"), "0" * 64)


@pytest.mark.parametrize(
    ("rule", "pads"),
    [
        (_mean, True),
        (lambda tokens, _: tokens.mean(1), False),
        (lambda tokens, mask: _mean(tokens, mask) + 1e-3 * tokens.mean(1), False),
        (lambda tokens, mask: _mean(tokens, mask) * mask.shape[1], False),
        (_hidden_nan, False),
        (lambda tokens, mask: _mean(tokens, mask) * float("nan"), True),  # of the model, not of it
    ],
)
def test_padding_is_allowed_only_where_it_changes_no_vector(
    rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], pads: bool
) -> None:
    assert find_padding(made(rule), WEIGHTS) is pads


def test_a_model_whose_texts_change_each_others_vectors_is_refused() -> None:
    def mixes(tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return _mean(tokens, mask) + tokens.mean((0, 1))

    with pytest.raises(PipelineError, match=r"encoders\.tiny\.weights: .*other texts of its batch"):
        find_padding(made(mixes), WEIGHTS)


def test_a_model_that_cannot_compute_a_batch_is_one_message() -> None:
    with pytest.raises(PipelineError, match=r"encoders\.tiny\.weights: .* cannot be loaded"):
        find_padding(made(lambda tokens, mask: tokens @ mask), WEIGHTS)
