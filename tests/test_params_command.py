"""`python -m pipeline.params`: checks the file; `add-locale` edits what is needed, and no more."""

import sys
from pathlib import Path

import pytest

from pipeline.core.params_file import load_params
from pipeline.params import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["params", *arguments])
    return main()


def test_the_command_checks_the_file(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    assert capsys.readouterr() == ("", "params.yaml is valid (locales: us, es, jp)\n")

    for arguments, status in ((["--help"], 0), (["--locale", "es"], 2)):
        with pytest.raises(SystemExit) as ended:
            run(monkeypatch, *arguments)
        assert ended.value.code == status
    assert capsys.readouterr().out.startswith("usage: python -m pipeline.params [-h]")

    text = (project / "params.yaml").read_text(encoding="utf-8")
    (project / "params.yaml").write_text(text.replace("seed: 7", "sede: 7"), encoding="utf-8")
    assert run(monkeypatch) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error in params: params.yaml:",
        "  demo.seed: missing",
        "  demo.sede: unknown key; did you mean 'seed'?",
    ]


def test_a_locale_is_added_by_six_lines(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (project / "params.yaml").read_text(encoding="utf-8").splitlines()

    assert run(monkeypatch, "add-locale", "de", "--encoder", "labse") == 0

    after = (project / "params.yaml").read_text(encoding="utf-8").splitlines()
    new = ["  de: labse", "  de: flat", "  de: de", "  de: typed", "  de: none", "  de: {}"]
    kept = list(after)
    for line in new:
        kept.remove(line)
    assert kept == before
    params = load_params()
    assert params.locales == ("us", "es", "jp", "de")
    assert (params.encoder["de"], params.language["de"]) == ("labse", "de")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("es",), "the locale es is there already"),
        (("De",), "the locale 'De': must be of small letters"),
        (("1e3",), "the locale '1e3': must be of small letters"),
        (("de", "--encoder", "labes"), "encoder.de: 'labes' is not defined under encoders"),
        (("de", "--index", "hnws"), "index.de: 'hnws' is not defined under indexes"),
        (("de", "--language", "german"), "language.de: must be an ISO 639-1 code or 'any'"),
        (("mean",), "encoder.mean: must not be the name of a locale"),
    ],
)
def test_a_locale_that_breaks_a_rule_is_one_message_and_the_file_stays(
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    before = (project / "params.yaml").read_bytes()

    assert run(monkeypatch, "add-locale", *arguments) == 1

    assert said in capsys.readouterr().err
    assert (project / "params.yaml").read_bytes() == before


def test_a_file_that_cannot_be_written_is_one_line_and_no_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", "")
    (project / "params.yaml").chmod(0o400)
    assert run(monkeypatch, "add-locale", "de") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error in params: params.yaml is read-only")

    (project / "params.yaml").chmod(0o644)
    (project / ".cache").touch()  # a file where the folder of the lock should be
    assert run(monkeypatch, "add-locale", "de") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error in params: ")
    assert "something else is there already. Move it away." in line
