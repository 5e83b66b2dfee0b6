"""A conversion for OpenVINO that is killed or meets a full disk leaves nothing that counts."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.tiny_models import build_model, entry
from tests.helpers.wheel_index import contents

pytestmark = pytest.mark.slow  # processes load models

CONVERT = """
import sys
from pipeline.core import stage
from pipeline.core.params import Encoder
from pipeline.encoders.openvino_model import converted_model
from pipeline.encoders.weights import resolve_weights
with stage.report_errors("embed") as outcome:
    spec = Encoder.model_validate_json(sys.argv[1])
    converted_model(spec, resolve_weights(spec, "tiny"))
sys.exit(outcome.status)
"""


def start(folder: Path, cache: Path, **more: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", CONVERT, entry(folder).model_dump_json()]
    environment = {**os.environ, "PIPELINE_CACHE": str(cache)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment, **more)


def convert(folder: Path, cache: Path) -> None:
    process = start(folder, cache)
    said = process.communicate()[1]
    assert process.returncode == 0, said


def partial(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if "partial" in path.name]


def limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))


def test_a_conversion_ends_with_the_same_bytes_after_a_kill_and_a_full_disk(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    convert(folder, tmp_path / "whole")
    expected = contents(tmp_path / "whole/engines", "x")
    cache = tmp_path / "killed"
    full = start(folder, cache, preexec_fn=limit_files)
    said = full.communicate()[1].splitlines()
    assert full.returncode == 1
    assert said[-1].startswith("error in embed: ")
    assert "openvino cannot write the converted model there" in said[-1]
    assert partial(cache) == []
    process = start(folder, cache)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("converting"):
            break
    time.sleep(random.uniform(0, 1))  # noqa: S311
    process.send_signal(signal.SIGKILL)
    process.communicate()
    convert(folder, cache)
    assert partial(cache) == []
    found = contents(cache / "engines", "x")
    seals = {name for name in found if name.endswith(".seal.json")}  # they hold times
    assert {name: found[name] for name in found.keys() - seals} == {
        name: expected[name] for name in expected.keys() - seals
    }
