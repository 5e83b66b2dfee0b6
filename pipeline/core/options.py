"""Values of options that several commands take, for argparse."""

import argparse
from collections.abc import Iterable

from pipeline.core.errors import PipelineError
from pipeline.core.params import FEWEST_DRAWS, MOST_DRAWS


def number_of_draws(text: str) -> int:
    """Return how many draws `--samples` asks for.

    Raises:
        argparse.ArgumentTypeError: it is no whole number from `FEWEST_DRAWS` to `MOST_DRAWS`.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if not FEWEST_DRAWS <= number <= MOST_DRAWS:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from {FEWEST_DRAWS} to {MOST_DRAWS} (found {text})"
        )
    return number


def read_pairs(
    asked: Iterable[str], option: str, form: str, *, last: bool = False
) -> dict[str, str]:
    """Return what an option says that is given once for each pair, such as `--label 2=E`.

    Args:
        asked: its values, A=B each.
        option: its name, for messages.
        form: what a value must be, for messages: "VALUE=LABEL, such as 2=E".
        last: whether A ends at the last =, so that it may hold some; else at the first.

    Raises:
        PipelineError: a value is not of this form, or A is given twice.
    """
    pairs: dict[str, str] = {}
    for each in asked:
        left, equals, right = each.rpartition("=") if last else each.partition("=")
        if not (left and equals and right):
            raise PipelineError(f"{option} {each}: must be {form}. Correct it.")
        if left in pairs:
            raise PipelineError(f"{option} {left} is given twice. Keep one.")
        pairs[left] = right
    return pairs
