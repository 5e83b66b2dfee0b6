"""The trainings of the models in use: from a model's curve to the page and `dvc plots`."""

import csv
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.evaluate.training import read_training
from pipeline.report import stage as report
from pipeline.report.inputs import read_locale
from tests.helpers import artefacts
from tests.helpers.page_artefacts import write_locale

CURVE = """epoch,step,loss,dev_ndcg@10,dev_pool_ndcg@10,kept
0,0,,0.31,0.8,0
1,4,1.5,,,0
1,8,1.25,0.4,0.82,0
2,12,1.0,,,0
2,16,0.75,0.45,0.81,1
3,24,0.5,0.42,0.83,0
"""


def of_locales(**encoders: str) -> Params:
    """Return parameters with the encoder of each locale."""
    return artefacts.params(
        {
            "encoder": encoders,
            "index": dict.fromkeys(encoders, "flat"),
            "language": dict.fromkeys(encoders, "en"),
            "rerank": {each: "reranker-demo" if each == "es" else "none" for each in encoders},
        }
    )


def write_curve(path: Path, text: str = CURVE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_curve_goes_from_the_model_to_the_page_and_the_plot_once_for_all_its_locales(
    project: Path,
) -> None:
    given = of_locales(us="minilm-demo", es="minilm-demo", jp="e5-small-q4")
    write_curve(layout.model("encoder", "minilm-demo").curve)
    short = CURVE.replace(",dev_ndcg@10", "").replace(",0.31,", ",").replace(",0.4,", ",")
    short = short.replace(",0.45,", ",").replace(",0.42,", ",").replace(",,,0", ",,0")
    write_curve(layout.runs("rerank", "es").curve, short)
    for locale in given.locales:
        write_locale(given, locale, queries=9, trained=read_training(given, locale))
    us, es = (read_locale(given, locale).trainings for locale in ("us", "es"))
    assert [(each.kind, each.model, each.kept, each.chooses) for each in es] == [
        ("encoder", "minilm-demo", 2, "dev_ndcg@10"),
        ("reranker", "reranker-demo", 2, "dev_pool_ndcg@10"),
    ]
    assert us == es[:1]
    assert us[0].losses == ((0.5, 1.5), (1.0, 1.25), (1.5, 1.0), (2.0, 0.75), (3.0, 0.5))
    assert us[0].dev["dev_ndcg@10"] == {0: 0.31, 1: 0.4, 2: 0.45, 3: 0.42}
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    section = page.split('<section id="training"')[1].split("</section>")[0]
    assert section.count('<div class="panel">') == 2
    assert "encoder of us, es. Epoch 2 of 3 was kept" in section
    assert "dev nDCG@10 0.4500; before the first step it is 0.3100." in section
    assert "0.8100; before the first step it is 0.8000." in section
    assert "No epoch is better" not in section
    with layout.plot("training").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(row["locale"], row["model"]) for row in rows} == {
        ("us", "minilm-demo"), ("es", "minilm-demo"), ("es", "reranker-demo"),
    }  # fmt: skip
    assert [row["value"] for row in rows if row["kept"] == "1" and row["locale"] == "us"] == [
        "0.45", "0.81",
    ]  # fmt: skip


def test_without_a_trained_model_in_use_there_is_nothing_though_its_folder_stays(
    project: Path,
) -> None:
    given = of_locales(us="minilm")
    for name in ("minilm-demo", "minilm"):  # one that nobody uses; a file where no training was
        write_curve(layout.model("encoder", name).curve)
    write_curve(layout.runs("rerank", "us").curve)
    assert read_training(given, "us") == []
    assert read_training(of_locales(us="minilm-demo"), "us") != []
    write_locale(given, "us", queries=9)
    report.report(given)
    assert 'href="#training"' not in layout.PAGE.read_text(encoding="utf-8")
    assert layout.plot("training").read_text(encoding="utf-8") == (
        "locale,kind,model,epoch,measure,value,kept\n"
    )
    layout.model("encoder", "minilm-demo").curve.unlink()
    assert read_training(of_locales(us="minilm-demo"), "us") == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(",kept", ""),  # of an older version
        lambda text: text.replace("1.25", "nan"),
        lambda text: text.replace("1.25", "x"),
        lambda text: text.replace("2,16", "3,16"),
        lambda text: "",
    ],
)
def test_a_damaged_curve_is_one_message_with_the_command(project: Path, damage: Any) -> None:
    given = of_locales(us="minilm-demo")
    write_curve(layout.model("encoder", "minilm-demo").curve, damage(CURVE))
    with pytest.raises(PipelineError, match=r"repro models/dvc.yaml:train@minilm-demo`\.$"):
        read_training(given, "us")


@pytest.mark.parametrize(
    "row",
    [
        ("encoder", "m", 1.0, "dev_ndcg@10", 1.5, 1),
        ("encoder", "m", 0.5, "dev_ndcg@10", 0.5, 1),
        ("encoder", "m", 1.0, "loss", 0.5, 0),
        ("decoder", "m", 1.0, "dev_ndcg@10", 0.5, 1),
        ("encoder", "m", "x", "dev_ndcg@10", 0.5, 1),
    ],
)
def test_a_table_that_no_training_made_is_refused(project: Path, row: tuple[object, ...]) -> None:
    given = of_locales(us="minilm-demo")
    write_locale(given, "us", queries=9, trained=[row])
    with pytest.raises(PipelineError, match=r"^reports/plots/training/us.csv .*evaluate@us`"):
        read_locale(given, "us")
