"""A training that is killed, torn or short of disk ends with the bytes of an undisturbed one."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params_file import load_params
from pipeline.train.learner import Learner
from pipeline.train.stage import train
from tests.helpers.artefacts import ROOT
from tests.helpers.limits import file_limit
from tests.helpers.training import NAME, RERANKER, SETTINGS, write_project
from tests.train.test_stage import MINED, TAUGHT, Make, add_judge, contents
from tests.train.test_stage import make as make  # a fixture

pytestmark = pytest.mark.slow  # models are trained

KILLS = 3
OTHER = "tiny-other"
SHORT = {"epochs": 1, "batch": 13}  # four steps


def _train() -> dict[str, bytes]:
    train(load_params(), NAME)
    return contents(layout.model("encoder", NAME).folder)


def _checkpoint() -> Path:
    (folder,) = layout.checkpoints().glob(f"{NAME}-*")
    return folder


def _step() -> int:
    """The step of the checkpoint that is kept; 0 if there is none."""
    for card in layout.checkpoints().glob(f"{NAME}-*/checkpoint.json"):
        return int(json.loads(card.read_text(encoding="utf-8"))["step"])
    return 0


def _train_until(steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train, and be interrupted in the step after so many."""
    learn, done = Learner.learn, 0

    def interrupted(*arguments: object) -> float:
        nonlocal done
        if done == steps:
            raise KeyboardInterrupt
        done += 1
        return learn(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "learn", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(load_params(), NAME)
    assert _step() == steps


def _forget() -> None:
    """Remove what was trained, and its checkpoints."""
    shutil.rmtree(layout.model("encoder", NAME).folder)
    shutil.rmtree(layout.checkpoints())


def _train_in_a_process() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline.train", "--name", NAME],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )


def test_a_training_that_is_killed_again_and_again_ends_with_the_same_bytes(make: Make) -> None:
    make("undisturbed", {"epochs": 3})
    expected = _train()
    make("killed", {"epochs": 3})
    rng, ends = np.random.default_rng(1), []
    for _ in range(KILLS):
        before = _step()
        with _train_in_a_process() as process:
            while process.poll() is None and _step() == before:
                time.sleep(0.002)
            time.sleep(rng.random() * 0.05)
            process.kill()
        ends.append(process.returncode)
    assert ends[:2] == [-signal.SIGKILL] * 2
    assert ends[2] in (-signal.SIGKILL, 0)  # it may have been done
    with _train_in_a_process() as process:
        pass
    assert process.returncode == 0
    assert contents(layout.model("encoder", NAME).folder) == expected
    assert [path.name for path in _checkpoint().iterdir() if path.name.startswith("state")] == []


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_a_training_killed_at_ten_moments_of_any_of_its_work_ends_with_the_same_bytes(
    make: Make, kind: str
) -> None:
    """From its first file in the cache to its end: mining, steps, dev measures, the model's files.

    The encoder also has a teacher, which is converted and scores pairs.
    """
    make(kind)
    settings = SETTINGS | TAUGHT if kind == "encoder" else RERANKER
    write_project(Path(), settings | MINED | {"epochs": 3})
    add_judge(Path())
    cache, model = Path("cache").absolute(), layout.model(kind, NAME).folder.absolute()
    started = time.monotonic()
    with _train_in_a_process() as process:
        while process.poll() is None and not cache.exists():
            time.sleep(0.002)
        begin = time.monotonic() - started
    end = time.monotonic() - started
    assert process.returncode == 0
    expected = contents(model)
    rng, kills = np.random.default_rng(1), 0
    shutil.rmtree(cache)
    shutil.rmtree(model)
    while kills < 10:
        with _train_in_a_process() as process:
            try:
                process.wait(rng.uniform(begin, end))
            except subprocess.TimeoutExpired:
                process.kill()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert process.returncode == 0
        assert contents(model) == expected
        shutil.rmtree(cache)
        shutil.rmtree(model)
    with _train_in_a_process() as process:
        pass
    assert process.returncode == 0
    assert contents(model) == expected


def test_an_update_that_makes_weights_infinite_is_told_at_its_step_and_keeps_the_checkpoint(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("infinite", SHORT)
    _train_until(2, monkeypatch)
    folder = _checkpoint()
    (path,) = folder.glob("state-*.safetensors")
    state = load_file(path)
    moment = next(name for name in state if name.startswith("exp_avg."))
    state[moment].fill_(torch.finfo(torch.float32).max)
    save_file(state, path)
    card = json.loads((folder / "checkpoint.json").read_text(encoding="utf-8"))
    card["state"]["sha256"] = sha256_file(path)
    (folder / "checkpoint.json").write_text(json.dumps(card), encoding="utf-8")
    before = contents(folder)
    said = r"fails at step 3 of 4: the norm of the weights is inf\. .* The last checkpoint is"
    with pytest.raises(PipelineError, match=said):
        _train()
    assert contents(folder) == before
    weights = [value for name, value in load_file(path).items() if name.startswith("weight.")]
    assert all(torch.isfinite(value).all() for value in weights)


def test_a_checkpoint_that_is_torn_or_of_another_training_is_ignored_with_a_message(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    make("torn", SHORT)
    expected = _train()
    _forget()
    _train_until(2, monkeypatch)
    folder = _checkpoint()
    whole = shutil.copytree(folder, "whole")
    (state,) = folder.glob("state-*.safetensors")
    card = folder / "checkpoint.json"
    for damage in ("flip", "cut", "card", "key", "missing"):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        match damage:
            case "flip":
                data = bytearray(state.read_bytes())
                data[-9] ^= 4
                state.write_bytes(data)
            case "cut":
                os.truncate(state, state.stat().st_size // 2)
            case "card":
                os.truncate(card, 40)
            case "key":
                card.write_text(card.read_text().replace('"seed": 3', '"seed": 4'))
            case "missing":
                state.unlink()
        caplog.clear()
        assert _train() == expected
        assert f"the checkpoint of {NAME} is not used, and the training begins anew" in caplog.text


def test_a_disk_that_is_full_at_a_checkpoint_keeps_the_one_before(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("full", SHORT)
    expected = _train()
    _forget()
    _train_until(1, monkeypatch)
    before = contents(_checkpoint())
    with file_limit(200_000), pytest.raises(OSError, match="File too large"):
        _train()
    assert contents(_checkpoint()) == before
    assert _train() == expected


@pytest.mark.parametrize("kind", ["encoder", "reranker"])
def test_a_disk_that_is_full_when_the_model_is_written_is_an_error_of_the_system_and_costs_no_step(
    make: Make, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make("last", SHORT)
    if kind == "reranker":
        write_project(Path(), RERANKER | {"epochs": 1, "batch": 50})
    train(load_params(), NAME)
    model = layout.model(kind, NAME).folder
    expected = contents(model)
    weights = len(expected["model/model.safetensors"])
    assert weights == max(map(len, expected.values()))
    shutil.rmtree(model)
    monkeypatch.setattr(Learner, "learn", None)  # the checkpoint has all steps
    with file_limit(weights - 1), pytest.raises(OSError, match="File too large") as caught:
        train(load_params(), NAME)
    assert caught.value.errno == errno.EFBIG
    assert not model.exists()
    train(load_params(), NAME)
    assert contents(model) == expected


def test_trainings_of_a_name_stay_a_week(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make("many", SHORT)
    params = folder / "params.yaml"
    text = params.read_text()
    _train_until(2, monkeypatch)
    interrupted = _checkpoint()
    params.write_text(text.replace("lr: 0.002", "lr: 0.001"))
    _train()
    (second,) = set(layout.checkpoints().glob(f"{NAME}-*")) - {interrupted}
    params.write_text(text.replace("lr: 0.002", "lr: 0.003"))
    _train()
    assert {interrupted, second} < set(layout.checkpoints().glob(f"{NAME}-*"))
    old = time.time() - 8 * 86_400
    os.utime(second, (old, old))
    _train()
    kept = set(layout.checkpoints().glob(f"{NAME}-*"))
    assert interrupted in kept
    assert second not in kept
    assert len(kept) == 2


def test_a_training_is_as_old_as_its_last_use_and_one_of_a_name_that_is_gone_goes_too(
    make: Make,
) -> None:
    folder = make("old", SHORT)
    params = folder / "params.yaml"
    text = params.read_text()
    _train()
    used, digits = _checkpoint(), "0123456789abcdef"
    gone, other, no_training = (
        used.with_name(name) for name in (f"gone-{digits}", f"{OTHER}-{digits}", "gone-0")
    )
    for path in (gone, other, no_training):
        path.mkdir()
    old = time.time() - 8 * 86_400
    for path in (used, gone, other, no_training):
        os.utime(path, (old, old))
    data = YAML(typ="safe", pure=True).load(text)
    data["trained"][OTHER] = {**data["trained"][NAME]}
    YAML().dump(data, params)
    _train()  # no step, since it was done
    assert not gone.exists()
    data["trained"][NAME]["lr"] = 0.001
    YAML().dump(data, params)
    _train()
    assert used.exists()
    assert other.exists()
    assert no_training.exists()
