"""embed refuses to replace a folder in which its encoder, its tables or its cache is."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.embed.stage import embed
from tests.helpers.artefacts import LOCALE, params, write_clean

OUT = layout.embeddings(LOCALE).folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with clean tables, a model's file outside and vectors of an earlier run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    write_clean(np.random.default_rng(0), 10, 3)
    for path in (OUT / "model", Path("model")):
        path.mkdir(parents=True)
        (path / "config.json").write_text("{}")
    return tmp_path


def with_model(path: str) -> Params:
    """Return params whose encoder is a folder."""
    return params({"encoders.e5-small-q4.weights": {"kind": "folder", "path": path}})


def check_refused(given: Params, words: str) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(PipelineError, match=words):
        embed(given, LOCALE)
    assert sorted(Path().rglob("*")) == before


def test_an_encoder_in_the_output_or_around_it_is_refused(folder: Path) -> None:
    Path("link").symlink_to(OUT / "model")
    for path in (
        f"{OUT}/model",
        f"{OUT}",
        f"{OUT}/../{LOCALE}/model",
        f"{folder / OUT}/model",
        "link",
    ):
        check_refused(with_model(path), f"is in {OUT}, which this stage replaces")
    for path in ("data", "data/embeddings", ".", str(folder)):
        check_refused(with_model(path), f"contains {OUT}, which this stage replaces")


def test_an_output_that_is_a_link_to_where_the_encoder_is_is_refused() -> None:
    shutil.rmtree(OUT)
    OUT.symlink_to(Path("model").absolute())
    check_refused(with_model("model"), f"is in {OUT}, which this stage replaces")


def test_clean_tables_in_the_output_are_refused() -> None:
    clean = layout.clean(LOCALE).folder
    clean.rename(OUT / "clean")
    clean.symlink_to((OUT / "clean").absolute())
    check_refused(with_model("model"), f"is in {OUT}, which this stage replaces")


def test_a_cache_in_the_output_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(OUT.absolute() / "cache"))
    check_refused(with_model("model"), "the cache .* is in .*, which embed replaces")
    Path("elsewhere").symlink_to(OUT.absolute())
    monkeypatch.setenv("PIPELINE_CACHE", str(Path("elsewhere").absolute()))
    check_refused(with_model("model"), "the cache .* is in .*, which embed replaces")
