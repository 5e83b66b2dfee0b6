"""Whatever a commit holds as params.yaml, it gives settings or one message."""

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.compare.revision import Revision
from pipeline.compare.settings import read_settings
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from tests.helpers.artefacts import ROOT

WHERE = "params.yaml of HEAD"
ENCODER = "encoder: {es: minilm}\nindex: {es: flat}\n"


def refusal(data: str | bytes) -> str:
    with pytest.raises(PipelineError) as caught:
        read_settings(data.encode() if isinstance(data, str) else data, WHERE)
    message = str(caught.value)
    assert message.startswith(WHERE)
    assert len(message) < 400
    return message


def test_the_shipped_file_is_read_as_dotted_keys() -> None:
    found = read_settings((ROOT / "params.yaml").read_bytes(), WHERE)
    assert found["encoder.us"] == "minilm"
    assert found["index_gate"] == "0.05"
    assert found["clean.separator"] == '" "'
    assert found["evaluate.ndcg"] == "[10, 100]"


@pytest.mark.parametrize(
    "data",
    [
        "[" * 100_000, "{a: " * 20_000, ENCODER + "a: !!int x", ENCODER + "a: !!float ''",
        ENCODER + "a: 2001-99-99", ENCODER + "a: " + "9" * 5_000, ENCODER + "a: 0x" + "f" * 5_000,
        ENCODER + "a: !!bool x", ENCODER + "a: !!python/object:os.system x", "\0", b"\xff",
        "a: 1\na: 2", ENCODER + "a: &x [*x]", ENCODER + "a: &x {b: *x}", "a: [", "%YAML 9\n---\n",
        "a: b\n--- \nc: d",
    ],
)  # fmt: skip
def test_what_is_no_parameter_file_is_one_message(data: str | bytes) -> None:
    refusal(data)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ("", "None"), ("3", "None"), ("[]", "None"), ("index: {}", "None"),
        ("encoder: minilm", "'minilm'"), ("encoder: [es]", "['es']"),
        ("encoder: {es: 1}", "{'es': 1}"),
    ],
)  # fmt: skip
def test_a_file_that_names_no_encoders_is_refused(data: str, found: str) -> None:
    assert f"encoder must give each locale a name (found {found})" in refusal(data)


def test_a_file_cut_among_its_locales_is_refused() -> None:
    assert "index must give each locale a name (found None)" in refusal("encoder: {es: minilm}")
    cut = "encoder: {es: minilm, us: minilm}\nindex: {es: flat}"
    assert "encoder has the locales ['es', 'us'], but index has ['es']" in refusal(cut)


def test_values_of_any_kind_are_texts_on_one_line() -> None:
    text = (
        ENCODER + "a: true\nb: [1.5, null]\nd: \"x\\ny\"\nf: {}\n'1': {'true': é}\n"
        "\"g\\n## h\": 1\n\"::add-mask::x\": 1\n'': {' ': 2}\ni: ''\n"
    )  # fmt: skip
    found = read_settings(text.encode(), WHERE)
    assert (found["a"], found["b"], found["d"]) == ("true", "[1.5, null]", '"x\\ny"')
    assert (found["f"], found["i"], found["1.true"]) == ("{}", '""', "é")
    assert {'"g\\n## h"', '"::add-mask::x"', '""." "'} <= set(found)
    for each in (*found, *found.values()):
        assert each.isprintable()
        each.encode()


def test_of_a_file_damaged_at_random_there_are_settings_or_one_message() -> None:
    whole = (ROOT / "params.yaml").read_bytes()[:2_500]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        data = bytearray(whole)
        for place in rng.integers(0, len(data), rng.integers(1, 9)):
            data[place] = rng.choice(list(b"{}[]&*:!|>'\"#%@`\n\t -?,\x00\xff0a"))
        try:
            found = read_settings(bytes(data), WHERE)
        except PipelineError as err:
            assert str(err).startswith(WHERE)  # noqa: PT017 (either outcome is right)
        else:
            assert all(each.isprintable() for each in (*found, *found.values()))


def test_the_hash_of_another_engines_run_is_a_setting_where_the_metrics_have_it(
    tmp_path: Path,
) -> None:
    named = "systems: {es: {vespa: data/systems/a.trec}, us: {}}\n"
    (tmp_path / "params.yaml").write_text(ENCODER + named)
    path = tmp_path / layout.metrics("es")
    path.parent.mkdir(parents=True)
    revision = Revision("now", tmp_path)
    plain = revision.settings()
    assert plain["systems.es.vespa"] == "data/systems/a.trec"
    for sha256 in ("0123456789ab" + "c" * 52, "no hash", 7, None):
        path.write_text(json.dumps({"systems": {"vespa": {"sha256": sha256}}}))
        known = {"systems.es.vespa.sha256": "0123456789ab"} if str(sha256)[0] == "0" else {}
        assert revision.settings() == plain | known
    path.write_text("[{")
    assert revision.settings() == plain
