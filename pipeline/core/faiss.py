"""FAISS, with the matrix product that is fastest on this CPU.

FAISS' wheels bring OpenBLAS 0.3.15, of 2021. It chooses its kernel when it is loaded, by the CPU's
model. On a newer model it takes one with 128-bit instructions, a fifth as fast, and on AMD's Zen 4
one with AVX2. So the kernel is chosen here, by the instructions. With AVX-512 the bits of a score
are then the same on any number of threads. With AVX2 the last bits are not, as with OpenBLAS' own
choice; runs round them away.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy  # noqa: F401  before, because its own OpenBLAS chooses by itself

from pipeline.core.cpu import cpu_facts

KERNEL_VARIABLE = "OPENBLAS_CORETYPE"
"""The environment variable that names OpenBLAS' kernel."""

LAST_KNOWN_AMD_FAMILY = 25
"""Zen 1 to 4. OpenBLAS 0.3.15 knows these, apart from the AVX-512 of Zen 4."""

KERNELS = {
    "SkylakeX": {"avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512cd", "avx2", "fma"},
    "Haswell": {"avx2", "fma"},
}
"""The instructions that a kernel needs, the fastest kernel first."""


def kernel(facts: dict[str, str]) -> str | None:
    """Return the name of OpenBLAS' kernel, None where its own choice is right or nothing is known.

    Args:
        facts: as `cpu_facts` returns them. An Intel CPU that OpenBLAS 0.3.15 knows gets the kernel
            that OpenBLAS would choose, apart from Cooper Lake, whose own kernel has no name there.
    """
    vendor, family = facts.get("vendor_id"), facts.get("cpu family", "")
    flags = set(facts.get("flags", "").split())
    found = next((name for name, needed in KERNELS.items() if needed <= flags), None)
    newer = family.isdecimal() and (int(family) > LAST_KNOWN_AMD_FAMILY or found == "SkylakeX")
    chosen_here = vendor == "GenuineIntel" or (vendor == "AuthenticAMD" and newer)
    return found if chosen_here else None


_chosen = None if KERNEL_VARIABLE in os.environ else kernel(cpu_facts())
if _chosen:
    os.environ[KERNEL_VARIABLE] = _chosen
try:
    import faiss
finally:  # scipy, and the processes that this one starts, choose by themselves
    if _chosen:
        del os.environ[KERNEL_VARIABLE]

__all__ = ["faiss"]


@contextmanager
def faiss_threads(number: int) -> Iterator[None]:
    """Let FAISS use so many threads within the block; on one, the order of its sums is fixed."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
