"""One measurement of a stage: what runs, what it needs, what it says; and seconds of CPU."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.core.params import Params
from pipeline.core.params_file import load_params

Figures = dict[str, Any]


@dataclass(frozen=True)
class Measure:
    """How a stage is measured, on a catalogue of a given size.

    Each function runs in a process of its own, in a project folder with params.yaml and the source
    that it names; the files of earlier measurements stay there.

    Attributes:
        run: the work whose seconds and memory are measured. It returns other figures, and
            `seconds` if only a part of it counts.
        prepare: makes what `run` needs, unless it is there.
        compare: measures, right after `run`, what it is compared with. Its figures are kept too;
            `per_second` in them, in products, becomes a ratio.
    """

    run: Callable[[int], Figures]
    prepare: Callable[[int], None]
    compare: Callable[[int], Figures] | None = None


def run_locales(body: Callable[[Params, str], object]) -> Params:
    """Run a stage's function for all locales, one after the other; return the settings."""
    params = load_params()
    for locale in params.locales:
        body(params, locale)
    return params


def cpu_seconds() -> float:
    """Return the CPU seconds of this process, and of those that it started and that have ended."""
    return sum(os.times()[:4])


def children_cpu() -> float:
    """Return the CPU seconds of the processes that this one started and that have ended."""
    used = os.times()
    return used.children_user + used.children_system
