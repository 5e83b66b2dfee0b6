import numpy as np

from pipeline.core.arrays import sampled_rows


def test_a_sample_is_seeded_ascending_and_whole_where_there_are_few() -> None:
    assert sampled_rows(1000, 1000).tolist() == list(range(1000))
    sample = sampled_rows(5000, 1000)
    assert len(sample) == 1000
    assert (np.diff(sample) > 0).all()
    assert 0 <= sample[0] < sample[-1] < 5000
    np.testing.assert_array_equal(sample, sampled_rows(5000, 1000))
    assert 2300 < sample.mean() < 2700
