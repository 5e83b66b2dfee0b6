"""bm25 is measured beside bm25s: each side once a round, index and search apart."""

import json
from pathlib import Path

import numpy as np
import pytest

from bench import bm25
from tests.helpers.artefacts import LOCALE, ROOT, write_clean

pytestmark = [pytest.mark.slow, pytest.mark.thorough]


def test_every_side_has_seconds_of_index_and_search_for_each_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(1), 300, 40)
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    Path("params.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["bm25", "--locale", LOCALE, "--rounds", "2"])
    assert bm25.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["products"], found["queries"]) == (300, 40)
    for side in found["seconds"].values():
        assert all(len(side[part]) == 2 and min(side[part]) > 0 for part in bm25.PARTS)
    assert found["times_as_fast_as_bm25s"].keys() == {"here", "here, one thread"}
    monkeypatch.setattr("sys.argv", ["bm25", "--locale", "jp"])
    assert bm25.main() == 1
