"""Nothing outside the hash of a model folder decides its vectors."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.core.errors import PipelineError
from pipeline.encoders.model_folder import decisive_files, view_decisive
from tests.helpers.tiny_models import (
    build_model,
    changed_json,
    edit_json,
    encoder_of,
    weights_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

TEXTS = ["red shoe", "水筒", ""]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return build_model(tmp_path / "model", dense=8)


def vectors(folder: Path, **contract: Any) -> np.ndarray:
    found: np.ndarray = encoder_of(folder, **contract).encode_passages(TEXTS)
    return found


def _loader(key: str, **arguments: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "sentence_bert_config.json", **{key: arguments})


def _adapter(folder: Path) -> None:
    edit_json(
        folder / "adapter_config.json", base_model_name_or_path="other/model", peft_type="LORA"
    )


REACHES_OUT: dict[str, tuple[Callable[[Path], None], str]] = {
    "the pickle beside safetensors": (
        _loader("model_kwargs", use_safetensors=False), r"model_kwargs\.use_safetensors",
    ),
    "the same by its old name": (
        _loader("model_args", use_safetensors=False), r"model_args\.use_safetensors",
    ),
    "a variant": (_loader("model_kwargs", variant="fp16"), r"model_kwargs\.variant"),
    "a subfolder": (_loader("config_kwargs", subfolder="onnx"), r"config_kwargs\.subfolder"),
    "a state": (_loader("model_kwargs", state_dict={}), r"model_kwargs\.state_dict"),
    "another revision": (_loader("tokenizer_args", revision="x"), r"tokenizer_args\.revision"),
    "a gguf file": (_loader("model_kwargs", gguf_file="x.gguf"), r"model_kwargs\.gguf_file"),
    "a pickle's code": (_loader("model_kwargs", weights_only=False), r"weights_only"),
    "another tokenizer": (
        changed_json("sentence_bert_config.json", tokenizer_name_or_path="bert-base-uncased"),
        "tokenizer_name_or_path",
    ),
    "weights by another name": (
        changed_json("config.json", transformers_weights="other.safetensors"),
        "transformers_weights",
    ),
    "the same, deep inside": (
        changed_json("config.json", text_config={"transformers_weights": "x"}),
        r"text_config\.transformers_weights",
    ),
    "attention from the hub": (
        changed_json("config.json", _attn_implementation="kernels-community/flash"),
        "_attn_implementation",
    ),
    "a vocabulary elsewhere": (
        changed_json("tokenizer_config.json", vocab_file=__file__), "vocab_file",
    ),
    "arguments of the tokenizer": (
        changed_json("tokenizer_config.json", init_inputs=["/x"]), "init_inputs",
    ),
    "a tokenizer's gguf": (changed_json("tokenizer_config.json", gguf_file="x"), "gguf_file"),
    "an adapter": (_adapter, "adapter on another model"),
    "a setting without effect": (
        changed_json("sentence_bert_config.json", query_expansion={"length": 32}),
        "query_expansion",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REACHES_OUT)
def test_a_setting_that_can_load_what_is_not_hashed_is_refused_by_name(
    folder: Path, kind: str
) -> None:
    spoil, name = REACHES_OUT[kind]
    spoil(folder)
    with pytest.raises(PipelineError, match=name) as err:
        weights_of(folder)
    assert "\n" not in str(err.value)


def test_settings_that_choose_no_file_are_taken(folder: Path) -> None:
    expected = vectors(folder)
    _loader("model_args", attn_implementation="eager", trust_remote_code=True)(folder)
    changed_json("tokenizer_config.json", special_tokens_map_file="/root/.cache/gone.json")(folder)
    np.testing.assert_allclose(vectors(folder), expected, atol=1e-6)


def test_a_model_is_loaded_from_its_hashed_files_alone(folder: Path, tmp_path: Path) -> None:
    expected, sha256 = vectors(folder), weights_of(folder).sha256
    other = build_model(tmp_path / "other", seed=1, dense=8)
    for name in ("", "2_Dense"):
        state = load_file(other / name / "model.safetensors")
        torch.save(state, folder / name / "pytorch_model.bin")
    shutil.copytree(other, folder / ".hidden")
    shutil.copytree(other, folder / "onnx")
    (folder / "linked").symlink_to(other)
    (folder / "pytorch_model.bin.index.json.bak").write_text("{", encoding="utf-8")
    assert weights_of(folder).sha256 == sha256
    assert vectors(folder).tobytes() == expected.tobytes()
    with view_decisive(folder) as view:
        seen = {path.relative_to(view).as_posix() for path in view.rglob("*") if path.is_file()}
        assert seen == set(decisive_files(folder))
        assert not any(".bin" in name or "hidden" in name for name in seen)
    assert not view.exists()


def test_a_path_that_ends_in_dots_is_a_model_folder_too(folder: Path) -> None:
    with view_decisive(folder / "1_Pooling" / "..") as view:
        assert view.name == folder.name
        assert (view / "config.json").is_file()


def test_the_list_of_modules_counts_wherever_the_transformer_is(folder: Path) -> None:
    inside = folder / "0_Transformer"
    inside.mkdir()
    for path in list(folder.iterdir()):
        if path.is_file() and path.name != "modules.json":
            path.rename(inside / path.name)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    before, first = weights_of(folder).sha256, vectors(folder, normalize=False)
    without_dense = [module for module in modules if "Dense" not in module["type"]]
    (folder / "modules.json").write_text(json.dumps(without_dense), encoding="utf-8")
    assert vectors(folder, normalize=False).shape != first.shape
    assert weights_of(folder).sha256 != before


def _json(name: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        data = json.loads((folder / name).read_text(encoding="utf-8"))
        (folder / name).write_text(json.dumps(change(data)), encoding="utf-8")

    return spoil


def _text(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_bytes(content)

    return spoil


def _half_the_weights(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:9_000])


def _nameless(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"path": module["path"], "type": module["type"]} for module in modules]


def _module(at: int, **changes: Any) -> Callable[[Path], None]:
    def change(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        modules[at] |= changes
        return modules

    return _json("modules.json", change)


WRONG: dict[str, Callable[[Path], None]] = {
    "a path of another type": _module(1, path=5),
    "a class of another type": _module(1, type=5),
    "a module of the library": _module(1, type="sentence_transformers.util.misc.importlib"),
    "a function of the library": _module(1, type="sentence_transformers.util.cos_sim"),
    "a class in a wrong place": _module(1, type="sentence_transformers.nowhere.Pooling"),
    "a path of 300 letters": _module(1, path="x" * 300),
    "a path with a zero": _module(1, path="a\x00b"),
    "modules that are text": _text("modules.json", b'"x"'),
    "no name": _json("modules.json", _nameless),
    "no pooling settings": _text("1_Pooling/config.json", b"{}"),
    "a list of settings": _text("config.json", b"[]"),
    "settings of no model": _text("config.json", b"{}"),
    "a size that is text": changed_json(hidden_size="x"),
    "a size of 0": changed_json(num_attention_heads=0),
    "a size below 0": changed_json(num_hidden_layers=-1, vocab_size=-5),
    "a billion layers": changed_json(num_hidden_layers=10**9),
    "a size of 400 digits": changed_json(hidden_size=10**400),
    "a number of 5,000 digits": _text("config.json", b'{"hidden_size": ' + b"9" * 5_000 + b"}"),
    "positions that are text": changed_json(max_position_embeddings="x"),
    "NaN": changed_json(layer_norm_eps=float("nan")),
    "infinity": changed_json(layer_norm_eps=float("inf")),
    "an unknown activation": changed_json(hidden_act="x"),
    "dimensions that are text": changed_json(matryoshka_dimensions="abc"),
    "dimensions that are texts": changed_json(matryoshka_dimensions=["8"]),
    "100,000 brackets": _text("config.json", b"[" * 100_000),
    "100,000 objects": _text("config.json", b'{"a":' * 100_000),
    "600 lists": _text("config.json", b"[" * 600 + b"]" * 600),
    "100,000 brackets of a tokenizer": _text("tokenizer.json", b"[" * 100_000),
    "a tokenizer that is empty": _text("tokenizer.json", b"{}"),
    "tokenizer settings that are a list": _text("tokenizer_config.json", b"[]"),
    "bytes that are not UTF-8": _text("config.json", b'{"a": "\xff"}'),
    "an activation that is a function": changed_json(
        "2_Dense/config.json", activation_function="torch.hub.list"
    ),
    "a layer of another width": changed_json("2_Dense/config.json", in_features=5),
    "weights that are text": _text("model.safetensors", b"x" * 100),
    "half the weights": _half_the_weights,
    "loader arguments that are a list": changed_json("sentence_bert_config.json", model_kwargs=[]),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_model_file_of_a_wrong_form_is_one_message(folder: Path, kind: str) -> None:
    WRONG[kind](folder)
    with pytest.raises(PipelineError) as err:
        vectors(folder, dimension=4)
    assert "\n" not in str(err.value)
    assert len(str(err.value)) < 1_000


def test_a_hostile_pickle_does_not_run(folder: Path, tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return Path.touch, (Path(tmp_path / "ran"),)  # type: ignore[return-value]

    torch.save({"x": Hostile()}, folder / "pytorch_model.bin")
    expected = vectors(folder)
    _loader("model_kwargs", use_safetensors=False, weights_only=False)(folder)
    with pytest.raises(PipelineError, match="use_safetensors"):
        vectors(folder)
    assert expected.shape == (3, 8)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_a_damaged_model_folder_gives_the_same_vectors_another_hash_or_one_message(
    folder: Path,
) -> None:
    """Every file is damaged in turn, by bytes, by cuts, and in its JSON values."""
    rng = np.random.default_rng(11)
    expected, sha256 = vectors(folder), weights_of(folder).sha256
    same = other = refused = 0
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for _ in range(4):
            file.write_bytes(_damage(whole, file.suffix == ".json", rng))
            try:
                found = weights_of(folder).sha256
                changed = vectors(folder).tobytes() != expected.tobytes()
            except PipelineError as err:
                refused += 1
                message = str(err)
                if "\n" in message or len(message) > 2_000:
                    pytest.fail(message)
                continue
            assert found != sha256 or not changed, file
            same, other = same + (not changed), other + changed
        file.write_bytes(whole)
    assert refused > 10
    assert same > 2


def _damage(whole: bytes, is_json: bool, rng: np.random.Generator) -> bytes:
    data = bytearray(whole)
    kind = rng.integers(3 if not is_json else 5)
    if kind == 0:
        return bytes(data[: rng.integers(len(data))])
    if kind < 3:
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        return bytes(data)
    parsed = json.loads(whole)
    holders = [parsed]
    for one in holders:
        inner = one.values() if isinstance(one, dict) else one
        holders += [value for value in inner if isinstance(value, dict | list) and value]
    holder = holders[int(rng.integers(len(holders)))] if parsed else {}
    keys = list(holder) if isinstance(holder, dict) else range(len(holder))
    if keys:
        values: list[Any] = [None, -1, 0, "x", [], {}, 1e300, 2**40, True, [[]], "../x", "\ud800"]
        holder[keys[int(rng.integers(len(keys)))]] = values[int(rng.integers(len(values)))]
    return json.dumps(parsed).encode()
