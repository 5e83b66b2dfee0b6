"""FAISS multiplies with the kernel that fits the CPU, and nothing else changes."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.cpu import cpu_facts, cpu_flags
from pipeline.core.faiss import KERNEL_VARIABLE, KERNELS, faiss, kernel
from tests.helpers.artefacts import ROOT

AVX2 = " ".join(sorted(KERNELS["Haswell"]))
AVX512 = " ".join(sorted(KERNELS["SkylakeX"]))

# On a CPU with AVX-512, FAISS is to believe in AVX2 alone: so its kernel is not numpy's.
ASK = """
import ctypes, os, subprocess, sys
from pipeline.core import cpu
facts = {"vendor_id": "GenuineIntel", "flags": "avx2 fma"}
cpu.cpu_facts = lambda: facts
from pipeline.core.faiss import faiss
import scipy.linalg
with open("/proc/self/maps") as maps:
    paths = sorted({line.split()[-1] for line in maps if "openblas" in line})
for path in paths:
    library = ctypes.CDLL(path)
    names = [f"{a}openblas_get_corename{b}" for a in ("", "scipy_") for b in ("", "64_")]
    ask = next(getattr(library, name) for name in names if hasattr(library, name))
    ask.restype = ctypes.c_char_p
    print(path.split(".libs")[0].split("/")[-1], ask().decode())
child = "import os; print('child', os.environ.get('OPENBLAS_CORETYPE'))"
print("own", os.environ.get("OPENBLAS_CORETYPE"), flush=True)
subprocess.run([sys.executable, "-c", child])
"""


@pytest.mark.parametrize(
    ("vendor", "family", "flags", "expected"),
    [
        ("GenuineIntel", "6", AVX512, "SkylakeX"),
        ("GenuineIntel", "6", AVX2, "Haswell"),
        ("GenuineIntel", "6", "avx512f avx512cd " + AVX2, "Haswell"),  # Knights Landing
        ("GenuineIntel", "6", "avx2", None),
        ("GenuineIntel", "6", "", None),
        ("AuthenticAMD", "25", AVX512, "SkylakeX"),  # Zen 4
        ("AuthenticAMD", "25", AVX2, None),  # Zen 3: OpenBLAS takes its kernel for Zen
        ("AuthenticAMD", "26", AVX512, "SkylakeX"),
        ("AuthenticAMD", "", AVX512, None),
        ("HygonGenuine", "24", AVX2, None),
    ],
)
def test_the_kernel_is_the_fastest_that_the_cpu_has_the_instructions_for(
    vendor: str, family: str, flags: str, expected: str | None
) -> None:
    assert kernel({"vendor_id": vendor, "cpu family": family, "flags": flags}) == expected


def test_nothing_is_chosen_where_the_cpu_cannot_be_asked() -> None:
    assert kernel({}) is None
    assert kernel({"CPU implementer": "0x41", "Features": "asimd"}) is None


def asked(**variables: str) -> dict[str, str]:
    """Return the kernels by library, and the variable as this process and a child see it."""
    environment = {k: v for k, v in os.environ.items() if k != KERNEL_VARIABLE} | variables
    found = subprocess.run(
        [sys.executable, "-c", ASK], cwd=ROOT, capture_output=True, text=True, check=True,
        env=environment | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return dict(line.split(maxsplit=1) for line in found.stdout.splitlines())


@pytest.mark.slow
@pytest.mark.skipif(not KERNELS["SkylakeX"] <= cpu_flags(), reason="the CPU has no AVX-512")
def test_only_the_openblas_of_faiss_gets_the_kernel_unless_the_user_has_chosen_one() -> None:
    found = asked()
    assert found["faiss_cpu"] == "Haswell"
    assert "Haswell" not in (found["numpy"], found["scipy"])
    assert found["own"] == found["child"] == "None"
    found = asked(**{KERNEL_VARIABLE: "Nehalem"})
    assert found["faiss_cpu"] == found["own"] == found["child"] == "Nehalem"


def test_the_openblas_of_faiss_is_the_one_that_the_choice_was_made_for() -> None:
    """A newer one knows newer CPUs: then `pipeline.core.faiss` has to be thought over."""
    maps = Path("/proc/self/maps")
    paths = {line.split()[-1] for line in maps.read_text().splitlines()} if maps.exists() else set()
    ours = [path for path in paths if "faiss" in path and "openblas" in path]
    if not ours:
        pytest.skip("this FAISS brings no OpenBLAS")
    for path in ours:
        ask = ctypes.CDLL(path).openblas_get_config
        ask.restype = ctypes.c_char_p
        assert ask().split()[:2] == [b"OpenBLAS", b"0.3.15"]


@pytest.mark.skipif(
    KERNEL_VARIABLE in os.environ or kernel(cpu_facts()) != "SkylakeX",
    reason="another kernel is used",
)
def test_scores_have_the_same_bits_on_any_number_of_threads() -> None:
    rng = np.random.default_rng(1)
    products = rng.standard_normal((5_000, 768), dtype=np.float32)
    index = faiss.IndexFlatIP(products.shape[1])
    index.add(products)
    queries = rng.standard_normal((512, 768), dtype=np.float32)
    threads, found = faiss.omp_get_max_threads(), []
    try:
        for count in (1, 2, 3, 8):
            faiss.omp_set_num_threads(count)
            found.append(index.search(queries, 200))
    finally:
        faiss.omp_set_num_threads(threads)
    for scores, rows in found[1:]:
        np.testing.assert_array_equal(scores, found[0][0])
        np.testing.assert_array_equal(rows, found[0][1])
