"""From a model's own files to an entry: no model is loaded."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.core import params_edit
from pipeline.core.errors import PipelineError
from pipeline.encoders.catalogue.description import describe, front_matter
from pipeline.encoders.catalogue.proposal import Proposal, Wishes, propose
from pipeline.encoders.catalogue.source import (
    Folder,
    Hub,
    Wheel,
    find_model_folders,
    parse_source,
)
from pipeline.encoders.prompts import (
    CONFIG,
    Prefixes,
    Registered,
    choose_prefixes,
    family_prefixes,
    mentioned_prompts,
)
from tests.helpers.artefacts import ROOT, shipped

E5_README = """---
language:
- multilingual
- af
- 'no'
- zh
license: mit
model-index:
- name: x
  results: [{language: en}]
---
Each input text should start with "query: " or "passage: ".
input_texts = ['query: how much', "passage: As a general"]
"""


def settings_folder(folder: Path, **files: Any) -> Path:
    """Write the settings of a model as E5 has them, without weights; `files` replace some."""
    defaults: dict[str, Any] = {
        "config.json": {"model_type": "bert", "hidden_size": 384, "max_position_embeddings": 512},
        "modules.json": [
            {"path": "", "type": "sentence_transformers.models.Transformer"},
            {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            {"path": "2_Normalize", "type": "sentence_transformers.models.Normalize"},
        ],
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "sentence_bert_config.json": {"max_seq_length": 256, "do_lower_case": False},
        "tokenizer_config.json": {"model_max_length": 512},
    }  # fmt: skip
    for name, content in (defaults | files).items():
        if content is None:
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        path.write_text(text, encoding="utf-8")
    return folder


def proposed(folder: Path, name: str = "org/model", wishes: Wishes | None = None) -> Proposal:
    return propose(describe(folder), name, wishes or Wishes())


def test_what_the_files_say_is_the_entry(tmp_path: Path) -> None:
    prompts = {"prompts": {"query": "q: ", "document": "d: "}, "similarity_fn_name": "dot"}
    folder = settings_folder(tmp_path, **{CONFIG: prompts, "README.md": E5_README})
    found = proposed(folder)
    assert found.contract() == {
        "query_prefix": "q: ", "passage_prefix": "d: ", "pooling": "model", "normalize": True,
        "similarity": "dot", "languages": ["af", "no", "zh"], "max_tokens": 256,
        "dimension": "model", "precision": "float32",
    }  # fmt: skip
    assert found.choices["pooling"].reason == "its own is mean"
    assert found.choices["dimension"].reason == "384 components"
    assert found.licence == "mit"
    assert not found.doubts
    assert list(found.contract()) == list(shipped()["encoders"]["minilm"])[1:]


def test_a_wish_goes_before_what_the_files_say(tmp_path: Path) -> None:
    folder = settings_folder(tmp_path, **{CONFIG: {"prompts": {"query": "q: ", "document": "d: "}}})
    wishes = Wishes("", "p: ", "cls", ("es",), 64)
    contract = proposed(folder, wishes=wishes).contract()
    assert [contract[key] for key in ("query_prefix", "passage_prefix", "pooling")] == [
        "", "p: ", "cls"
    ]  # fmt: skip
    assert (contract["languages"], contract["max_tokens"]) == (["es"], 64)


@pytest.mark.parametrize(
    ("prompts", "default", "expected"),
    [
        ({}, None, None),
        ({"query": "q: ", "passage": "p: "}, None, Prefixes("q: ", "p: ")),
        ({"query": "q: ", "document": "d: ", "passage": "p: "}, None, Prefixes("q: ", "d: ")),
        ({"query": "q: ", "corpus": "c: "}, "query", Prefixes("q: ", "c: ")),
        ({"query": "q: "}, "query", Prefixes("q: ", "")),
        ({"retrieval.query": "q: ", "retrieval.passage": "p: "}, None, Prefixes("q: ", "p: ")),
        ({"s2p_query": "a: ", "s2s_query": "b: "}, None, None),
        ({"web": "w: "}, "web", Prefixes("w: ", "w: ")),
        ({"web": "w: "}, None, None),
    ],
)
def test_prompts_become_prefixes_by_their_names(
    prompts: dict[str, str], default: str | None, expected: Prefixes | None
) -> None:
    assert choose_prefixes(Registered(prompts, default)) == expected


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("intfloat/multilingual-e5-small", "query: "),
        ("intfloat/e5-base-v2", "query: "),
        ("my-e5", "query: "),
        ("intfloat/multilingual-e5-large-instruct", None),
        ("intfloat/e5-mistral-7b-instruct", None),
        ("BAAI/bge-small-en-v1.5", "Represent this sentence for searching relevant passages: "),
        ("BAAI/bge-m3", None),
        ("cl-nagoya/ruri-v3-310m", "検索クエリ: "),
        ("cl-nagoya/ruri-base", "クエリ: "),
        ("sentence-transformers/LaBSE", None),
        ("org/base512", None),
    ],
)
def test_a_familys_prefixes_are_known_by_its_name(name: str, query: str | None) -> None:
    found = family_prefixes(name)
    assert (found and found.query) == query


@pytest.mark.parametrize(
    ("name", "files", "doubt"),
    [
        ("org/model", {"README.md": E5_README}, r"README.md mentions 'query: ', 'passage: '"),
        ("intfloat/e5-small", {"README.md": E5_README}, r"--query-prefix 'query: ' --passage-pre"),
        ("intfloat/e5-small", {}, "is of a family that wants 'query: ' and 'passage: '"),
        ("org/model", {CONFIG: {"prompts": {"a": "A: ", "b": "B: "}}}, r"a: 'A: ', b: 'B: '"),
        ("org/model", {"README.md": "---\nlanguage: [en, fil]\n---\n"}, "'fil' .* are not ISO"),
        ("org/model", {"README.md": "no head"}, "languages: no file names them"),
        (
            "org/model",
            {"README.md": "util.dot_score(a, b)", "modules.json": [
                {"path": "", "type": "sentence_transformers.models.Transformer"},
                {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
            ]},
            "similarity: no file names one, but .* mentions the dot product",
        ),
    ],
)  # fmt: skip
def test_what_the_files_leave_open_is_said(
    tmp_path: Path, name: str, files: dict[str, Any], doubt: str
) -> None:
    doubts = "\n".join(proposed(settings_folder(tmp_path, **files), name).doubts)
    assert re.search(doubt, doubts)


@pytest.mark.parametrize(
    ("files", "tokens"),
    [
        ({}, 256),
        ({"sentence_bert_config.json": None}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": 8192}}, 512),
        ({"sentence_bert_config.json": {"max_seq_length": None}, "tokenizer_config.json": {
            "model_max_length": 10**30}, "config.json": {
            "model_type": "xlm-roberta", "max_position_embeddings": 130, "pad_token_id": 1}}, 128),
        ({"sentence_bert_config.json": None, "tokenizer_config.json": None, "config.json": {
            "model_type": "xlnet", "max_position_embeddings": -1}}, 512),
    ],
)  # fmt: skip
def test_max_tokens_is_what_the_model_can_read_and_512_at_most(
    tmp_path: Path, files: dict[str, Any], tokens: int
) -> None:
    assert proposed(settings_folder(tmp_path, **files)).contract()["max_tokens"] == tokens


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"modules.json": None}, "names no pooling of its own.*--pooling mean"),
        ({CONFIG: {"similarity_fn_name": "manhattan"}}, "similarity_fn_name 'manhattan' is not"),
        ({CONFIG: "{"}, "not readable as JSON"),
    ],
)
def test_what_must_not_be_guessed_is_one_message(
    tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    with pytest.raises(PipelineError, match=message):
        proposed(settings_folder(tmp_path, **files))


def test_vectors_without_length_1_are_normalised_for_cosine_alone(tmp_path: Path) -> None:
    modules = [
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
    dense = {"in_features": 384, "out_features": 512}
    for stated, expected in (
        (None, (True, "cosine")), ("dot", (False, "dot")), ("euclidean", (False, "l2"))
    ):  # fmt: skip
        folder = settings_folder(
            tmp_path / str(stated),
            **{"modules.json": modules, "2_Dense/config.json": dense},
            **{CONFIG: {"similarity_fn_name": stated}},
        )
        found = proposed(folder)
        assert (found.contract()["normalize"], found.contract()["similarity"]) == expected
        assert found.choices["dimension"].reason == "512 components"


def test_a_model_card_is_read_by_the_lines_of_its_keys() -> None:
    long = "---\nlanguage: en\nmodel-index:\n" + "- {broken: [\n" * 50_000 + "---\n"
    assert front_matter(long, "language") == ["en"]
    assert front_matter("language: en", "language") == []
    assert front_matter("---\r\nlanguage:\r\n  - es\r\n  - ja\r\n---\r\n", "language") == [
        "es",
        "ja",
    ]
    assert front_matter("---\nlanguage: [en\n---\n", "language") == []
    assert front_matter("---\nlanguage: {a: b}\n---\n", "language") == []


def test_prompts_are_found_in_a_readme() -> None:
    assert mentioned_prompts(E5_README) == ["query: ", "passage: "]
    assert mentioned_prompts("run this query: it is fast") == []
    assert mentioned_prompts('"検索クエリ: 瑠璃色" と "検索文書: "') == [
        "検索クエリ: ",
        "検索文書: ",
    ]


def test_a_source_is_a_folder_a_model_of_the_hub_or_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "my models" / "ürün"
    folder.mkdir(parents=True)
    (tmp_path / "a.bin").touch()
    assert parse_source(str(folder)) == Folder(folder)
    assert parse_source("my models/ürün") == Folder(Path("my models/ürün"))
    assert parse_source("org/model") == Hub("org/model", None)
    assert parse_source("org/model@refs/pr/1") == Hub("org/model", "refs/pr/1")
    assert parse_source("pack-age==1.0+cpu") == Wheel("pack-age", "1.0+cpu", None)
    assert parse_source("pack==1.0:a/b") == Wheel("pack", "1.0", "a/b")
    (tmp_path / "org/model").mkdir(parents=True)
    assert parse_source("org/model") == Folder(Path("org/model"))
    for text, message in {
        "/nowhere/at/all": "there is no folder", "../gone": "there is no folder",
        "a.bin": "is a file", "": "is not a place", "model": "is not a place",
        "https://host/org/model": "is not a place", "a==b==c d": "is not a place",
        "--index-url==1": "is not a place",
    }.items():  # fmt: skip
        with pytest.raises(PipelineError, match=message) as err:
            parse_source(text)
        assert "\n" not in str(err.value)


def test_the_models_in_a_wheel_are_found() -> None:
    files = [
        "p/__init__.py", "p/a/modules.json", "p/a/config.json", "p/a/model.safetensors",
        "p/a/1_Pooling/config.json", "p/a/2_Dense/config.json", "p/a/2_Dense/model.safetensors",
        "p/b/config.json", "p/b/pytorch_model.bin", "p/c/config.json", "p-1.dist-info/METADATA",
    ]  # fmt: skip
    assert find_model_folders(files) == ["p/a", "p/b"]
    assert find_model_folders(["modules.json", "1_Pooling/modules.json"]) == [""]
    assert find_model_folders(["x/config.json"]) == []


ENTRY = {
    **shipped()["encoders"]["minilm"],
    "query_prefix": "検索クエリ: ",
    "passage_prefix": "a\nb: '",
}


def put(text: str, name: str = "mine") -> str:
    return params_edit.put(text.encode(), ("encoders", name), ENTRY, "params.yaml").decode()


def load(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_an_entry_changes_no_other_line_of_params_yaml() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    edited = put(text)
    before, after = text.splitlines(), edited.splitlines()
    new = len(after) - len(before)
    at = next(at for at, line in enumerate(after) if line == "  mine:")
    assert after[:at] + after[at + new :] == before
    assert load(edited)["encoders"]["mine"] == ENTRY
    assert list(load(edited)["encoders"])[-1] == "mine"
    assert before[at] == ""
    assert before[at + 1].startswith("# The rerankers by name")
    assert put(edited) == edited


@pytest.mark.parametrize("name", ["minilm", "labse", "quora-distilbert-multilingual"])
def test_an_entry_is_replaced_in_its_place(name: str) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    edited, expected = put(text, name), load(text)
    expected["encoders"][name] = ENTRY
    assert load(edited) == expected
    assert list(load(edited)["encoders"]) == list(expected["encoders"])
    assert edited.count("#") == text.count("#")


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nencoders:\n  x:\n    k: v",
        "encoders:\n  x: {k: v}  # note\n\n\n# of b\nb: 1\n",
        "encoders:\r\n  x:\r\n    k: v\r\nb: 1\r\n",
        "\ufeffencoders:\n    x:\n        k: v\n    # of y\n    y: 2\n",
        "encoders:\n  x:\n    k: |\n      # text\n\n      more\n# of b\nb: 1\n",
        "z: &z\n  k: v\nencoders:\n  x: *z\nb: 1\n",
        "encoders:\n  x:\n    k:\nb: 1\n",
    ],
)
def test_every_block_form_of_params_yaml_takes_an_entry(text: str) -> None:
    edited, expected = put(text), load(text.lstrip("\ufeff"))
    assert load(edited.lstrip("\ufeff")) == {
        **expected, "encoders": {**expected["encoders"], "mine": ENTRY}
    }  # fmt: skip
    assert [line for line in text.splitlines() if line not in edited.splitlines()] == []
    assert edited.count("\r\n") in (0, edited.count("\n"))
    replaced = load(put(text, "x").lstrip("\ufeff"))
    assert replaced == {**expected, "encoders": {**expected["encoders"], "x": ENTRY}}


def test_a_form_that_cannot_be_edited_shows_the_entry_instead() -> None:
    for text in ("encoders: {x: {k: v}}\n", "encoders:\n  x: &a {k: v}\n  y: *a\n...\n"):
        with pytest.raises(PipelineError, match=r"Set it yourself to:\nmine:"):
            put(text)
