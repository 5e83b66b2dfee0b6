"""What each install brings: packages, megabytes and seconds, in a fresh virtual environment.

    python -m bench.install [--torch 'torch==2.13.0 --index-url …'] [--only base run]

The steps go on top of each other in one environment: the base, torch as `make setup` installs it,
then each extra. A step's figures are what it adds, so a package counts where it comes first. Every
package is downloaded, none is taken from pip's cache. `seconds` are those of this machine and its
package index; `CPU` is the part of them that pip computes, as when it unpacks and compiles.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
import venv
from dataclasses import dataclass
from pathlib import Path

from bench.measure import children_cpu
from pipeline.core.text_tables import markdown

ROOT = Path(__file__).parents[1]
TORCH = "torch==2.13.0"
EXTRAS = ("run", "browser", "ray", "dev")
STEPS = ("base", "torch", *EXTRAS)
MEGABYTE = 1e6


@dataclass(frozen=True)
class Size:
    """What an environment has: distributions, and the bytes of all files beside them."""

    packages: int
    megabytes: float


def main() -> int:
    """Install step by step, print a table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.install")
    parser.add_argument("--torch", default=TORCH, help=f"arguments of pip (default: {TORCH})")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS))
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="install-") as folder:
        venv.create(folder, with_pip=True)
        (site,) = Path(folder).glob("lib/python*/site-packages")
        before = measure(site)
        for step in [step for step in STEPS if step in options.only]:
            seconds, busy = install(Path(folder), arguments(step, options.torch))
            after = measure(site)
            packages = after.packages - before.packages
            megabytes = after.megabytes - before.megabytes
            rows.append((step, str(packages), f"{megabytes:,.0f}", f"{seconds:.0f}", f"{busy:.0f}"))
            before = after
            sys.stderr.write(" ".join(rows[-1]) + "\n")  # the rest may take many minutes
    columns = ("install", "packages", "MB", "seconds", "CPU")
    sys.stdout.write(markdown(columns, rows, columns[1:]) + "\n")
    return 0


def arguments(step: str, torch: str) -> list[str]:
    """Return what pip installs in a step."""
    if step == "torch":
        return shlex.split(torch)
    constraint = ["--constraint", str(ROOT / "constraints.txt")]
    return [*constraint, str(ROOT) if step == "base" else f"{ROOT}[{step}]"]


def install(environment: Path, given: list[str]) -> tuple[float, float]:
    """Run pip in an environment; return its seconds and its seconds of CPU."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--no-cache-dir"]
    started, idle = time.perf_counter(), children_cpu()
    # Twice quiet: errors alone.
    subprocess.run([*pip, "-qq", "--disable-pip-version-check", *given], check=True)
    return time.perf_counter() - started, children_cpu() - idle


def measure(site: Path) -> Size:
    """Return what a folder of packages has."""
    size = sum(path.stat().st_size for path in site.rglob("*") if path.is_file())
    return Size(sum(1 for _ in site.glob("*.dist-info")), size / MEGABYTE)


if __name__ == "__main__":
    sys.exit(main())
