"""The trainings of the models in use: from a model's curve to the page and `dvc plots`."""

import contextlib
import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.param_types import NO_RERANKER
from pipeline.core.params import Params
from pipeline.evaluate import plots
from pipeline.evaluate.training import read_training
from pipeline.report import stage as report
from pipeline.report.inputs import read_locale
from tests.helpers import artefacts
from tests.helpers.page_artefacts import write_locale

CURVE = """epoch,step,loss,dev_catalogue_ndcg@10,dev_pool_ndcg@10,kept
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
            "spelling": dict.fromkeys(encoders, "typed"),
            "systems": {each: {} for each in encoders},
        }
    )


def reranker_of(given: Params, locale: str) -> str | None:
    """Return the name of a locale's reranker, as evaluate says it."""
    return None if given.rerank[locale] == NO_RERANKER else given.rerank[locale]


def write_curve(path: Path, text: str = CURVE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def test_a_curve_goes_from_the_model_to_the_page_and_the_plot_once_for_all_its_locales(
    project: Path,
) -> None:
    given = of_locales(us="minilm-demo", es="minilm-demo", jp="e5-small-q4")
    for locale in ("us", "es"):
        write_curve(layout.runs("dense", locale).curve)
    short = CURVE.replace(",dev_catalogue_ndcg@10", "").replace(",0.31,", ",").replace(",0.4,", ",")
    short = short.replace(",0.45,", ",").replace(",0.42,", ",").replace(",,,0", ",,0")
    write_curve(layout.runs("rerank", "es").curve, short)
    for locale in given.locales:
        trained = read_training(locale, given.encoder[locale], reranker_of(given, locale))
        write_locale(given, locale, queries=9, trained=trained)
    us, es = (read_locale(given, locale).trainings for locale in ("us", "es"))
    assert [(each.kind, each.model, each.kept, each.chooses) for each in es] == [
        ("encoder", "minilm-demo", 2, "dev_catalogue_ndcg@10"),
        ("reranker", "reranker-demo", 2, "dev_pool_ndcg@10"),
    ]
    assert us == es[:1]
    assert us[0].losses == ((0.5, 1.5), (1.0, 1.25), (1.5, 1.0), (2.0, 0.75), (3.0, 0.5))
    assert us[0].dev["dev_catalogue_ndcg@10"] == {0: 0.31, 1: 0.4, 2: 0.45, 3: 0.42}
    report.report(given)
    page = layout.PAGE.read_text(encoding="utf-8")
    section = page.split('<section id="training"')[1].split("</section>")[0]
    assert section.count('<div class="panel">') == 2
    assert "encoder of us, es. Epoch 2 of 3 was kept" in section
    assert (
        "dev nDCG@10 among products of both sides 0.4500; before the first step it is 0.3100."
        in section
    )
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


def test_where_the_runs_are_of_no_trained_model_there_is_nothing(project: Path) -> None:
    given = of_locales(us="minilm")
    # Today's models: the runs that are scored may be of earlier ones.
    write_curve(layout.model("encoder", "minilm").curve)
    write_curve(layout.model("encoder", "minilm-demo").curve)
    assert read_training("us", "minilm", None) == []
    assert read_training("us", "minilm-demo", None) == []
    write_locale(given, "us", queries=9)
    report.report(given)
    assert 'href="#training"' not in layout.PAGE.read_text(encoding="utf-8")
    assert layout.plot("training").read_text(encoding="utf-8") == (
        "locale,kind,model,epoch,measure,value,kept\n"
    )


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
    for system, stage in (("dense", "retrieve"), ("rerank", "rerank")):
        folder = layout.runs(system, "us").folder
        write_curve(layout.runs(system, "us").curve, damage(CURVE))
        with pytest.raises(PipelineError, match=rf"^{folder}/curve.csv .*repro {stage}@us`\.$"):
            read_training("us", "minilm-demo", "reranker-demo")
        write_curve(layout.runs(system, "us").curve)


Row = tuple[Any, ...]
Trained = tuple[Params, list[Row]]
EPOCH_1 = ("encoder", "minilm-demo", 1.0, "dev_catalogue_ndcg@10", 0.4, 0)
LOSS_1 = ("encoder", "minilm-demo", 1.0, "loss", 1.25, 0)


def replaced(row: Row, place: int, value: object) -> Callable[[list[Row]], list[Row]]:
    """Return what gives one row of a table another value."""

    def replace(rows: list[Row]) -> list[Row]:
        at = rows.index(row)
        return [*rows[:at], (*row[:place], value, *row[place + 1 :]), *rows[at + 1 :]]

    return replace


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    """Yield parameters and the table of trainings of a locale, in the folder of its artefacts."""
    given = of_locales(us="minilm-demo")
    with contextlib.chdir(tmp_path_factory.mktemp("trained")):
        write_curve(layout.runs("dense", "us").curve)
        rows: list[Row] = [*read_training("us", "minilm-demo", None)]
        write_locale(given, "us", queries=9, trained=rows)
        assert len(read_locale(given, "us").trainings) == 1
        yield given, rows


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (replaced(EPOCH_1, 2, "x"), "conversion error to double: invalid value 'x'"),
        (replaced(EPOCH_1, 2, -1.0), "epoch -1.0, dev_catalogue_ndcg@10 0.4"),
        (replaced(LOSS_1, 4, "inf"), "epoch 1.0, loss inf"),
        (replaced(EPOCH_1, 4, 1.5), "dev_catalogue_ndcg@10 1.5 in epoch 1.0"),
        (replaced(EPOCH_1, 2, 0.5), "dev_catalogue_ndcg@10 0.4 in epoch 0.5"),
        (replaced(EPOCH_1, 2, 4.0), "minilm-demo lacks a dev measure of an epoch"),
        (replaced(EPOCH_1, 5, 1), "minilm-demo has no loss, or not one epoch that was kept"),
        (
            lambda rows: [row for row in rows if row[3] != "loss"],
            "minilm-demo has no loss, or not one epoch that was kept",
        ),
        (
            lambda rows: [("decoder", *row[1:]) for row in rows],
            "minilm-demo is of the kind decoder",
        ),
    ],
)
def test_a_table_that_no_training_made_is_refused(
    trained: Trained, change: Callable[[list[Row]], list[Row]], said: str
) -> None:
    given, rows = trained
    plots.write_training(layout.training_plot("us"), change(rows))
    with pytest.raises(PipelineError) as caught:
        read_locale(given, "us")
    assert str(caught.value).startswith("reports/plots/training/us.csv is not a table of trainings")
    assert said in str(caught.value)
    assert "`dvc repro evaluate@us`" in str(caught.value)
