from typing import Any

import numpy as np
import pytest

from pipeline.core import params_text
from pipeline.core.errors import PipelineError
from pipeline.core.params_edit import put
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
