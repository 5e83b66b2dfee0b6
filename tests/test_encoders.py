import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from pipeline.encoders.encoder import TextEncoder, load_encoder
from pipeline.encoders.weights import resolve_weights
from pipeline.errors import PipelineError
from pipeline.params import Encoder, Runtime, load_params
from tests.tiny_models import build_model

TEXTS = (
    "red running shoes", "camiseta de algodón", "水筒 1リットル", "", "x" * 90, "Shoe", "shoe",
    "🎁 gift", "a b c d e f g", "zapatillas " * 4,
)  # fmt: skip
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def encoder_of(
    folder: Path, *, batch_size: int = 4, threads: int = 1, **contract: Any
) -> TextEncoder:
    spec = Encoder.model_validate(
        {
            "weights": {"kind": "folder", "path": str(folder)},
            "query_prefix": "", "passage_prefix": "", "pooling": "model", "normalize": True,
            "similarity": "cosine", "languages": ("any",), "max_tokens": 128,
        } | contract
    )  # fmt: skip
    runtime = Runtime(device="cpu", threads=threads, batch_size=batch_size)
    return load_encoder(spec, resolve_weights(spec, "tiny"), runtime)


def by_hand(folder: Path, texts: Sequence[str], pooling: str, max_tokens: int = 128) -> np.ndarray:
    """Encode one text at a time with plain transformers and poolings written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()
    rows = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=max_tokens, return_tensors="pt")
        with torch.inference_mode():
            tokens = model(**inputs).last_hidden_state[0].numpy()
        weights = np.arange(1, len(tokens) + 1, dtype=np.float32)[:, None]
        pooled = {
            "mean": tokens.mean(axis=0),
            "cls": tokens[0],
            "max": tokens.max(axis=0),
            "mean_sqrt_len_tokens": tokens.sum(axis=0) / np.sqrt(len(tokens)),
            "weightedmean": (tokens * weights).sum(axis=0) / weights.sum(),
            "lasttoken": tokens[-1],
        }
        rows.append(pooled[pooling])
    return np.array(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize("own", ["max", None])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_named_pooling_replaces_the_models_own(tmp_path: Path, pooling: str, own: str) -> None:
    folder = build_model(tmp_path / "model", pooling=own)
    found = encoder_of(folder, pooling=pooling, normalize=False).encode_passages(TEXTS)
    expected = by_hand(folder, TEXTS, pooling)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("own", POOLINGS)
def test_pooling_model_is_the_models_own(tmp_path: Path, own: str) -> None:
    folder = build_model(tmp_path / "model", pooling=own, tokenizer="wordpiece")
    found = encoder_of(folder, normalize=False).encode_queries(TEXTS)
    expected = by_hand(folder, TEXTS, own)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_dense_layer_after_a_replaced_pooling_still_acts(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", pooling="mean", dense=7)
    encoder = encoder_of(folder, pooling="cls", normalize=False)
    found = encoder.encode_queries(TEXTS)
    assert encoder.dimension == 7
    assert found.shape == (len(TEXTS), 7)
    linear = encoder._model[2].linear
    with torch.inference_mode():
        pooled = torch.tensor(by_hand(folder, TEXTS, "cls"))
        expected = torch.tanh(linear(pooled)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_kind_of_text_has_its_own_prefix_exactly_once(folder: Path) -> None:
    plain = encoder_of(folder)
    prefixed = encoder_of(folder, query_prefix="query: ", passage_prefix="passage: ")
    for prefix, encode in (
        ("query: ", prefixed.encode_queries),
        ("passage: ", prefixed.encode_passages),
    ):
        expected = plain.encode_queries([prefix + text for text in TEXTS])
        np.testing.assert_allclose(encode(TEXTS), expected, atol=1e-6)
        assert not np.allclose(encode(TEXTS), plain.encode_queries(TEXTS), atol=1e-3)


def test_prompts_registered_in_the_model_are_not_added(tmp_path: Path, folder: Path) -> None:
    prompts = {"query": "search for this: ", "document": "title: ", "passage": "p: "}
    prompted = build_model(tmp_path / "model", prompts=prompts)
    contracts: list[dict[str, Any]] = [{}, {"query_prefix": "query: ", "passage_prefix": "p: "}]
    for contract in contracts:
        found, expected = encoder_of(prompted, **contract), encoder_of(folder, **contract)
        np.testing.assert_array_equal(found.encode_queries(TEXTS), expected.encode_queries(TEXTS))
        np.testing.assert_array_equal(found.encode_passages(TEXTS), expected.encode_passages(TEXTS))


@pytest.mark.parametrize("own", [True, False])
def test_normalize_is_obeyed_whatever_the_model_does_itself(tmp_path: Path, own: bool) -> None:
    folder = build_model(tmp_path / "model", normalize=own)
    raw = encoder_of(folder, normalize=False).encode_queries(TEXTS)
    unit = encoder_of(folder, normalize=True).encode_queries(TEXTS)
    lengths = np.linalg.norm(raw, axis=1)
    assert (np.abs(lengths - 1) > 0.1).all()
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(unit, raw / lengths[:, None], atol=1e-6)


def test_texts_are_cut_at_max_tokens(folder: Path) -> None:
    text = "abcdefghijklmnopqrstuvwxyz"  # a token a letter, and two at the ends
    found = encoder_of(folder, max_tokens=12).encode_queries([text, text[:10], text[:9]])
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)
    assert not np.allclose(found[1], found[2], atol=1e-3)
    raw = encoder_of(folder, max_tokens=12, normalize=False).encode_queries([text])
    np.testing.assert_allclose(raw, by_hand(folder, [text], "mean", 12), atol=1e-5)


def test_the_prefix_counts_towards_max_tokens(folder: Path) -> None:
    found = encoder_of(folder, max_tokens=12, query_prefix="12345").encode_queries(
        ["abcdefgh", "abcde"]
    )
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


def test_max_tokens_beyond_the_positions_of_the_model_is_refused(folder: Path) -> None:
    assert encoder_of(folder, max_tokens=128).encode_queries(["x" * 500]).shape == (1, 32)
    with pytest.raises(
        PipelineError, match=r"encoders\.tiny\.max_tokens: 129 is more than the 128"
    ):
        encoder_of(folder, max_tokens=129)
    with pytest.raises(PipelineError, match="2 leaves no room for a text beside the 2 special"):
        encoder_of(folder, max_tokens=2)


def test_rows_keep_their_order_and_do_not_depend_on_their_company(folder: Path) -> None:
    rng = np.random.default_rng(5)
    texts = ["".join(rng.choice(list("abc é水🎁"), size=size)) for size in rng.integers(0, 140, 60)]
    expected = encoder_of(folder, batch_size=1, threads=1).encode_queries(texts)
    for batch_size, threads in ((2, 1), (7, 2), (64, 1)):
        order = rng.permutation(len(texts))
        encoder = encoder_of(folder, batch_size=batch_size, threads=threads)
        found = encoder.encode_queries([texts[at] for at in order])
        np.testing.assert_allclose(found, expected[order], atol=1e-5)


def test_equal_calls_give_equal_bytes(folder: Path) -> None:
    first, second = (encoder_of(folder).encode_passages(TEXTS) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_vectors_are_float32_rows_in_c_order(folder: Path) -> None:
    encoder = encoder_of(folder)
    for texts in ([], [""], list(TEXTS)):
        for found in (encoder.encode_queries(texts), encoder.encode_passages(tuple(texts))):
            assert found.shape == (len(texts), encoder.dimension)
            assert found.dtype == np.float32
            assert found.flags.c_contiguous


def test_weights_stored_in_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", pooling=None)
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    found = encoder_of(folder, pooling="mean").encode_queries(TEXTS)
    whole = AutoModel.from_pretrained(folder, dtype=torch.float32)
    whole.save_pretrained(folder)
    np.testing.assert_allclose(
        found, encoder_of(folder, pooling="mean").encode_queries(TEXTS), atol=1e-6
    )


@pytest.mark.parametrize("normalize", [True, False])
def test_nan_in_a_vector_names_the_text(tmp_path: Path, normalize: bool) -> None:
    encoder = encoder_of(build_model(tmp_path / "model", nan=True), normalize=normalize)
    with pytest.raises(PipelineError, match=r"text 0 \('red running shoes'\) holds NaN"):
        encoder.encode_queries(TEXTS)


def test_a_vector_without_length_is_refused_only_if_it_is_to_be_normalised(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", pooling=None)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.encoder.layer[-1].output.LayerNorm.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    raw = encoder_of(folder, pooling="mean", normalize=False).encode_queries(TEXTS)
    assert not raw.any()
    with pytest.raises(PipelineError, match="has no length"):
        encoder_of(folder, pooling="mean", normalize=True).encode_queries(TEXTS)


def test_a_lone_surrogate_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"text 1 for the encoder tiny is not Unicode"):
        encoder_of(folder).encode_queries(["fine", "half \ud83c of an emoji"])


def test_a_checkpoint_that_lacks_weights_is_refused_rather_than_filled_at_random(
    tmp_path: Path,
) -> None:
    deep = build_model(tmp_path / "deep", layers=3)
    shallow = build_model(tmp_path / "shallow", layers=2)
    (shallow / "config.json").write_bytes((deep / "config.json").read_bytes())
    with pytest.raises(
        PipelineError, match=r"lacks 16 of the model's weights, such as encoder\.layer\.2"
    ):
        encoder_of(shallow)


def test_damaged_safetensors_are_an_error_that_names_the_folder(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-100])
    with pytest.raises(PipelineError, match=r"encoders\.tiny\.weights: .*model cannot be loaded: "):
        encoder_of(folder)


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    spec = Encoder.model_validate(encoder_of(folder)._spec)
    weights = resolve_weights(spec, "tiny")
    for device, there in (
        ("cuda", torch.cuda.is_available()),
        ("mps", torch.backends.mps.is_available()),
    ):
        if not there:
            runtime = Runtime.model_validate({"device": device, "threads": 1, "batch_size": 1})
            with pytest.raises(PipelineError, match=rf"runtime\.device: {device}"):
                load_encoder(spec, weights, runtime)


def test_threads_are_set_and_zero_means_all_that_the_process_may_use(folder: Path) -> None:
    every = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for threads, expected in ((0, every), (2, 2), (1, 1)):
        encoder_of(folder, threads=threads)
        assert torch.get_num_threads() == expected


@pytest.mark.weights
def test_the_default_english_model_ranks_meaning_above_letters() -> None:
    spec = load_params().encoders["minilm"]
    runtime = Runtime(device="cpu", threads=1, batch_size=8)
    encoder = load_encoder(spec, resolve_weights(spec, "minilm"), runtime)
    query = encoder.encode_queries(["running shoes"])
    passages = encoder.encode_passages(["sneakers for joggers", "a cunning ruse"])
    near, far = (passages @ query[0]).tolist()
    assert near > far + 0.2
