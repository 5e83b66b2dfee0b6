import argparse

import pytest

from pipeline.core.options import number_of_draws


def test_a_number_of_draws_is_whole_and_within_bounds_and_the_message_names_no_code() -> None:
    assert number_of_draws("100") == 100
    for text in ("99", "abc", "1e3", "-5", "", "10000001"):
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"from 100 to 10000000 .found {text}.$"
        ):
            number_of_draws(text)
