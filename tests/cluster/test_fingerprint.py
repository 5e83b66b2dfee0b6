"""Machines that would compute other bits are refused, and the message says why."""

import shutil
from pathlib import Path

import pytest

from pipeline.cluster import fingerprint
from pipeline.core.errors import PipelineError
from tests.helpers.artefacts import ROOT

PACKAGES = ("numpy", "openvino", "no-such-package")


def test_this_machine_is_of_its_own_kind() -> None:
    for on_cpu in (True, False):
        fingerprint.check_fingerprint(fingerprint.fingerprint(PACKAGES, on_cpu=on_cpu))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (fingerprint.CPU, "Use workers with the CPU of the machine"),
        (fingerprint.CODE, "Bring every node to the same checkout and packages"),
        ("openvino", "Bring every node to the same checkout and packages"),
    ],
)
def test_another_kind_is_refused_with_what_differs_and_both_values(name: str, remedy: str) -> None:
    own = fingerprint.fingerprint(PACKAGES)
    with pytest.raises(PipelineError) as error:
        fingerprint.check_fingerprint(own | {name: "other"})
    assert f"{name} {own[name]}, expected other" in str(error.value)
    assert remedy in str(error.value)


def test_a_change_anywhere_in_the_code_is_another_kind_and_another_place_is_none(
    tmp_path: Path,
) -> None:
    copy, here = tmp_path / "elsewhere", fingerprint.fingerprint([])[fingerprint.CODE]
    shutil.copytree(ROOT / "pipeline", copy)
    assert fingerprint.code_hash(copy) == here
    for changed in ("core/stage.py", "encoders/engine.py", "index/codes.py"):
        whole = (copy / changed).read_bytes()
        (copy / changed).write_text("# changed\n")
        assert fingerprint.code_hash(copy) != here
        (copy / changed).write_bytes(whole)


def test_on_a_gpu_the_cpu_makes_no_difference() -> None:
    assert fingerprint.CPU not in fingerprint.fingerprint(PACKAGES, on_cpu=False)
