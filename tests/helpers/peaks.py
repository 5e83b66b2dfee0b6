"""The real peak of memory of some work, in a process of its own, as Linux counts it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.artefacts import ROOT

_STATUS = Path("/proc/self/status")

_HELD = f"""
def held(what):
    status = open("{_STATUS}").read()
    return int(status.split(what + ":")[1].split()[0]) * 1024
"""


def numbers_told(code: str, *arguments: str) -> list[int]:
    """Run some Python and return the numbers of the last line that it prints.

    In it, `held("VmRSS")` is the memory of the process now and `held("VmHWM")` its peak, in bytes.
    Without Linux's /proc the test is skipped.
    """
    if not _STATUS.exists() or "VmHWM:" not in _STATUS.read_text():
        pytest.skip(f"{_STATUS} does not show the peak of a process")
    done = subprocess.run(
        [sys.executable, "-c", _HELD + code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    return [int(number) for number in done.stdout.splitlines()[-1].split()]
