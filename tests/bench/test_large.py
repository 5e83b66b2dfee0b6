"""Hours of 100 million products follow from measured rates: more work, more cores."""

import math
from typing import Any

import pytest

from bench import large
from pipeline.bm25.postings import MERGED_BYTES, WEIGHT_BYTES
from pipeline.bm25.room import RANGE_POSTINGS
from pipeline.core.errors import PipelineError
from pipeline.plan.costs import terms_of

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


def test_bm25_that_works_range_by_range_has_the_memory_of_a_range_and_its_time_on_all_cores() -> (
    None
):
    def row(cpu: float) -> list[str]:
        common = {"products": 1_800_000, "peak_private_bytes": 3_000_000_000}
        words = {**common, "queries": SEARCHED, "seconds": 200.0, "cpu_seconds": cpu}
        measured = scale()
        measured["stages"]["bm25"] = [words]
        rows = large.rows(measured, ENCODE, {"tiny": {large.FED: 1_000}})
        return next(each for each in rows if each[0] == "bm25 (range by range)")

    alone, shared = row(cpu=200.0), row(cpu=400.0)
    _, memory, disk, hours, many, _ = alone
    assert RANGE_POSTINGS * (MERGED_BYTES + WEIGHT_BYTES) / 1e9 < float(memory) < 64
    assert float(disk) == pytest.approx(MERGED_BYTES * terms_of(large.ANALYSER)[0] / 10, rel=0.05)
    assert many == "-"
    assert float(hours) > 200 * large.PRODUCTS / VECTORS / 3_600
    assert float(shared[3]) == pytest.approx(float(hours) * 2 / large.CORES, rel=0.02)


@pytest.mark.parametrize("flags", [["avx2"], ["amx_int8", "avx2"]])
def test_rates_of_two_cpus_are_told(flags: list[str]) -> None:
    of = scale()
    of["machine"]["cpu_flags"] = flags
    encode = ENCODE | {"machine": {"cores": 2, "cpu_flags": ["amx_bf16", "amx_int8", "avx2"]}}
    text = large.table(of, encode, {"tiny": {large.FED: 1_000}})
    told = "\nThe rate of embed is of another CPU (amx_int8, avx2) than the others (avx2).\n"
    assert text.endswith(told) == (flags == ["avx2"])
