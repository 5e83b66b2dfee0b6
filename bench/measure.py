"""One measurement of a stage: what runs, what it needs, what it says."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.core.params import Params
from pipeline.core.params_file import load_params

Figures = dict[str, Any]


def nothing(products: int) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Measure:
    """How a stage is measured, on a catalogue of so many products.

    Each function runs in a process of its own, in a project folder: params.yaml, and the source
    that it names; what earlier measurements wrote there stays.

    Attributes:
        run: what is measured: its seconds, its memory. It returns what else is worth telling,
            `seconds` among it if not all of it counts.
        prepare: brings what it needs, where that is not there yet.
        compare: measures, right behind it, what it is compared with; its figures are told too, and
            among them `per_second` gives rates in products, which become ratios.
    """

    run: Callable[[int], Figures]
    prepare: Callable[[int], None] = nothing
    compare: Callable[[int], Figures] | None = None


def run_locales(body: Callable[[Params, str], object]) -> Params:
    """Run a stage's function for all locales, one after the other; return the settings."""
    params = load_params()
    for locale in params.locales:
        body(params, locale)
    return params
