import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.arrays import blocks, sampled_rows, write_npy
from tests.helpers.limits import file_limit


def test_a_sample_is_seeded_ascending_and_whole_where_there_are_few() -> None:
    assert sampled_rows(1000, 1000).tolist() == list(range(1000))
    sample = sampled_rows(5000, 1000)
    assert len(sample) == 1000
    assert (np.diff(sample) > 0).all()
    assert 0 <= sample[0] < sample[-1] < 5000
    np.testing.assert_array_equal(sample, sampled_rows(5000, 1000))
    assert 2300 < sample.mean() < 2700


def test_blocks_have_every_row_once_in_order_and_only_the_last_is_short() -> None:
    for seed in range(50):
        rng = np.random.default_rng(seed)
        count, size = int(rng.integers(0, 5000)), int(rng.integers(0, 700))
        every: tuple[Any, ...] = (range(count), np.arange(count))
        for rows in every:
            found = blocks(rows, size)
            assert [row for block in found for row in block] == list(rows)
            assert all(len(block) == max(1, size) for block in found[:-1])
            assert all(len(block) > 0 for block in found)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(3, 4), (0, 4), (1, 1)])
def test_an_npy_file_is_the_one_that_numpy_writes(
    tmp_path: Path, dtype: type[np.floating[Any]], shape: tuple[int, int]
) -> None:
    array = np.random.default_rng(0).normal(size=shape).astype(dtype)
    np.save(tmp_path / "numpy.npy", array)

    write_npy(tmp_path / "ours.npy", array)
    write_npy(tmp_path / "transposed.npy", array.T)

    assert (tmp_path / "ours.npy").read_bytes() == (tmp_path / "numpy.npy").read_bytes()
    transposed = np.load(tmp_path / "transposed.npy", allow_pickle=False)
    assert transposed.dtype == dtype
    np.testing.assert_array_equal(transposed, array.T)


def test_an_npy_file_that_does_not_fit_is_the_systems_error(tmp_path: Path) -> None:
    with file_limit(1_000), pytest.raises(OSError, match="File too large") as caught:
        write_npy(tmp_path / "a.npy", np.zeros(1_000))
    assert caught.value.errno == errno.EFBIG
