from pathlib import Path

import pytest

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.repro.command import check_source


@pytest.mark.parametrize("source", ["absent", "a" * 300, "a\0b"])
def test_a_source_that_is_not_there_is_told_by_its_param_before_dvc_runs(source: str) -> None:
    with pytest.raises(PipelineError, match=r"^sample\.source: .* Correct it in params\.yaml\.$"):
        check_source(source)


def test_a_source_that_is_there_or_that_a_stage_makes_is_taken(tmp_path: Path) -> None:
    check_source(str(tmp_path))
    check_source(str(layout.DEMO))
