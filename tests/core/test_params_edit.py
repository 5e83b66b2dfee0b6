import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core import params_text
from pipeline.core.errors import PipelineError
from pipeline.core.params_edit import put, write
from pipeline.core.params_file import load_params
from tests.helpers.artefacts import ROOT

TEXT = (ROOT / "params.yaml").read_bytes()


def paths_of(data: Any, above: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for key, value in data.items():
        found.append((*above, key))
        if isinstance(value, dict) and value:
            found += paths_of(value, (*above, key))
    return found


def comments(text: bytes) -> list[str]:
    return [line for line in text.decode().splitlines() if line.lstrip().startswith("#")]


def test_any_value_can_be_put_at_any_key_and_every_other_line_stays() -> None:
    rng = np.random.default_rng(1)
    data = params_text.parse(TEXT, "params.yaml")
    values = ["a: b", 1, 1.5, True, None, "", "1e5", ["x", "y"], {"k": "v", "l": ["m"]}]
    paths = paths_of(data)
    for number in rng.permutation(len(paths))[:9].tolist():
        path, old = paths[number], _at(data, paths[number])
        value = values[number % len(values)]
        edited = put(TEXT, path, value, "params.yaml")
        assert _at(params_text.parse(edited, "params.yaml"), path) == value
        if not isinstance(old, dict):  # a section has comments of its own, which go with it
            assert put(edited, path, old, "params.yaml") == TEXT


def _at(data: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def test_replacing_the_locales_keeps_every_comment() -> None:
    edited = TEXT
    for section, name in (("encoder", "e5-small-q4"), ("index", "flat"), ("language", "de")):
        edited = put(edited, (section,), {"de": name}, "params.yaml")
    assert comments(edited) == comments(TEXT)


@pytest.mark.parametrize("path", [("encoders", "mine"), ("new",), ("sample", "more")])
def test_a_new_key_comes_last_in_its_section_and_changes_no_line(path: tuple[str, ...]) -> None:
    edited = put(TEXT, path, {"a": [1]}, "params.yaml")
    rest = [line for line in edited.splitlines() if line in TEXT.splitlines()]
    assert [line for line in rest if line.strip()] == [
        line for line in TEXT.splitlines() if line.strip()
    ]
    assert params_text.parse(edited, "")[path[0]]


@pytest.mark.parametrize("text", [b"a: {b: 1}\n", b"a: &x\n  b: 1\nc: *x\n", b"a: 1\n", b""])
def test_a_form_that_cannot_be_edited_is_refused_with_what_to_write(text: bytes) -> None:
    with pytest.raises(PipelineError, match=r"a\.b has a form that cannot be edited|is not YAML"):
        put(text, ("a", "b"), {"deep": [1]}, "params.yaml")


def test_line_ends_and_the_mark_of_windows_stay() -> None:
    text = b"\xef\xbb\xbfa:\r\n  b: 1\r\n  # why\r\n  c: 2"
    assert put(text, ("a", "b"), 3, "") == text.replace(b"b: 1", b"b: 3")
    assert put(text, ("a", "d"), 4, "") == text + b"\r\n  d: 4\r\n"


def _with_seed(text: bytes, number: int) -> bytes:
    return put(text, ("demo", "seed"), number, "params.yaml")


def test_what_two_commands_write_at_once_is_all_there(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    entries = {name: {"kind": "ivf-flat", "lists": 8, "probes": 2} for name in ("a", "b", "c", "d")}
    together = threading.Barrier(len(entries))

    def add(name: str) -> None:
        together.wait()
        write(lambda text: put(text, ("indexes", name), entries[name], "params.yaml"))

    threads = [threading.Thread(target=add, args=[name]) for name in entries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert entries.keys() <= load_params().indexes.keys()


def test_the_file_keeps_its_mode_and_its_link(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    real = (project / "params.yaml").rename(project / "shared.yaml")
    (project / "params.yaml").symlink_to(real)
    real.chmod(0o664)
    assert write(partial(_with_seed, number=8)).demo.seed == 8
    assert (project / "params.yaml").is_symlink()
    assert real.stat().st_mode & 0o777 == 0o664
    assert load_params().demo.seed == 8


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda path: path.chmod(0o400), r"params\.yaml is read-only\. Make it writable"),
        (lambda path: path.unlink(), r"params\.yaml is missing\. Run from the root"),
        (lambda path: None, r"demo\.seed: must be"),
    ],
)
def test_what_cannot_be_written_is_one_message_and_the_folder_stays(
    project: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, said: str
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(project / "cache"))
    path = project / "params.yaml"
    spoil(path)
    before = path.read_bytes() if path.exists() else None
    with pytest.raises(PipelineError, match=said):
        write(partial(_with_seed, number=-1))
    assert (path.read_bytes() if path.exists() else None) == before
    assert {each.name for each in project.iterdir()} <= {"params.yaml", "cache"}
