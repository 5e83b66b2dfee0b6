import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from pipeline import layout
from pipeline.encoders.encoder import TextEncoder, load_encoder
from pipeline.encoders.model import load_model
from pipeline.encoders.weights import resolve_weights
from pipeline.errors import PipelineError
from pipeline.params import Encoder, Runtime, load_params
from tests.artefacts import ROOT
from tests.tiny_models import build_model

TEXTS = (
    "red running shoes", "camiseta de algodón", "水筒 1リットル", "", "x" * 90, "Shoe", "shoe",
    "🎁 gift", "a b c d e f g", "zapatillas " * 4,
)  # fmt: skip
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


def encoder_of(
    folder: Path, *, engine: str = "torch", threads: int = 1, **contract: Any
) -> TextEncoder:
    spec = Encoder.model_validate(
        {
            "weights": {"kind": "folder", "path": str(folder)},
            "query_prefix": "", "passage_prefix": "", "pooling": "model", "normalize": True,
            "similarity": "cosine", "languages": ("any",), "max_tokens": 128,
            "dimension": "model", "precision": "float32",
        } | contract
    )  # fmt: skip
    runtime = Runtime.model_validate(
        {"device": "cpu", "engine": engine, "threads": threads, "store_gigabytes": 1}
    )
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


@pytest.fixture(autouse=True)
def converted_elsewhere(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keep tiny converted models out of the project's cache."""
    if "weights" not in request.keywords:
        monkeypatch.setattr(layout, "cache", lambda: tmp_path / "cache")


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("own", ["max", None])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_named_pooling_replaces_the_models_own(
    tmp_path: Path, pooling: str, own: str, engine: str
) -> None:
    folder = build_model(tmp_path / "model", pooling=own)
    encoder = encoder_of(folder, engine=engine, pooling=pooling, normalize=False)
    found = encoder.encode_passages(TEXTS)
    expected = by_hand(folder, TEXTS, pooling)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("engine", ["torch", "openvino"])
@pytest.mark.parametrize("own", POOLINGS)
def test_pooling_model_is_the_models_own(tmp_path: Path, own: str, engine: str) -> None:
    folder = build_model(tmp_path / "model", pooling=own, tokenizer="wordpiece")
    found = encoder_of(folder, engine=engine, normalize=False).encode_queries(TEXTS)
    expected = by_hand(folder, TEXTS, own)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_dense_layer_after_a_replaced_pooling_still_acts(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", pooling="mean", dense=7)
    encoder = encoder_of(folder, pooling="cls", normalize=False)
    found = encoder.encode_queries(TEXTS)
    assert found.shape == (len(TEXTS), 7)
    loaded = load_model(encoder._spec, resolve_weights(encoder._spec, "tiny"))
    linear = loaded.modules[2].linear
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


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("torch", "float32"), ("openvino", "float32"), ("openvino", "int8"), ("torch", "bfloat16")],
)
def test_a_vector_is_the_same_to_the_last_bit_whatever_its_company_place_and_threads(
    folder: Path, engine: str, precision: str
) -> None:
    rng = np.random.default_rng(5)
    texts = ["".join(rng.choice(list("abc é水🎁"), size=size)) for size in rng.integers(0, 140, 60)]
    encoder = encoder_of(folder, engine=engine, precision=precision, threads=1)
    expected = np.concatenate([encoder.encode_queries([text]) for text in texts])
    for threads in (1, 2):
        order = rng.permutation(len(texts))
        among = encoder_of(folder, engine=engine, precision=precision, threads=threads)
        found = among.encode_queries([texts[at] for at in order])
        np.testing.assert_array_equal(found, expected[order])


def test_half_precision_on_a_cpu_is_near_float32_and_not_equal(folder: Path) -> None:
    expected = encoder_of(folder).encode_queries(TEXTS)
    for precision in ("bfloat16", "float16"):
        found = encoder_of(folder, precision=precision).encode_queries(TEXTS)
        assert ((found * expected).sum(axis=1) > 0.99).all()
        assert np.abs(found - expected).max() > 1e-5


def test_a_dimension_keeps_the_first_components_and_then_normalises(folder: Path) -> None:
    raw = encoder_of(folder, normalize=False).encode_queries(TEXTS)[:, :8]
    found = encoder_of(folder, dimension=8).encode_queries(TEXTS)
    np.testing.assert_allclose(found, raw / np.linalg.norm(raw, axis=1, keepdims=True), atol=1e-6)
    with pytest.raises(PipelineError, match="33 is more than the model's 32 components"):
        encoder_of(folder, dimension=33).encode_queries(TEXTS)


def test_a_model_is_cut_only_where_it_was_trained_to_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_model(tmp_path / "model")
    encoder_of(folder, dimension=8).encode_queries(TEXTS)
    assert "nothing says that the model was trained to be cut" in caplog.text
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"matryoshka_dimensions": [4, 16]}))
    assert encoder_of(folder, dimension=16).encode_queries(TEXTS).shape == (len(TEXTS), 16)
    with pytest.raises(PipelineError, match="trained to be cut at 4, 16"):
        encoder_of(folder, dimension=8).encode_queries(TEXTS)


def test_a_model_is_converted_once_and_again_if_it_was_damaged(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "pipeline")
    first = encoder_of(folder, engine="openvino").encode_queries(TEXTS)
    second = encoder_of(folder, engine="openvino").encode_queries(TEXTS)
    assert caplog.text.count("converting") == 1
    np.testing.assert_array_equal(first, second)
    (model,) = (tmp_path / "cache/engines").glob("*/model.bin")
    model.write_bytes(model.read_bytes()[:-1])
    third = encoder_of(folder, engine="openvino").encode_queries(TEXTS)
    assert "is not as it was made; it is made again" in caplog.text
    np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize("engine", ["auto", "openvino"])
def test_a_pooling_that_leaves_its_prompt_out_is_obeyed_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, engine: str
) -> None:
    folder = build_model(tmp_path / "model")
    path = folder / "1_Pooling/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"include_prompt": False}))
    if engine == "openvino":
        with pytest.raises(PipelineError, match="openvino cannot run this model: "):
            encoder_of(folder, engine=engine, query_prefix="query: ")
        return
    encoder = encoder_of(folder, engine=engine, query_prefix="query: ")
    model = SentenceTransformer(str(folder), device="cpu")
    expected = model.encode(list(TEXTS), prompt="query: ")
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)
    assert "tiny runs on torch, since for openvino " in caplog.text


def test_encoding_imports_no_telemetry_and_leaves_nothing_at_home(
    tmp_path: Path, folder: Path
) -> None:
    program = (
        "import sys; from pathlib import Path; from pipeline import layout\n"
        f"layout.cache = lambda: Path({str(tmp_path / 'own')!r})\n"
        "from tests.test_encoders import encoder_of\n"
        f"e = encoder_of(Path({str(folder)!r}), engine='openvino', precision='int8')\n"
        "e.encode_queries(['shoe'])\n"
        "assert 'nncf' in sys.modules and sys.modules['openvino_telemetry'] is None\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not [path for path in home.rglob("*") if "intel" in path.name.lower()]


def test_equal_calls_give_equal_bytes(folder: Path) -> None:
    first, second = (encoder_of(folder).encode_passages(TEXTS) for _ in range(2))
    assert first.tobytes() == second.tobytes()


def test_vectors_are_float32_rows_in_c_order(folder: Path) -> None:
    encoder = encoder_of(folder)
    for texts in ([], [""], list(TEXTS)):
        for found in (encoder.encode_queries(texts), encoder.encode_passages(tuple(texts))):
            assert found.shape == (len(texts), 32)
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
    with pytest.raises(PipelineError, match="its vector is zero and cannot be normalised"):
        encoder_of(folder, pooling="mean", normalize=True).encode_queries(TEXTS)


def test_a_lone_surrogate_is_refused_by_name(folder: Path) -> None:
    with pytest.raises(PipelineError, match=r"text 1 for encoders\.tiny is not Unicode"):
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
            runtime = Runtime.model_validate(
                {"device": device, "engine": "auto", "threads": 1, "store_gigabytes": 1}
            )
            with pytest.raises(PipelineError, match=rf"runtime\.device: {device}"):
                load_encoder(spec, weights, runtime)


@pytest.mark.weights
def test_the_default_english_model_ranks_meaning_above_letters() -> None:
    spec = load_params().encoders["minilm"]
    runtime = Runtime(device="cpu", engine="auto", threads=1, store_gigabytes=1)
    encoder = load_encoder(spec, resolve_weights(spec, "minilm"), runtime)
    query = encoder.encode_queries(["running shoes"])
    passages = encoder.encode_passages(["sneakers for joggers", "a cunning ruse"])
    near, far = (passages @ query[0]).tolist()
    assert near > far + 0.2
