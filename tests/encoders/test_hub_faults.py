"""Faults of a hub: each is waited out, or is one message; never a wrong or a half file.

The hub is a real server on 127.0.0.1, so nothing here needs the network.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder
from pipeline.encoders import hub_files
from pipeline.encoders.hub_cache import cached_list
from pipeline.encoders.weights import LocalWeights, resolve_weights
from tests.helpers import tiny_models
from tests.helpers.artefacts import ROOT
from tests.helpers.disks import small_disk
from tests.helpers.loopback_hub import Fault, LoopbackHub
from tests.helpers.tiny_models import build_model

pytestmark = pytest.mark.slow  # models are built

MODEL = "some/model"
BIG = "model.safetensors"
OTHER = "f" * 40


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("models") / "model", hidden=128)


@pytest.fixture(scope="module")
def sha256(model: Path) -> str:
    return tiny_models.weights_of(model).sha256


@pytest.fixture
def revision(hub: LoopbackHub, model: Path) -> str:
    return hub.publish(MODEL, model)


def entry(revision: str, *, model: str = MODEL) -> Encoder:
    weights = {"kind": "hub", "model": model, "revision": revision}
    return tiny_models.entry(Path("unused"), weights=weights)


def resolve(revision: str, **more: Any) -> LocalWeights:
    return resolve_weights(entry(revision, **more), "tiny")


def refusal(revision: str, **more: Any) -> str:
    """Return the message with which a model is refused, which must be one line."""
    with pytest.raises(PipelineError) as caught:
        resolve(revision, **more)
    message = str(caught.value)
    assert message.startswith("encoders.tiny.weights: ")
    assert "\n" not in message
    return message


def ranges(hub: LoopbackHub) -> list[str | None]:
    """Return the ranges of the weights that were asked for, in order."""
    return [headers.get("range") for _, path, headers in hub.requests if path.endswith(BIG)]


def size_of_part(folder: Path) -> int:
    """Return how many bytes of the weights a download left."""
    (part,) = (folder / "cache/encoders").rglob(f"{BIG}.part")
    return part.stat().st_size


def test_what_is_not_there_or_not_allowed_is_one_message(hub: LoopbackHub, revision: str) -> None:
    assert "there is no model some/other" in refusal(revision, model="some/other")
    assert "has no such commit" in refusal(OTHER)
    assert "Repo id must" in refusal(revision, model="some/..")
    for status in (401, 403):
        hub.add(Fault("/api/", status=status))
        assert "HF_TOKEN" in refusal(revision)
        hub.add(Fault("/resolve/", status=status))
        assert "HF_TOKEN" in refusal(revision)
    hub.add(Fault("/api/", status=418))
    assert "HTTP 418" in refusal(revision)


def test_a_token_opens_a_private_model_reaches_no_other_host_and_is_never_printed(
    hub: LoopbackHub,
    revision: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("DEBUG", logger="pipeline")
    hub.token = "hf_right"  # noqa: S105
    assert "HF_TOKEN" in refusal(revision)
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert "hf_wrong" not in refusal(revision)
    hub.requests.clear()
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    resolve(revision)
    asked = {path.startswith("/cdn/"): headers for _, path, headers in hub.requests}
    assert asked[False]["authorization"] == "Bearer hf_right"
    assert "authorization" not in asked[True]
    assert "hf_" not in caplog.text


def test_requests_say_nothing_about_this_machine_and_there_are_no_others(
    hub: LoopbackHub, revision: str
) -> None:
    resolve(revision)
    assert {headers["user-agent"] for _, _, headers in hub.requests} == {"esci-retrieval"}
    assert {path.split("/")[1] for path in hub.paths()} == {"api", "some", "cdn"}
    assert [path for path in hub.paths() if path.startswith("/api/")] == [
        f"/api/models/{MODEL}/revision/{revision}"
    ]


def test_a_server_that_answers_for_another_commit_is_refused(
    hub: LoopbackHub, revision: str
) -> None:
    hub.add(Fault(f"/resolve/{revision}/config.json", status=200, headers={"X-Repo-Commit": OTHER}))
    assert OTHER in refusal(revision)
    hub.commit = OTHER
    assert OTHER in refusal(revision)


def test_a_busy_server_is_asked_again_when_it_says(
    hub: LoopbackHub, revision: str, sha256: str, caplog: pytest.LogCaptureFixture
) -> None:
    past = formatdate(time.time() - 60, usegmt=True)
    hub.add(
        Fault("/api/", status=429, headers={"Retry-After": "1"}),
        Fault("/api/", status=503, headers={"Retry-After": past}),
        Fault(f"/cdn/{revision}/{MODEL}/{BIG}", times=2, status=429),
        Fault("config.json", times=2, status=500),
    )
    assert resolve(revision).sha256 == sha256
    assert "HTTP 429; trying again in 1 s" in caplog.text
    assert caplog.text.count("trying again") == 6


def test_a_server_that_stays_busy_is_given_up_with_one_message(
    hub: LoopbackHub, revision: str
) -> None:
    for part in ("/api/", BIG):
        hub.requests.clear()
        hub.faults = [Fault(part, times=99, status=503)]
        assert "HTTP 503; 5 tries" in refusal(revision)
        assert sum(part in path for path in hub.paths()) in (5, 10)  # with the redirects
    hub.faults = [Fault("/api/", status=429, headers={"Retry-After": "86400"})]
    assert "it asks to wait 86400 s" in refusal(revision)


def test_a_download_that_is_cut_goes_on_where_it_was(
    hub: LoopbackHub, model: Path, revision: str, sha256: str
) -> None:
    hub.add(Fault(f"cdn/{revision}/{MODEL}/{BIG}", times=3, cut=100_000))
    assert resolve(revision).sha256 == sha256
    size = (model / BIG).stat().st_size
    assert size > 300_000
    assert hub.sent[BIG] == size
    assert ranges(hub)[-1] == "bytes=300000-"


def test_a_server_without_ranges_begins_again_and_the_file_is_right(
    hub: LoopbackHub, revision: str, sha256: str
) -> None:
    hub.ranges = False
    hub.add(Fault(f"cdn/{revision}/{MODEL}/{BIG}", times=2, cut=100_000))
    assert resolve(revision).sha256 == sha256


@pytest.mark.parametrize("change", [b"same size", b"longer", b"shorter"])
def test_a_file_that_changed_under_the_commit_is_refused_and_not_used_later(
    hub: LoopbackHub, model: Path, revision: str, sha256: str, change: bytes
) -> None:
    whole = (model / BIG).read_bytes()
    changed = {
        b"same size": whole[:-1] + bytes([whole[-1] ^ 1]),
        b"longer": whole + b"\0",
        b"shorter": whole[:-1],
    }[change]
    hub.served[BIG] = changed
    assert BIG in refusal(revision)
    hub.served.clear()
    assert resolve(revision).sha256 == sha256


def test_a_mirror_that_lists_names_alone_serves_the_same_model(
    hub: LoopbackHub, revision: str, sha256: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    hub.lists_sizes = False
    hub.add(Fault(f"cdn/{revision}/{MODEL}/{BIG}", cut=100_000))
    assert resolve(revision).sha256 == sha256
    assert "at least 0.0 MB" in caplog.text


def test_a_list_that_no_hub_gives_is_refused(hub: LoopbackHub, revision: str) -> None:
    files = hub.models[MODEL][revision]
    files["../evil.json"] = b"{}"
    assert "'../evil.json', which is no path inside a model" in refusal(revision)
    hub.models[MODEL][revision] = {}
    assert "lists no files" in refusal(revision)
    hub.add(Fault("/api/", status=200))
    assert "is not readable as JSON" in refusal(revision)


def test_a_slow_server_is_waited_for_and_a_silent_one_given_up(
    hub: LoopbackHub, revision: str, sha256: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    hub.add(Fault("/api/", times=5, silent=0.5))
    assert "timed out; 5 tries" in refusal(revision)
    with monkeypatch.context() as patch:
        patch.setattr(hub_files, "_WINDOW", 0.05)
        hub.chunk, hub.pause = 10, 0.03
        assert "bytes came in" in refusal(revision)
    hub.chunk, hub.pause = 1 << 16, 0.0
    hub.faults = [Fault(BIG, times=2, silent=0.5)]
    assert resolve(revision).sha256 == sha256


def bring_home(revision: str, home: Path) -> Path:
    """Let huggingface_hub itself bring a model to HF_HOME, and return its folder there."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(MODEL, revision=revision, cache_dir=home / "hub"))


def test_without_the_network_a_model_in_hf_home_is_used_and_a_part_of_one_is_not(
    hub: LoopbackHub,
    revision: str,
    sha256: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set" in refusal(revision)
    assert hub.requests == []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    home = bring_home(revision, tmp_path / "home")
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert resolve(revision).sha256 == sha256
    assert hub.requests == []
    part = (home / "1_Pooling/config.json").resolve()
    damages: tuple[Callable[[], object], ...] = (lambda: part.write_bytes(b"{}"), part.unlink)
    for damage in damages:
        shutil.rmtree(tmp_path / "cache")
        damage()
        assert "does not hold it whole" in refusal(revision)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    hub.sent.clear()
    assert resolve(revision).sha256 == sha256
    assert hub.fetched() == {"1_Pooling/config.json"}


def test_a_folder_in_hf_home_without_its_file_list_is_not_taken_for_whole(
    hub: LoopbackHub, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants

    home = bring_home(revision, tmp_path / "home")
    shutil.rmtree(home.parents[1] / "trees")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "hf download" in refusal(revision)


def test_a_file_list_in_hf_home_that_leads_outside_the_model_is_not_used(
    hub: LoopbackHub, revision: str, sha256: str, tmp_path: Path
) -> None:
    bring_home(revision, tmp_path / "home")
    (path,) = (tmp_path / "home").rglob(f"trees/{revision}.json")
    found = json.loads(path.read_text("utf-8"))
    assert len(cached_list(MODEL, revision)) == len(found["files"])
    found["files"]["../../outside.json"] = found["files"]["config.json"]
    path.write_text(json.dumps(found), "utf-8")
    assert cached_list(MODEL, revision) == []
    assert resolve(revision).sha256 == sha256


def test_a_proxy_is_used_and_addresses_are_shown_without_their_password(
    hub: LoopbackHub, revision: str, sha256: str, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    from huggingface_hub import close_session, constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://me:secret@hub.invalid")
    monkeypatch.setenv("HTTP_PROXY", hub.endpoint)
    close_session()
    try:
        assert resolve(revision).sha256 == sha256
        monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
        close_session()
        message = refusal(OTHER)
        assert "secret" not in message
        assert "Retrying" not in caplog.text
        for part in (
            f"{MODEL} at {OTHER} could not be downloaded from the hub http://hub.invalid",
            "weights.kind: folder", "weights.kind: wheel",
        ):  # fmt: skip
            assert part in message
        monkeypatch.delenv("HTTP_PROXY")
        monkeypatch.setattr(constants, "ENDPOINT", "mirror.example")
        assert "hub mirror.example (" in refusal(OTHER)
    finally:
        close_session()


FETCH = """
import sys
from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder
from pipeline.encoders.weights import resolve_weights
try:
    found = resolve_weights(Encoder.model_validate_json(sys.argv[1]), "tiny")
except PipelineError as err:
    sys.exit(f"error: {err}")
sys.stdout.write(found.sha256)
"""


def start(hub: LoopbackHub, revision: str, limit: str = "", **more: str) -> subprocess.Popen[str]:
    """Fetch in a process of its own, below a shell's limits."""
    variables = {"HF_ENDPOINT": hub.endpoint, **more}
    command = ["bash", "-c", f'{limit} exec "$0" "$@"', sys.executable, "-c", FETCH]
    return subprocess.Popen(
        [*command, entry(revision).model_dump_json()],
        env={**os.environ, **variables}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_download_goes_on_and_ends_with_the_same_bytes(
    hub: LoopbackHub, model: Path, revision: str, sha256: str, tmp_path: Path
) -> None:
    size = (model / BIG).stat().st_size
    hub.chunk, hub.pause = 20_000, 0.02
    with start(hub, revision) as process:
        while process.poll() is None and hub.sent[BIG] < size // 2:
            time.sleep(0.002)
        process.kill()
    assert process.returncode == -9
    left = size_of_part(tmp_path)
    assert 0 < left < size
    hub.chunk, hub.pause = 1 << 16, 0.0
    assert resolve(revision).sha256 == sha256
    assert ranges(hub)[-1] == f"bytes={left}-"
    assert hub.sent["tokenizer.json"] == (model / "tokenizer.json").stat().st_size
    assert not list((tmp_path / "cache").rglob("*.part"))


def test_a_full_disk_is_one_message_and_the_next_run_goes_on(
    hub: LoopbackHub, model: Path, revision: str, sha256: str, tmp_path: Path
) -> None:
    size = (model / BIG).stat().st_size
    with start(hub, revision, limit=f"ulimit -f {size // 2048};") as process:
        _, printed = process.communicate()
    assert process.returncode == 1
    assert "cannot be written to" in printed
    assert "Free some space" in printed
    assert "Traceback" not in printed
    left = size_of_part(tmp_path)
    assert 0 < left < size
    assert resolve(revision).sha256 == sha256
    assert ranges(hub)[-1] == f"bytes={left}-"


def test_a_disk_without_room_is_told_before_the_download(
    hub: LoopbackHub, revision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = tmp_path / "disk"
    with small_disk(disk, 1):
        (disk / "filling").write_bytes(bytes(600_000))
        monkeypatch.setenv("PIPELINE_CACHE", str(disk / "cache"))
        message = refusal(revision)
    assert " MB free" in message
    assert BIG not in hub.fetched()


def test_settings_of_other_transfers_break_nothing(
    hub: LoopbackHub, revision: str, sha256: str
) -> None:
    settings = dict.fromkeys(("HF_HUB_ENABLE_HF_TRANSFER", "HF_DEBUG"), "1")
    settings |= {"HF_XET_HIGH_PERFORMANCE": "1", "HF_TOKEN": "hf_secret"}
    with start(hub, revision, **settings) as process:
        printed, errors = process.communicate()
    assert printed == sha256, errors
    assert "hf_secret" not in errors


def test_a_timeout_that_is_no_number_is_one_message(project: Path, tmp_path: Path) -> None:
    given = {"HF_HUB_ETAG_TIMEOUT": "5.5", "PIPELINE_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.encoders", "check", "labse"],
        cwd=project, env={**os.environ, **given, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "HF_HUB_DOWNLOAD_TIMEOUT: must be whole numbers of seconds" in done.stderr
    assert "Traceback" not in done.stderr
