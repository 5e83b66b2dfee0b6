"""core/layout.py spells the names of the project's files, and no other module does."""

import ast
import os
import re
from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from tests.helpers.artefacts import ROOT

FOREIGN = {
    "config.json", "config_sentence_transformers.json", "modules.json", "sentence_bert_config.json",
    "tokenizer.json", "tokenizer_config.json", "model.safetensors", "pytorch_model.bin",
    "1_Pooling/config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json",
    "vocab.json", "adapter_config.json", "_config.json", "model.xml", ".index.json", "README.md",
}  # fmt: skip
"""Names of other formats: folders of sentence-transformers and of OpenVINO."""

OWN = {
    "encoders": {"card.json"},  # of a converted or a rebuilt model, in the cache
    "plots.py": {"page.html"},  # the template of DVC's page, in the cache
    "repro": {"repro.lock"},  # a copy of dvc.lock, beside DVC's own files
    "trec.py": {".measures.csv"},  # of an export, in a folder of the user's
    "browser": {"manifest.json"},  # of a folder of the user's
    "search": {"card.json"},  # of what the search keeps, in the cache
    "train": {"checkpoint.json"},  # of a training that goes on, in the cache
    "store": {"about.json"},  # of the vectors of an encoder, in the cache
}
"""Names that are not artefacts, each spelled in the one folder that knows that form."""

_NAME = re.compile(r"[\w./-]+\.(?:parquet|json|npy|faiss|csv|html|md|yaml|lock)")


def names_in(source: str) -> set[str]:
    """Return the names of files that a module spells, in texts that are not docstrings."""
    tree = ast.parse(source)
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
        and _NAME.fullmatch(node.value)
    }


def test_a_name_is_found_in_code_and_not_in_prose() -> None:
    source = '"""products.parquet"""\nx = folder / "a.json"\ny = "see a.json here"\n'
    assert names_in(source) == {"a.json"}


def test_no_other_module_spells_the_name_of_an_artefact() -> None:
    spelled = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / "pipeline").rglob("*.py")
        if path != ROOT / "pipeline/core/layout.py"
        for name in names_in(path.read_text(encoding="utf-8"))
        - FOREIGN
        - OWN.get(path.relative_to(ROOT / "pipeline").parts[0], set())
    }
    assert not spelled


@pytest.mark.parametrize("given", ["cache", "./cache", "~/cache", "a/../b", "\t"])
def test_a_relative_cache_is_refused_with_the_absolute_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_CACHE", given)
    with pytest.raises(PipelineError) as caught:
        layout.store()
    assert str(caught.value) == (
        f"$PIPELINE_CACHE: must be an absolute path (found {given!r}). Set it to {tmp_path}/"
        f"{given.removeprefix('./')}, or unset it to use .cache."
    )


def test_a_cache_that_is_not_a_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for given in (os.devnull, tmp_path / "file", tmp_path / "link"):
        monkeypatch.setenv("PIPELINE_CACHE", str(given))
        with pytest.raises(PipelineError, match=r"^\$PIPELINE_CACHE: must be a folder \(found .*"):
            layout.store()


def test_the_cache_is_the_chosen_folder_or_that_of_the_real_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path))
    assert layout.cache() == tmp_path
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("PIPELINE_CACHE")
        else:
            monkeypatch.setenv("PIPELINE_CACHE", unset)
        monkeypatch.setenv("DVC_ROOT", "/real")
        assert layout.cache() == Path("/real/.cache")
        monkeypatch.delenv("DVC_ROOT")
        assert layout.cache() == Path(".cache")


def test_what_dvc_ignores_is_what_its_file_lists() -> None:
    written = (ROOT / ".dvcignore").read_text(encoding="utf-8").splitlines()
    patterns = [line.rstrip("/") for line in written if not line.startswith("#")]
    assert sorted(layout.DVC_IGNORES) == sorted(patterns)


def test_a_path_outside_the_project_is_hidden_by_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "a~/project"
    project.mkdir(parents=True)
    monkeypatch.chdir(project)
    assert layout.is_hidden(project / "data/x~/esci")
    assert not layout.is_hidden(project / "data")
    assert not layout.is_hidden(Path("../b.partial"))
