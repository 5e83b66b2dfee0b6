"""What would take more memory than it may is refused, with both numbers and a way out."""

import os
from pathlib import Path

import pytest

from pipeline.core import memory
from pipeline.core.errors import PipelineError
from tests.helpers.artefacts import params


def test_a_limit_is_in_gigabytes_and_none_is_all_that_the_machine_has() -> None:
    pages = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory.limit_bytes(params({"runtime.memory_limit": 2.5}).runtime) == 2_500_000_000
    assert memory.limit_bytes(params({"runtime.memory_limit": 3}).runtime) == 3_000_000_000
    assert memory.limit_bytes(params().runtime) == memory.machine_bytes()
    assert 10**8 < memory.machine_bytes() <= pages


@pytest.mark.parametrize(
    ("told", "expected"), [("2000000000\n", 2 * 10**9), ("max\n", None), ("9" * 25, None)]
)
def test_a_container_has_what_its_group_may_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, expected: int | None
) -> None:
    monkeypatch.setattr(memory, "GROUP_LIMITS", ())
    whole = memory.machine_bytes()
    (tmp_path / "limit").write_text(told)
    monkeypatch.setattr(memory, "GROUP_LIMITS", (tmp_path / "absent", tmp_path / "limit"))
    assert memory.machine_bytes() == (expected or whole)


def test_what_is_needed_to_the_last_byte_is_allowed_and_no_more() -> None:
    runtime = params({"runtime.memory_limit": 1.0}).runtime
    memory.check(10**9, "it", runtime, "take less")
    with pytest.raises(PipelineError) as told:
        memory.check(10**9 + 1, "it", runtime, "take less")
    assert str(told.value) == (
        "it would take 1,000,000,001 bytes of memory, more than the 1,000,000,000 bytes that "
        "runtime.memory_limit allows. Take less, or set runtime.memory_limit to 1.2 where there is "
        "that much."
    )


def test_two_amounts_that_differ_are_never_shown_as_equal() -> None:
    for one, other, shown in (
        (1_600_000_000, 1_500_000_000, ("1.6 GB", "1.5 GB")),
        (1_510_000_000, 1_490_000_000, ("1.51 GB", "1.49 GB")),
        (1_500_400_000, 1_499_600_000, ("1,500,400,000 bytes", "1,499,600,000 bytes")),
        (1_501_000_000, 1_500_000_000, ("1.501 GB", "1.500 GB")),
        (10**9 + 1, 10**9, ("1,000,000,001 bytes", "1,000,000,000 bytes")),
    ):
        assert memory.unequal_gigabytes(one, other) == shown


def test_of_stages_side_by_side_each_may_take_its_share_and_jobs_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    runtime = params({"runtime.memory_limit": 3.0}).runtime
    monkeypatch.setenv(memory.SHARERS_VARIABLE, "2")
    memory.check(1_500_000_000, "it", runtime, "take less")
    assert memory.limit_bytes(params().runtime) == memory.machine_bytes() // 2
    with pytest.raises(PipelineError) as told:
        memory.check(1_600_000_000, "it", runtime, "take less")
    assert str(told.value) == (
        "it would take 1.6 GB of memory, more than the 1.5 GB that runtime.memory_limit allows for "
        "each of JOBS=2. Use a smaller JOBS, take less, or set runtime.memory_limit to 3.6 where "
        "there is that much."
    )
    monkeypatch.setenv(memory.SHARERS_VARIABLE, "half")
    with pytest.raises(PipelineError, match=r"SHARERS: .* number of processes .* .found 'half'"):
        memory.limit_bytes(runtime)


def test_without_a_limit_the_machine_is_named() -> None:
    with pytest.raises(
        PipelineError, match=r"9000\.0 GB of memory, .* GB that this machine has. X"
    ):
        memory.check(9 * 10**12, "it", params().runtime, "x")
