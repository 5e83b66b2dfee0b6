"""Values of options that several commands take, for argparse."""

import argparse

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
