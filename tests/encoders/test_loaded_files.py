"""Everything that is loaded is in the hash of the weights."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.core.errors import PipelineError
from pipeline.encoders.model import load_model
from pipeline.encoders.model_folder import decisive_files
from pipeline.encoders.weights import resolve_weights
from tests.helpers.opened_files import opened_files
from tests.helpers.tiny_models import build_model, edit_json, entry, weights_of

pytestmark = pytest.mark.slow  # models are loaded

MODELS: dict[str, dict[str, Any]] = {
    "bert, dense": {"family": "bert", "dense": 8},
    "distilbert, word pieces": {"family": "distilbert", "tokenizer": "wordpiece"},
    "roberta, plain": {"family": "roberta", "pooling": None},
    "gpt2, prompts": {"family": "gpt2", "prompts": {"query": "q: "}},
    "fnet, pickled": {"family": "fnet", "dense": 8, "pickled": True},
}


def add_decoys(folder: Path) -> None:
    """Write files that a library might prefer to those of the model."""
    other = {"linear.weight": torch.ones(8, 32), "linear.bias": torch.ones(8)}
    for place in (".hidden", "openvino", "onnx", "0_Transformer", "1_Pooling/deep"):
        (folder / place).mkdir(parents=True, exist_ok=True)
        save_file(other, folder / place / "model.safetensors")
        (folder / place / "config.json").write_text("{}")
    for name in ("model.onnx", "tf_model.h5", "README.md", ".env", "chat_template.jinja"):
        (folder / name).write_text("x")
    if (folder / "model.safetensors").exists():
        for place in ("", "2_Dense"):
            if (folder / place).is_dir():
                torch.save(other, folder / place / "pytorch_model.bin")
                torch.save(other, folder / place / "model.bin")


def test_every_file_that_is_opened_is_in_the_hash(tmp_path: Path) -> None:
    for name, settings in MODELS.items():
        folder = build_model(tmp_path / name, **settings)
        weights = {"kind": "folder", "path": str(folder), "allow_pickle": "pickled" in settings}
        pooling = "model" if settings.get("pooling", "mean") else "mean"
        spec = entry(folder, weights=weights, pooling=pooling, max_tokens=16)
        add_decoys(folder)
        with opened_files(tmp_path) as opened:
            load_model(spec, resolve_weights(spec, "tiny"))
        hashed = {f"{name}/{file}" for file in decisive_files(folder)}
        assert opened <= hashed, name
        assert len([file for file in opened if file.endswith((".safetensors", ".bin"))]) >= 1
        assert f"{name}/tokenizer.json" in opened


def test_a_link_in_a_folder_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    folder, elsewhere = build_model(tmp_path / "model", dense=8), tmp_path / "elsewhere"
    expected = weights_of(folder).sha256
    elsewhere.mkdir()
    for name in ("model.safetensors", "2_Dense"):
        (folder / name).rename(elsewhere / name)
        (folder / name).symlink_to(elsewhere / name)
    assert weights_of(folder).sha256 == expected
    weights = load_file(elsewhere / "2_Dense/model.safetensors")
    save_file(
        {name: of + 1 for name, of in weights.items()}, elsewhere / "2_Dense/model.safetensors"
    )
    assert weights_of(folder).sha256 != expected


@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_an_index_of_weights_names_only_files_beside_it(tmp_path: Path, form: str) -> None:
    folder = build_model(tmp_path / "model")
    allowed = {"kind": "folder", "path": str(folder), "allow_pickle": True}
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    stem = {"safetensors": "model", "bin": "pytorch_model"}[form]
    index = folder / f"{stem}.{form}.index.json"

    def write(place: Path, name: object) -> None:
        if form == "bin":
            torch.save(state, place)
        else:
            save_file(state, place, metadata={"format": "pt"})
        edit_json(index, metadata={}, weight_map=dict.fromkeys(state, name))

    shard = f"{stem}-00001-of-00001.{form}"
    write(folder / shard, shard)
    load_model(entry(folder, weights=allowed), weights_of(folder, weights=allowed))
    (folder / shard).unlink()
    outside = tmp_path / f"outside.{form}"
    for name in (str(outside), f"../{outside.name}", "..", f"x\\{outside.name}", 5, ""):
        write(outside, name)
        with pytest.raises(PipelineError, match=r"weight_map\.\S+ can load files that the hash"):
            weights_of(folder, weights=allowed)
    index.write_text(json.dumps({"weight_map": []}))
    with pytest.raises(PipelineError, match="has no weight_map"):
        weights_of(folder, weights=allowed)


def test_a_folder_that_changes_between_its_hash_and_its_loading_is_refused(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    weights = weights_of(folder)
    load_model(entry(folder), weights)
    build_model(folder, seed=1)
    with pytest.raises(PipelineError, match="changed while it was read"):
        load_model(entry(folder), weights)


def test_a_name_that_would_make_two_lines_of_the_hash_is_refused(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    (folder / "a\nb.json").write_text("{}")
    with pytest.raises(PipelineError, match=r"'a\\nb.json' is not a name of a file"):
        weights_of(folder)
