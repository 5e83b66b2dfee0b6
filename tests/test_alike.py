"""Machines that would compute other bits are told apart, and the message says by what."""

import pytest

from pipeline import alike
from pipeline.errors import PipelineError

PACKAGES = ("numpy", "openvino", "no-such-package")


def test_this_machine_is_of_its_own_kind() -> None:
    for on_cpu in (True, False):
        alike.check_alike(alike.kind(PACKAGES, on_cpu=on_cpu))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (alike.CPU, "use workers with the CPU of the machine"),
        (alike.CODE, "bring every node to the same checkout and packages"),
        ("openvino", "bring every node to the same checkout and packages"),
    ],
)
def test_another_kind_is_refused_with_what_differs_and_both_values(name: str, remedy: str) -> None:
    own = alike.kind(PACKAGES)
    with pytest.raises(PipelineError) as told:
        alike.check_alike(own | {name: "other"})
    assert f"{name} {own[name]}, expected other" in str(told.value)
    assert remedy in str(told.value)


def test_on_a_gpu_the_cpu_makes_no_difference() -> None:
    assert alike.CPU not in alike.kind(PACKAGES, on_cpu=False)
