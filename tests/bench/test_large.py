"""Hours of 100 million products follow from measured rates: more work, more cores."""

import math
from typing import Any

import pytest

from bench import large
from pipeline.core.errors import PipelineError

pytestmark = pytest.mark.thorough

VECTORS, SEARCHED = 1_200_000, 20_000
ENCODE = {
    "encoders": {large.ENCODER[0]: {"sides": {large.ENCODER[1]: {"texts_per_second": 50.0}}}},
    "machine": {"cores": 2},
}


def scale(products: int = 1_800_000, cpu: float = 1_900.0) -> dict[str, Any]:
    common = {"products": products, "peak_private_bytes": 3_000_000_000}
    return {
        "machine": {"cores": 2},
        "stages": {
            "index (flat)": [{**common, "vectors": VECTORS, "seconds": 12.0}],
            "retrieve (flat)": [
                {**common, "queries": SEARCHED, "seconds": 1_000.0, "cpu_seconds": cpu}
            ],
        },
    }


def hours(fed: int, cpu: float = 1_900.0) -> dict[str, tuple[float, float]]:
    rows = large.rows(scale(cpu=cpu), ENCODE, {"tiny": {large.FED: fed}})
    return {
        name: (float(one), math.nan if many == "-" else float(many))
        for name, _, _, one, many, _ in rows
    }


def test_work_is_as_many_times_longer_as_it_is_more_and_cores_divide_what_they_share() -> None:
    found = hours(fed=10**9)
    times = large.PRODUCTS / VECTORS * large.QUERIES / SEARCHED
    one, many = found["retrieve (flat)"]
    # 100 s of one core and 1,800 s of CPU that both shared took 100 + 900 s.
    assert one == pytest.approx((100 + 1_800 / large.CORES) * times / 3_600, rel=0.05)
    assert math.isnan(many)  # by ranges on a cluster: not measured
    alone, _ = hours(fed=10**9, cpu=1_000.0)["retrieve (flat)"]
    assert alone == pytest.approx(1_000 * times / 3_600, rel=0.05)
    one, many = found["index (flat)"]
    assert one == many == pytest.approx(12 * large.PRODUCTS / VECTORS / 3_600, rel=0.1)
    one, many = found["embed (minilm, float32)"]
    assert one == pytest.approx(large.PRODUCTS / 50 / 3_600 * 2 / large.CORES, rel=0.01)
    assert many == pytest.approx(one / large.MACHINES, rel=0.01)


def test_a_cluster_encodes_no_faster_than_one_process_hands_out_texts() -> None:
    assert hours(fed=1_000)["embed (minilm, float32)"][1] == pytest.approx(1e8 / 3.6e6, rel=0.01)


def test_a_rate_of_few_products_is_left_out_and_a_missing_one_is_told() -> None:
    ray = {"tiny": {large.FED: 1_000}}
    assert len(list(large.rows(scale(products=100_000), ENCODE, ray))) == 1
    with pytest.raises(PipelineError, match=r"has no 'tiny'. Run `make bench bench-ray`"):
        list(large.rows(scale(), ENCODE, {}))
