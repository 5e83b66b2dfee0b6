import platform
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from pipeline.core import cpu
from pipeline.core.errors import PipelineError
from pipeline.encoders.dimension import warn_of_cut
from pipeline.encoders.engine import EngineChoice
from pipeline.encoders.identity import identity
from tests.helpers.tiny_models import (
    build_model,
    by_hand,
    edit_json,
    encoder_of,
    entry,
    weights_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

ENGINES = ("torch", "openvino")
TEXTS = (
    "red running shoes", "camiseta de algodón", "水筒 1リットル", "", "x" * 90, "Shoe", "shoe",
    "🎁 gift", "a b c d e f g", "zapatillas " * 4,
)  # fmt: skip
POOLINGS = ("mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.mark.parametrize(("own", "poolings"), [("max", POOLINGS), (None, ("cls", "lasttoken"))])
def test_a_named_pooling_replaces_the_models_own(
    tmp_path: Path, own: str | None, poolings: tuple[str, ...]
) -> None:
    folder = build_model(tmp_path / "model", pooling=own)
    for pooling in poolings:
        found = encoder_of(folder, pooling=pooling, normalize=False).encode_passages(TEXTS)
        expected = by_hand(folder, TEXTS, pooling)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=pooling)


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
    assert found.shape == (len(TEXTS), 7)
    layer = load_file(folder / "2_Dense/model.safetensors")
    weight, bias = layer["linear.weight"].numpy(), layer["linear.bias"].numpy()
    expected = np.tanh(by_hand(folder, TEXTS, "cls") @ weight.T + bias)
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


@pytest.mark.parametrize("engine", ENGINES)
def test_normalize_is_obeyed_though_the_model_normalizes_itself(folder: Path, engine: str) -> None:
    raw = encoder_of(folder, engine=engine, normalize=False).encode_queries(TEXTS)
    unit = encoder_of(folder, engine=engine, normalize=True).encode_queries(TEXTS)
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


def test_max_tokens_beyond_the_positions_of_the_model_is_refused(folder: Path) -> None:
    assert encoder_of(folder, max_tokens=128).encode_queries(["x" * 500]).shape == (1, 32)
    with pytest.raises(
        PipelineError, match=r"encoders\.tiny\.max_tokens: 129 is more than the 128"
    ):
        encoder_of(folder, max_tokens=129)
    with pytest.raises(PipelineError, match="2 leaves no room for a text beside the 2 special"):
        encoder_of(folder, max_tokens=2)


def test_vectors_are_float32_rows_in_c_order(folder: Path) -> None:
    encoder = encoder_of(folder)
    for texts in ([], [""], list(TEXTS)):
        for found in (encoder.encode_queries(texts), encoder.encode_passages(tuple(texts))):
            assert found.shape == (len(texts), 32)
            assert found.dtype == np.float32
            assert found.flags.c_contiguous


def test_nan_in_a_vector_names_the_text(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", nan=True)
    for normalize in (True, False):
        encoder = encoder_of(folder, engine="auto", normalize=normalize)
        with pytest.raises(PipelineError, match=r"the text 'red running shoes' holds NaN"):
            encoder.encode_queries(TEXTS)


def test_a_vector_without_length_is_refused_only_if_it_is_to_be_normalised(
    tmp_path: Path,
) -> None:
    folder = build_model(tmp_path / "model", pooling=None)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        for parameter in model.encoder.layer[-1].output.LayerNorm.parameters():
            parameter.zero_()
    model.save_pretrained(folder)
    raw = encoder_of(folder, normalize=False, pooling="mean").encode_queries(TEXTS)
    assert not raw.any()
    with pytest.raises(
        PipelineError, match=r"encoders\.tiny: text 0 \('red .*its vector is zero and cannot be"
    ):
        encoder_of(folder, normalize=True, pooling="mean").encode_queries(TEXTS)


def test_a_dimension_keeps_the_first_components_and_normalises_what_is_left(
    tmp_path: Path,
) -> None:
    folder = build_model(tmp_path / "model", hidden=24)
    whole = encoder_of(folder, normalize=False).encode_passages(TEXTS)
    for dimension in (8, 24):
        found = encoder_of(folder, normalize=True, dimension=dimension).encode_passages(TEXTS)
        assert found.flags.c_contiguous
        cut = whole[:, :dimension]
        expected = cut / np.linalg.norm(cut, axis=1, keepdims=True)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)


def test_a_dimension_that_the_model_has_not_or_was_not_trained_for_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = build_model(tmp_path / "model", hidden=24)
    with pytest.raises(
        PipelineError,
        match=r"encoders\.tiny\.dimension: 25 is more than the model's 24 components\. Set it to",
    ):
        encoder_of(folder, dimension=25)
    assert encoder_of(folder, dimension=10).encode_passages(["x"]).shape == (1, 10)
    for section in ("encoders", "trained"):
        weights = replace(weights_of(folder), section=section)
        warn_of_cut(entry(folder, dimension=10), weights, 24)
        assert f"warning: {section}.tiny.dimension: 10: nothing says that" in caplog.text
    caplog.clear()
    edit_json(folder / "config.json", matryoshka_dimensions=[8, 16])
    with pytest.raises(
        PipelineError, match=r"the model was trained to be cut at 8, 16\. Set it to one"
    ):
        encoder_of(folder, dimension=10)
    for dimension in (8, 16, 24, "model"):
        encoder_of(folder, dimension=dimension)
        warn_of_cut(entry(folder, dimension=dimension), weights_of(folder), 24)
    assert caplog.text == ""


def test_an_encoder_knows_the_dimension_of_its_models_own_vectors(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", dense=7)
    assert encoder_of(folder, dimension=5).dimension == 7
    assert encoder_of(folder, engine="openvino").dimension == 7


def test_a_tokenizer_that_the_library_cannot_run_is_refused(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", tokenizer=None)
    (folder / "vocab.txt").write_text("", encoding="utf-8")
    edit_json(folder / "tokenizer_config.json", tokenizer_class="CanineTokenizer")
    with pytest.raises(PipelineError, match=r"its tokenizer is CanineTokenizer, which the tokeni"):
        encoder_of(folder)


def test_raw_vectors_share_an_identity_only_if_nothing_they_depend_on_differs(
    tmp_path: Path, folder: Path
) -> None:
    base = entry(folder, query_prefix="q: ", passage_prefix="p: ")
    weights, choice = weights_of(folder), EngineChoice("torch", "cpu")
    expected = identity(base, weights, choice, "query")
    swapped = entry(folder, query_prefix="p: ", passage_prefix="q: ")
    assert identity(swapped, weights, choice, "passage") == expected
    finished = {"normalize": False, "similarity": "dot", "dimension": 8, "languages": ("en",)}
    assert identity(base.model_copy(update=finished), weights, choice, "query") == expected
    others = [
        identity(base, weights, choice, "passage"),
        identity(base, weights, EngineChoice("openvino", "cpu"), "query"),
        identity(base, weights, EngineChoice("torch", "cuda"), "query"),
        identity(base, weights_of(build_model(tmp_path / "model", seed=9)), choice, "query"),
        *(
            identity(base.model_copy(update=change), weights, choice, "query")
            for change in ({"max_tokens": 64}, {"pooling": "cls"}, {"precision": "bfloat16"})
        ),
    ]
    assert expected not in others


def test_cpus_of_other_instructions_share_no_vectors(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, weights, choice = entry(folder), weights_of(folder), EngineChoice("openvino", "cpu")
    found = []
    for flags in ({"avx2"}, {"avx2", "avx512f"}, {"avx2", "avx512f", "avx512_vnni"}, set()):
        monkeypatch.setattr(cpu, "cpu_flags", lambda flags=flags: frozenset(flags))
        found.append(identity(spec, weights, choice, "query")["engine"].split(", "))
    assert [each[0] for each in found] == [
        f"openvino-cpu {of}" for of in ("avx2", "avx512f", "avx512_vnni", platform.machine())
    ]
    assert all(f"openvino {version('openvino')}" in each for each in found)


def test_what_is_computed_in_bfloat16_is_shared_by_cpus_with_the_same_instructions_for_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, choice = weights_of(folder), EngineChoice("openvino", "cpu")
    amx = {"avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"}
    found = {}
    for name, flags in (("amx", amx), ("bf16", amx - {"amx_bf16", "amx_int8"})):
        monkeypatch.setattr(cpu, "cpu_flags", lambda flags=flags: frozenset(flags))
        for precision in ("float32", "int8", "bfloat16"):
            about = identity(entry(folder, precision=precision), weights, choice, "query")
            found[name, precision] = about["engine"].split(", ")[0]
    assert found == {
        ("amx", "float32"): "openvino-cpu amx_int8",
        ("amx", "int8"): "openvino-cpu amx_int8",
        ("amx", "bfloat16"): "openvino-cpu amx_int8 amx_bf16",
        ("bf16", "float32"): "openvino-cpu avx512_vnni",
        ("bf16", "int8"): "openvino-cpu avx512_vnni",
        ("bf16", "bfloat16"): "openvino-cpu avx512_vnni avx512_bf16",
    }
    torch_cpu, spec = EngineChoice("torch", "cpu"), entry(folder, precision="bfloat16")
    about = identity(spec, weights, torch_cpu, "query")
    assert about["engine"].startswith("torch-cpu avx512_vnni avx512_bf16, ")
