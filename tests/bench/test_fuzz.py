"""A short part of `make fuzz`, and that it sees what it looks for."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench import damage, fuzz
from bench.fault_lab import INPUTS
from pipeline.core import files
from pipeline.core.errors import PipelineError
from pipeline.text import columns

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_damaged_artefacts_give_the_same_result_or_one_message() -> None:
    tally = fuzz.run_part("readers", seed=0, first=20, tries=20, seconds=300)
    assert sum(tally.outcomes.values()) == 20
    assert tally.outcomes["refused"] > 8
    assert not tally.failures


def test_random_texts_are_the_same_both_ways_and_growing_ones_take_linear_time() -> None:
    texts = fuzz.Texts()
    for number in range(20):
        outcome, failure = texts.attempt(np.random.default_rng([0, number]), number)
        assert failure is None
        assert outcome in ("same", "linear")


def test_a_difference_between_the_two_ways_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "normalise_column", lambda texts: pa.array(["x"] * len(texts)))
    _, failure = fuzz.Texts().attempt(np.random.default_rng(1), 1)
    assert failure is not None
    assert failure.kind == "differ"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("fuzz"))
        patch.setenv("PIPELINE_CACHE", "")
        yield fuzz.Project(Path.cwd())


def test_every_artefact_of_a_stage_is_read_by_something_that_is_fuzzed(project: Any) -> None:
    commands = {"store", "trec", "gate", "params"}
    assert {each.name for each in project.readers} == {*INPUTS, *commands}
    assert all(each.reads for each in project.readers)


def test_a_reader_that_believes_damage_crashes_hangs_or_leaves_half_is_seen(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outcome(run: Any, seed: int = 0) -> str:
        path = Path("params.yaml")
        monkeypatch.setattr(project, "readers", [fuzz.Reader("clean", (path,), run)])
        kinds = [damage.Damage("cut", damage.cut)]
        monkeypatch.setattr(damage, "of_file", lambda *_: kinds)
        found: str = project.attempt(np.random.default_rng(seed), 0)[0]
        assert path.read_bytes() == project.sound[path]
        return found

    def half() -> None:
        (project.shop.folder / "data/clean/es/counts.json").write_text("half")
        raise PipelineError("no")

    sound = project.expected["clean"]
    assert outcome(lambda: sound) == "same"
    assert outcome(lambda: sound | {"more": b""}) == "wrong"
    assert outcome(lambda: 1 / 0) == "crash"
    monkeypatch.setattr(fuzz, "HANG", 0.05)
    assert outcome(lambda: [None for _ in iter(int, 1)]) == "hang"
    monkeypatch.setattr(fuzz, "HANG", 60)
    assert outcome(half) == "half"


def test_damage_is_the_same_for_a_seed_and_changes_the_file(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"a": {"b": [1, 0.5, None]}, "c": "text"})
    table = pa.table({"id": [1, 2, 3], "text": ["a", "b", "c"], "score": [0.5, 1.0, 2.0]})
    pq.write_table(table, tmp_path / "a.parquet")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "other.parquet").write_bytes(b"PAR1")
    for ending in ("json", "parquet"):
        path = tmp_path / f"a.{ending}"
        whole = path.read_bytes()
        for kind in damage.of_file(path, [tmp_path / f"other.{ending}"]):
            if kind.name == "misplace":
                continue
            changed = 0
            for seed in range(20):
                found = []
                for _ in range(2):
                    path.write_bytes(whole)
                    kind.apply(np.random.default_rng(seed), path)
                    found.append(path.read_bytes())
                assert found[0] == found[1]
                changed += found[0] != whole
            assert changed >= 15, kind.name
            path.write_bytes(whole)
