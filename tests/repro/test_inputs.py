import re
from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.repro.inputs import check_inputs
from tests.conftest import RunStage
from tests.helpers.artefacts import params


@pytest.mark.slow
def test_repro_tells_of_an_absent_input_before_dvc_runs(project: Path, run_stage: RunStage) -> None:
    path = project / "params.yaml"
    path.write_text(path.read_text().replace("  source: data/demo", "  source: absent", 1))
    done = run_stage("repro")
    assert done.returncode == 1
    assert re.fullmatch(r"error in repro: params\.yaml:\n  sample\.source: .*\n", done.stderr)


@pytest.mark.parametrize("source", ["absent", "a" * 300, "a\0b"])
def test_a_source_that_is_not_there_is_told_by_its_param(source: str) -> None:
    said = r"^params\.yaml:\n  sample\.source: .*Correct it, or bring it there\.$"
    with pytest.raises(PipelineError, match=said):
        check_inputs(params({"sample.source": source}))


def test_all_inputs_that_are_not_there_are_told_in_one_message() -> None:
    absent = {
        "sample.source": "absent",
        "training.source": "absent too",
        "systems.es.vespa": "data/systems/none.trec",
        "systems.us.solr": "data/systems/no.trec",
    }
    with pytest.raises(PipelineError) as caught:
        check_inputs(params({**absent, "encoder.us": "minilm-demo"}), "params.yaml with changes")
    first, *lines = str(caught.value).splitlines()
    assert first == "params.yaml with changes:"
    said = re.compile(r"  (\S+): .*found '(.*)'\)\. Correct it, or bring it there\.")
    told = [said.fullmatch(line) for line in lines]
    assert {each[1]: each[2] for each in told if each} == absent


def test_what_is_there_or_made_by_a_stage_or_not_used_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = layout.GIVEN_RUNS / "vespa.trec"
    run.parent.mkdir(parents=True)
    run.touch()
    check_inputs(params({"training.source": "absent"}))
    check_inputs(params({"sample.source": str(tmp_path), "systems.es.vespa": str(run)}))
    check_inputs(params({"encoder.us": "minilm-demo"}))
