"""Models of a hub: what is downloaded, what is refused before it, and what it is hashed as.

The hub is a real server on 127.0.0.1, so nothing here needs the network.
"""

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import snapshot_download

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder
from pipeline.encoders.hub_files import list_files
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.model import load_model
from pipeline.encoders.weights import LocalWeights, at_hand, resolve_weights
from tests.helpers import tiny_models
from tests.helpers.loopback_hub import LoopbackHub
from tests.helpers.tiny_jina import build_jina
from tests.helpers.tiny_models import build_model, edit_json

pytestmark = pytest.mark.slow  # models are loaded

MODEL = "some/model"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of several modules, with the other files that repositories hold."""
    folder = build_model(tmp_path_factory.mktemp("models") / "model", dense=8)
    for name in (
        "README.md", ".gitattributes", "tf_model.h5", "rust_model.ot", "onnx/model.onnx",
        "onnx/config.json", "openvino/openvino_model.xml", "flax_model.msgpack",
    ):  # fmt: skip
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"{}")
    for place in (folder, folder / "2_Dense"):
        torch.save({}, place / "pytorch_model.bin")
    return folder


def entry(
    revision: str | None, *, model: str = MODEL, contract: Any = None, **more: Any
) -> Encoder:
    weights = {"kind": "hub", "model": model, "revision": revision, **more}
    return tiny_models.entry(Path("unused"), weights=weights, **(contract or {}))


def resolve(revision: str | None, **more: Any) -> LocalWeights:
    return resolve_weights(entry(revision, **more), "tiny")


def pickle_dense(model: Path, folder: Path) -> Path:
    """Copy a model whose dense layer is a pickle only."""
    shutil.copytree(model, folder)
    (folder / "2_Dense/model.safetensors").unlink()
    return folder


def test_a_model_of_the_hub_is_the_very_folder_that_was_published(
    hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    revision = hub.publish(MODEL, model)
    spec = entry(revision)
    assert not at_hand(spec.weights)
    found = resolve_weights(spec, "tiny")
    assert at_hand(spec.weights)
    assert found.sha256 == tiny_models.weights_of(model).sha256
    vectors, expected = (
        load_encoder(one, resolve_weights(one, "tiny"), tiny_models.runtime()).encode_queries(["a"])
        for one in (spec, tiny_models.entry(model))
    )
    np.testing.assert_array_equal(vectors, expected)
    assert not list((tmp_path / "cache").rglob("*.downloads"))


def test_only_the_files_that_decide_the_vectors_are_downloaded(
    hub: LoopbackHub, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    revision = hub.publish(MODEL, model)
    resolve(revision)
    assert hub.fetched() == {
        "modules.json", "config.json", "sentence_bert_config.json", "1_Pooling/config.json",
        "2_Dense/config.json", "2_Dense/model.safetensors", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    (line,) = [line for line in caplog.messages if line.startswith("downloading")]
    weights = sum(
        (model / name).stat().st_size
        for name in ("model.safetensors", "2_Dense/model.safetensors", "tokenizer.json")
    )
    assert line == (
        f"downloading {MODEL} at {revision} from {hub.endpoint}: 3 files, {weights / 1e6:.1f} MB"
    )


def test_what_was_downloaded_once_needs_no_hub(hub: LoopbackHub, model: Path) -> None:
    revision = hub.publish(MODEL, model)
    first = resolve(revision)
    hub.models.clear()
    hub.requests.clear()
    assert resolve(revision) == first
    assert hub.requests == []


def test_a_file_list_is_names_and_sizes_and_nothing_is_downloaded(
    hub: LoopbackHub, model: Path
) -> None:
    revision = hub.publish(MODEL, model)
    listed = {file.name: file.size for file in list_files(MODEL, revision, "add")}
    assert listed == {
        path.relative_to(model).as_posix(): path.stat().st_size
        for path in model.rglob("*")
        if path.is_file()
    }
    assert hub.fetched() == set()


def test_a_module_that_has_only_a_pickle_is_named_before_any_weights_move(
    hub: LoopbackHub, model: Path, tmp_path: Path
) -> None:
    revision = hub.publish(MODEL, pickle_dense(model, tmp_path / "old"))
    with pytest.raises(PipelineError) as caught:
        resolve(revision)
    message = str(caught.value)
    assert message.startswith(
        f"encoders.tiny.weights.allow_pickle: {MODEL}@{revision}/2_Dense holds its weights as a "
        "pickle only (pytorch_model.bin)"
    )
    assert "commit" in message
    assert {name for name in hub.fetched() if not name.endswith(".json")} == set()
    assert "tokenizer.json" not in hub.fetched()


def _without_weights(folder: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (folder / name).unlink()


def _without_dense(folder: Path) -> None:
    _without_weights(folder / "2_Dense")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer .* Pin a commit"),
        (lambda folder: (folder / "config.json").unlink(), r"has no config\.json\. Pin a commit"),
        (_without_weights, "has no weights: .* Pin a commit"),
        (_without_dense, "2_Dense has no weights: .* Pin a commit"),
        (lambda folder: edit_json(folder / "config.json", num_hidden_layers=9999), "at most 1000"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is an adapter"),
        (lambda folder: (folder / "modules.json").write_text("[]"), "lists no modules"),
        (lambda folder: (folder / "modules.json").unlink(), "names no pooling of its own"),
    ],
)
def test_a_model_that_cannot_be_loaded_is_refused_before_any_weights_move(
    hub: LoopbackHub, model: Path, tmp_path: Path, spoil: Any, message: str
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(model, folder)
    spoil(folder)
    revision = hub.publish(MODEL, folder)
    with pytest.raises(PipelineError, match=message) as caught:
        resolve(revision)
    assert f"{MODEL}@{revision}" in str(caught.value)
    assert "skeleton" not in str(caught.value)
    assert not any(name.endswith((".safetensors", ".bin")) for name in hub.fetched())


def test_weights_that_a_commit_holds_as_a_pickle_are_fetched_if_the_entry_allows_it(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = build_model(tmp_path / "pickled", pickled=True)
    (folder / "training_log.csv").write_text("x", encoding="utf-8")
    revision = hub.publish(MODEL, folder)
    found = resolve(revision, allow_pickle=True)
    weights = {"kind": "folder", "path": str(folder), "allow_pickle": True}
    assert found.sha256 == tiny_models.weights_of(folder, weights=weights).sha256
    assert "training_log.csv" not in hub.fetched()


def test_code_of_another_repository_runs_only_where_allowed_and_pinned(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "configuration.py").write_text(
        "from transformers import BertConfig\n\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n",
        encoding="utf-8",
    )
    (code / "modeling.py").write_text(
        "from transformers import BertModel\n\n"
        "from .configuration import OwnConfig\n\n"
        "class OwnModel(BertModel):\n    config_class = OwnConfig\n",
        encoding="utf-8",
    )
    folder = build_model(tmp_path / "model")
    names = {
        "AutoConfig": "some/code--configuration.OwnConfig",
        "AutoModel": "some/code--modeling.OwnModel",
    }
    edit_json(folder / "config.json", model_type="own", auto_map=names)
    (folder / "modeling.py").write_text("# a copy that config.json does not name\n", "utf-8")
    pin = hub.publish("some/code", code)
    revision = hub.publish(MODEL, folder)
    home = Path(snapshot_download(MODEL, revision=revision, cache_dir=tmp_path / "home/hub"))
    hub.sent.clear()
    with pytest.raises(PipelineError, match="commit of some/code is not pinned"):
        resolve(revision, remote_code=True)
    assert "model.safetensors" not in hub.fetched()
    with pytest.raises(PipelineError, match=r"cannot be loaded|code of the model's own"):
        load_encoder(entry(revision), resolve(revision), tiny_models.runtime())
    spec = entry(revision, remote_code=True, code_revision=pin)
    weights = resolve_weights(spec, "tiny")
    assert load_encoder(spec, weights, tiny_models.runtime()).encode_queries(["a"]).shape == (1, 32)
    loaded = load_model(spec, weights)
    assert type(loaded.modules[0].auto_model).__name__ == "OwnModel"
    assert (weights.folder / "modeling.py").read_bytes() == (code / "modeling.py").read_bytes()
    # The user's own cache is only read.
    assert (home / "modeling.py").read_bytes() == (folder / "modeling.py").read_bytes()


def test_settings_that_are_no_object_are_refused_before_the_weights(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    folder = build_model(tmp_path / "model")
    (folder / "config.json").write_text("[]", encoding="utf-8")
    revision = hub.publish(MODEL, folder)
    for remote_code in (False, True):
        with pytest.raises(PipelineError, match=r"config\.json must be an object .found \[\]"):
            resolve(revision, remote_code=remote_code)
    assert "model.safetensors" not in hub.fetched()


def test_code_that_is_built_in_is_refused_before_its_commit_is_asked_for(
    hub: LoopbackHub, tmp_path: Path
) -> None:
    revision = hub.publish(MODEL, build_jina(tmp_path / "jina"))
    with pytest.raises(PipelineError, match="Remove remote_code and code_revision"):
        resolve(revision, remote_code=True)
    assert "model.safetensors" not in hub.fetched()
