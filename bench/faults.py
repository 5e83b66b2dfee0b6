"""The slow proof of faults: every stage killed, short of disk, or fed with damaged files.

    python -m bench.faults [kills] [disk] [damage] [cache]

It runs all stages on a small demo in a folder of its own, and holds every outcome to one rule: what
a stage leaves is whole or absent, a failure is one message with the way out, and the next run ends
with the bytes of an undisturbed one. Figures go to reports/bench/faults.json.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench.workshop import (
    INPUTS,
    OUTPUTS,
    AtWrite,
    Fault,
    FileLimit,
    Files,
    KillAfter,
    Remove,
    Workshop,
    check_absent_or_whole,
    check_one_message,
    damaged,
    flip,
    kill,
    same_or_refused,
    was_killed,
)
from pipeline.core import layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json

SEED = 0
KILLS = 10
"""At how many writes each stage is killed, and as often at a random time."""

TOLD_BYTES = 1_000
"""What a message may take: it goes to a file too."""

FLIPS = 10
"""How many bits are flipped in each file, one at a time, and how often its end is cut off."""

Figures = dict[str, Any]


def _shop(folder: Path) -> tuple[Workshop, Files]:
    shop = Workshop(folder)
    return shop, shop.run_all()


def kills(folder: Path) -> Figures:
    """Each stage is killed at `KILLS` of its writes and as often at a random time."""
    shop, expected = _shop(folder)
    rng = np.random.default_rng(SEED)
    figures: Figures = {}
    for name in OUTPUTS:
        killed = 0
        shop.forget_vectors()
        started = time.monotonic()
        writes = shop.writes(name)
        took = time.monotonic() - started
        at = [AtWrite(int(n), kill) for n in np.unique(np.linspace(1, writes, KILLS).astype(int))]
        later = [KillAfter(float(t)) for t in rng.uniform(0, took, KILLS)]
        faults: list[Fault] = [*at, *later]
        for fault in faults:
            shop.remove(name)
            shop.forget_vectors()
            killed += was_killed(shop.run(name, fault))
            check_absent_or_whole(shop, name, expected)
            ended = shop.run(name)
            assert ended.status == 0, ended.told
            assert shop.written(OUTPUTS) == expected, name
            assert not shop.left_over(), name
        total = len(at) + len(later)
        figures[name] = {"killed": killed, "done_before": total - killed, "healed": total}
    return figures


def disk(folder: Path) -> Figures:
    """No file may pass a size, from `TOLD_BYTES` to the largest of the stage's own less a byte."""
    shop, expected = _shop(folder)
    figures: Figures = {}
    for name in OUTPUTS:
        largest = max(map(len, shop.written([name]).values()))
        refused = 0
        for limit in np.unique(np.linspace(TOLD_BYTES, largest - 1, KILLS).astype(int)).tolist():
            shop.forget_vectors()
            ended = shop.run(name, FileLimit(limit))
            check_one_message(ended, name)
            assert shop.written(OUTPUTS) == expected, name
            refused += 1
            assert not shop.left_over(), name
        assert shop.run(name).status == 0, name
        assert shop.written(OUTPUTS) == expected, name
        figures[name] = {"refused": refused}
    return figures


def damage(folder: Path) -> Figures:
    """Bits flipped and ends cut off in everything a stage reads that is no text."""
    shop, expected = _shop(folder)
    rng = np.random.default_rng(SEED)
    figures: Figures = {}
    for name in INPUTS:
        refused = harmless = 0
        for path in damaged(shop, name):
            whole = (shop.folder / path).read_bytes()
            for moment in range(2 * FLIPS):
                if moment < FLIPS:
                    flip(shop.folder / path, int(rng.integers(len(whole))), int(rng.integers(8)))
                else:
                    (shop.folder / path).write_bytes(whole[: int(rng.integers(len(whole)))])
                shop.forget_vectors()
                if same_or_refused(shop, name, expected):
                    refused += 1
                else:
                    harmless += 1
                (shop.folder / path).write_bytes(whole)
        assert shop.run(name).status == 0
        assert shop.written(OUTPUTS) == expected, name
        figures[name] = {"refused": refused, "harmless": harmless, "wrong": 0}
    return figures


def cache(folder: Path) -> Figures:
    """The whole cache is removed while embed runs, at `KILLS` moments."""
    shop, expected = _shop(folder)
    shop.forget_vectors()
    writes = shop.writes("embed")
    figures = {"went_on": 0, "refused": 0}
    for number in np.unique(np.linspace(1, writes, KILLS).astype(int)).tolist():
        shop.forget_vectors()
        shop.remove("embed")
        ended = shop.run("embed", AtWrite(number, Remove(shop.cache)))
        if ended.status:
            stage.log.info(check_one_message(ended, "embed"))
            figures["refused"] += 1
        else:
            figures["went_on"] += 1
        check_absent_or_whole(shop, "embed", expected)
        ended = shop.run("embed")
        assert ended.status == 0, ended.told
        assert shop.written(OUTPUTS) == expected
    return figures


PROOFS: dict[str, Callable[[Path], Figures]] = {
    "kills": kills, "disk": disk, "damage": damage, "cache": cache,
}  # fmt: skip


def main() -> int:
    """Run the proofs named, or all; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults")
    parser.add_argument("proofs", nargs="*", metavar="proof", help=f"of {', '.join(PROOFS)}")
    chosen = parser.parse_args().proofs or list(PROOFS)
    if unknown := set(chosen) - set(PROOFS):
        parser.error(f"no such proof: {', '.join(sorted(unknown))}; there are {', '.join(PROOFS)}")
    with stage.report_errors("faults") as outcome:
        found = read_json(layout.FAULTS, "") if layout.FAULTS.exists() else {}
        try:
            for name in chosen:
                with tempfile.TemporaryDirectory() as folder:
                    found[name] = PROOFS[name](Path(folder))
                stage.log.info("%s %s", name, found[name])
                write_json(layout.FAULTS, found)
        except AssertionError as err:
            raise PipelineError(f"a fault is not met: {err}") from err
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
