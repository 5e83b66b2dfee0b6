"""The slow proof of faults: every stage killed, short of disk, or fed with damaged files.

    python -m bench.faults [kills] [disk] [damage] [cache]

It runs all stages on a small demo in a folder of its own, and checks one rule each time: what a
stage leaves is whole or absent, a failure is one message with a remedy, and the next run ends with
the bytes of an undisturbed one. Figures go to reports/bench/faults.json.
"""

import sys
import time
from pathlib import Path

import numpy as np

from bench import fault_lab as lab
from bench import reports
from bench.measure import Figures
from bench.proof_runner import Proof, run_proofs
from pipeline.core.log import log

SEED = 0
KILLS = 10
"""At how many writes each stage is killed, and at how many random times."""

MESSAGE_BYTES = 1_000
"""How long a message may be: it goes to a file too, under the same limit."""

FLIPS = 10
"""How many bits are flipped in each file, one at a time, and how often its end is cut off."""


def _shop(folder: Path) -> tuple[lab.Workshop, lab.Files]:
    shop = lab.Workshop(folder, with_engine=True)
    return shop, shop.run_all()


def kills(folder: Path) -> Figures:
    """Each stage is killed at `KILLS` of its writes and at as many random times."""
    shop, expected = _shop(folder)
    rng = np.random.default_rng(SEED)
    figures: Figures = {}
    for name in lab.OUTPUTS:
        killed = 0
        shop.forget_kept()
        started = time.monotonic()
        writes = shop.writes(name)
        took = time.monotonic() - started
        moments = np.unique(np.linspace(1, writes, KILLS).astype(int))
        at = [lab.AtWrite(int(n), lab.kill) for n in moments]
        later = [lab.KillAfter(float(t)) for t in rng.uniform(0, took, KILLS)]
        faults: list[lab.Fault] = [*at, *later]
        for fault in faults:
            shop.remove(name)
            shop.forget_kept()
            killed += lab.was_killed(shop.run(name, fault))
            lab.check_absent_or_whole(shop, name, expected)
            ended = shop.run(name)
            assert ended.status == 0, ended.said
            assert shop.written(lab.OUTPUTS) == expected, name
            assert not shop.left_over(), name
        total = len(at) + len(later)
        figures[name] = {"killed": killed, "done_before": total - killed, "healed": total}
    return figures


def disk(folder: Path) -> Figures:
    """No file may pass a size: from `MESSAGE_BYTES` to a byte below the largest of the stage."""
    shop, expected = _shop(folder)
    figures: Figures = {}
    for name in lab.OUTPUTS:
        largest = max(map(len, shop.written([name]).values()))
        refused = 0
        for limit in np.unique(np.linspace(MESSAGE_BYTES, largest - 1, KILLS).astype(int)).tolist():
            shop.forget_kept()
            ended = shop.run(name, lab.FileLimit(limit))
            lab.check_one_message(ended, name)
            assert shop.written(lab.OUTPUTS) == expected, name
            refused += 1
            assert not shop.left_over(), name
        assert shop.run(name).status == 0, name
        assert shop.written(lab.OUTPUTS) == expected, name
        figures[name] = {"refused": refused}
    return figures


def damage(folder: Path) -> Figures:
    """Bits flipped and ends cut off in everything that a stage reads, except text."""
    shop, expected = _shop(folder)
    rng = np.random.default_rng(SEED)
    figures: Figures = {}
    for name in lab.INPUTS:
        refused = harmless = 0
        for path in lab.damaged(shop, name):
            whole = (shop.folder / path).read_bytes()
            for moment in range(2 * FLIPS):
                if moment < FLIPS:
                    lab.flip(
                        shop.folder / path, int(rng.integers(len(whole))), int(rng.integers(8))
                    )
                else:
                    (shop.folder / path).write_bytes(whole[: int(rng.integers(len(whole)))])
                shop.forget_kept()
                if lab.same_or_refused(shop, name, expected):
                    refused += 1
                else:
                    harmless += 1
                (shop.folder / path).write_bytes(whole)
        assert shop.run(name).status == 0
        assert shop.written(lab.OUTPUTS) == expected, name
        figures[name] = {"refused": refused, "harmless": harmless, "wrong": 0}
    return figures


def cache(folder: Path) -> Figures:
    """The whole cache is removed while embed runs, at `KILLS` moments."""
    shop, expected = _shop(folder)
    shop.forget_kept()
    writes = shop.writes("embed")
    figures = {"went_on": 0, "refused": 0}
    for number in np.unique(np.linspace(1, writes, KILLS).astype(int)).tolist():
        shop.forget_kept()
        shop.remove("embed")
        ended = shop.run("embed", lab.AtWrite(number, lab.Remove(shop.cache)))
        if ended.status:
            log.info(lab.check_one_message(ended, "embed"))
            figures["refused"] += 1
        else:
            figures["went_on"] += 1
        lab.check_absent_or_whole(shop, "embed", expected)
        ended = shop.run("embed")
        assert ended.status == 0, ended.said
        assert shop.written(lab.OUTPUTS) == expected
    return figures


PROOFS: dict[str, Proof] = {
    "kills": kills, "disk": disk, "damage": damage, "cache": cache,
}  # fmt: skip


if __name__ == "__main__":
    sys.exit(run_proofs("faults", PROOFS, reports.FAULTS))
