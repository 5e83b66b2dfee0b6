"""What tests of encoders share: a hub on this machine."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.encoders import hub_requests
from tests.helpers.loopback_hub import LoopbackHub, loopback_hub, use_hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub, an empty cache and an empty HF_HOME; faults are waited out quickly."""
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub_requests, "_FIRST_WAIT", 0.01)
    with loopback_hub() as served:
        use_hub(monkeypatch, served.endpoint, tmp_path / "home")
        yield served
