"""The gate refuses what loses too much, and only that; it needs params and metrics, no data."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.gate import gate
from pipeline.runs.card import index_settings, of_index
from tests.conftest import RunStage
from tests.helpers.artefacts import params


def write_metrics(overlaps: dict[str, Any], index: str = "flat") -> None:
    encoders = params().encoder
    layout.METRICS.mkdir(parents=True, exist_ok=True)
    for locale, overlap in overlaps.items():
        told = {
            "dense": {"index_overlap@100": overlap, "ndcg@10": 0.5},
            "encoder": encoders[locale],
            "index": index,
            "index_settings": index_settings(of_index(index, params().indexes[index])),
        }
        layout.metrics(locale).write_text(json.dumps(told))


EXACT = {"us": 1.0, "es": 1.0, "jp": 1.0}


def chosen(index: str) -> Params:
    return params({f"index.{locale}": index for locale in EXACT})


def test_an_index_may_lose_exactly_what_the_gate_allows_and_no_digit_more(project: Path) -> None:
    given = chosen("sq8")
    for allowed in ("0", "0.001", "0.05", "0.1", "0.3", "0.7", "1"):
        for lost in ("0", "0.00001", "0.00101", "0.05", "0.05001", "0.1", "0.3", "0.7", "1"):
            write_metrics(EXACT | {"es": float(1 - Fraction(lost))}, "sq8")
            asked = given.model_copy(update={"index_gate": float(allowed)})
            if Fraction(lost) <= Fraction(allowed):
                gate(asked)
            else:
                with pytest.raises(PipelineError, match=r"index\.es: sq8 finds .* and loses"):
                    gate(asked)


@pytest.mark.parametrize(
    ("index", "remedy"),
    [
        ("sq8", "Raise indexes.sq8.rescore, choose another index"),
        ("rabitq", "Raise indexes.rabitq.bits or rescore, choose another index"),
        ("eden", "Raise indexes.eden.bits or rescore, choose another index"),
        ("pq-fastscan", "Raise indexes.pq-fastscan.subvectors or rescore, choose another"),
        (
            "ivf-pq-fastscan",
            "Raise indexes.ivf-pq-fastscan.probes, subvectors or rescore, choose",
        ),
        ("hnsw", "Raise indexes.hnsw.ef_search or m, choose another index"),
        ("ivf-flat", "Raise indexes.ivf-flat.probes, choose another index"),
        (
            "ivf-pq",
            "Raise indexes.ivf-pq.probes, subvectors, bits or rescore, choose",
        ),
    ],
)
def test_a_refusal_names_locale_index_overlap_what_is_allowed_and_the_way_out(
    project: Path, index: str, remedy: str
) -> None:
    write_metrics({"us": 0.93015, "es": 0.96, "jp": 0.5}, index)
    with pytest.raises(PipelineError) as told:
        gate(chosen(index))
    us, jp = str(told.value).splitlines()
    assert us.startswith(f"index.us: {index} finds 0.93015 of the exact top 100 and loses 0.06985")
    assert "index_gate allows 0.05" in us
    assert remedy in us
    assert jp.strip().startswith(f"index.jp: {index} finds 0.5 ")


def test_metrics_of_other_settings_of_the_index_say_nothing_of_it(project: Path) -> None:
    write_metrics(EXACT, "hnsw")
    gate(chosen("hnsw"))
    names = {f"index.{locale}": "hnsw" for locale in EXACT}
    for key, value, said in (("m", 8, 32), ("ef_search", 2000, 1000)):
        with pytest.raises(
            PipelineError,
            match=rf"us\.json: index_settings\.{key} must be {value} \(found {said}\): the overlap",
        ):
            gate(params({**names, f"indexes.hnsw.{key}": value}))
    write_metrics(EXACT, "sq8")
    for own in ({"rescore": "4", "kind": "sq8"}, None):
        metrics = json.loads(layout.metrics("us").read_text()) | {"index_settings": own}
        layout.metrics("us").write_text(json.dumps(metrics))
        expected = (
            "rescore must not be there .found 4." if own else "does not say of which settings"
        )
        with pytest.raises(PipelineError, match=f"us.json.*{expected}.*dvc repro evaluate@us"):
            gate(chosen("sq8"))


@pytest.mark.slow
def test_it_exits_1_with_one_message_and_0_when_all_is_well(
    project: Path, run_stage: RunStage
) -> None:
    write_metrics(EXACT | {"jp": 0.9})
    done = run_stage("gate")
    assert done.returncode == 1
    assert done.stderr.count("error in gate") == 1
    assert "Traceback" not in done.stderr
    assert "index.jp: flat finds 0.9 of" in done.stderr
    write_metrics(EXACT)
    done = run_stage("gate")
    assert done.returncode == 0
    assert "gate locale=jp index=flat index_overlap@100=1.0 allowed_to_lose=0.05" in done.stderr


def test_missing_metrics_are_told_for_all_locales_in_one_message(project: Path) -> None:
    write_metrics({"us": 1.0})
    with pytest.raises(PipelineError) as told:
        gate(params())
    assert [line.strip() for line in str(told.value).splitlines()] == [
        f"reports/metrics/{locale}.json is missing. Run `dvc repro evaluate@{locale}`."
        for locale in ("es", "jp")
    ]


@pytest.mark.parametrize("overlap", [None, "1.0", True, -0.1, 1.1, [1.0]])
def test_an_overlap_that_is_no_share_is_refused(project: Path, overlap: object) -> None:
    write_metrics(EXACT | {"es": overlap})
    with pytest.raises(
        PipelineError,
        match=r"es\.json: dense\.index_overlap@100 must be from 0 to 1 .*dvc repro evaluate@es",
    ):
        gate(params())


@pytest.mark.parametrize("text", ["", "[]", "null", '{"dense": 1}', "{}"])
def test_a_file_that_is_no_metrics_is_refused(project: Path, text: str) -> None:
    write_metrics(EXACT)
    layout.metrics("jp").write_text(text)
    with pytest.raises(
        PipelineError, match=r"^reports/metrics/jp\.json.*dvc repro evaluate@jp`\.$"
    ):
        gate(params())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"index.es": "hnsw"}, r"index must be 'hnsw' \(found 'flat'\)"),
        ({"encoder.es": "minilm"}, r"encoder must be 'minilm' \(found 'e5-small-q4'\)"),
    ],
)
def test_metrics_of_another_choice_say_nothing_about_this_one(
    project: Path, change: dict[str, str], told: str
) -> None:
    write_metrics(EXACT)
    with pytest.raises(PipelineError, match=f"^reports/metrics/es.json: {told}. Run `dvc repro"):
        gate(params(change))


def test_an_empty_gate_asks_nothing_not_even_for_metrics(project: Path) -> None:
    gate(params({"index_gate": None}))
