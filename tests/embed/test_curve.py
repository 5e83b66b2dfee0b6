"""An encoder that was trained here: its curve goes with its vectors, and what it may not encode."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params_file import check_params
from pipeline.embed.stage import embed
from pipeline.encoders.model_folder import folder_sha256
from pipeline.evaluate.training import read_training
from pipeline.index.stage import index
from pipeline.retrieve.stage import retrieve
from tests.helpers.artefacts import LOCALE, write_clean
from tests.helpers.tiny_models import build_model
from tests.helpers.training import NAME, write_model_card, write_project

CURVE = "epoch,step,loss,dev_catalogue_ndcg@10,kept\n0,0,,0.3,0\n1,8,1.5,0.4,1\n"
FILES = ["catalogue.parquet", "pool.parquet", "run.json"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def data(project: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return the params of a project with clean tables and the weights of a trained encoder."""
    monkeypatch.setenv(layout.CACHE_VARIABLE, str(project / "cache"))
    data = write_project(project)
    data["encoders"]["tiny"]["weights"]["sha256"] = folder_sha256(Path("tiny"))
    write_clean(np.random.default_rng(0), 40, 5)
    build_model(layout.model("encoder", NAME).weights, tokenizer="wordpiece", seed=2)
    return data


def test_the_curve_of_a_trained_encoder_goes_with_its_vectors_and_runs_and_no_other_does(
    data: dict[str, Any],
) -> None:
    model = layout.model("encoder", NAME)
    given = check_params(data, "params.yaml")
    write_model_card(given, NAME)
    # An entry of `encoders` has no curve, though a file be there.
    other = layout.model("encoder", "tiny").curve
    other.parent.mkdir(parents=True)
    for path in (model.curve, other):
        path.write_text(CURVE)
    for encoder, curves in ((NAME, ["curve.csv"]), ("tiny", [])):
        data["encoder"][LOCALE] = encoder
        given = check_params(data, "params.yaml")
        for body in (embed, index, retrieve):
            body(given, LOCALE)
        vectors, runs = layout.embeddings(LOCALE), layout.runs("dense", LOCALE)
        expected = [*curves, "manifest.json", "products-00000.npy", "queries-00000.npy"]
        assert names(vectors.folder) == expected
        assert names(runs.folder) == sorted([*curves, *FILES])
        if curves:
            model.curve.write_text("of a model that was trained since")
            assert vectors.curve.read_text() == runs.curve.read_text() == CURVE
        assert len(read_training(LOCALE, encoder, None)) == (3 if curves else 0)


def test_an_encoder_is_not_used_on_queries_that_its_pairs_were_not_kept_apart_from(
    data: dict[str, Any],
) -> None:
    data["encoder"][LOCALE] = NAME
    data["runtime"]["engine"] = "torch"
    given = check_params(data, "params.yaml")
    write_model_card(given, NAME)
    training = given.training.model_dump(mode="json")
    card = {"evaluated": {LOCALE: "0" * 64}, "pairs": {}, "training": training}
    layout.pairs(NAME).card.write_text(json.dumps(card))
    with pytest.raises(PipelineError, match=f"{NAME} was kept apart from other queries"):
        embed(given, LOCALE)
    assert not layout.embeddings(LOCALE).folder.exists()
