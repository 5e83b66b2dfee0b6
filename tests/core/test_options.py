import argparse

import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.options import number_of_draws, read_pairs


def test_a_number_of_draws_is_whole_and_within_bounds_and_the_message_names_no_code() -> None:
    assert number_of_draws("100") == 100
    for text in ("99", "abc", "1e3", "-5", "", "10000001"):
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"from 100 to 10000000 .found {text}.$"
        ):
            number_of_draws(text)


def test_pairs_are_split_at_the_first_sign_or_the_last_and_each_is_named_once() -> None:
    assert read_pairs([], "--column", "A=B") == {}
    assert read_pairs(["sku=a=b", "id=c"], "--column", "A=B") == {"sku": "a=b", "id": "c"}
    assert read_pairs(["a=b=E", "2=S"], "--label", "A=B", last=True) == {"a=b": "E", "2": "S"}
    for wrong in ("x", "=E", "x=", "", "="):
        with pytest.raises(PipelineError, match=rf"^--label {wrong}: must be A=B\. Correct it"):
            read_pairs(["2=E", wrong], "--label", "A=B", last=True)
    with pytest.raises(PipelineError, match=r"^--label 2 is given twice"):
        read_pairs(["2=E", "2=S"], "--label", "A=B")
