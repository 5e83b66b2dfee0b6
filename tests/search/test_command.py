"""`python -m pipeline.search`: for people and programs, queries from many places, bad input."""

import io
import json
import os
import sys
from pathlib import Path

import pytest

from pipeline.core import layout, stage
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.search import command
from pipeline.search.opening import open_engine
from pipeline.search.question import Question

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("in_small_project")]


Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def search(patch: Patch, *arguments: str, stdin: bytes = b"") -> int:
    """Run the command in this process; return its status."""
    patch.setattr(sys, "argv", ["search", *arguments])
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
    return command.main()


def test_a_judged_query_shows_its_labels_within_the_width(
    monkeypatch: Patch, capsys: Capture
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = next(iter(open_engine("es").judged.rows))
    arguments = [text, "-k", "5", "--table"]
    assert search(monkeypatch, *arguments) == 0  # the only locale need not be named
    said = capsys.readouterr().out
    assert "judged, query_id" in said
    assert said.splitlines()[2].split() == list(FIRST_SYSTEMS)
    assert max(map(len, said.splitlines())) <= 100
    assert "\x1b" not in said


def test_a_pipe_gets_a_line_per_product_with_its_id_and_whole_title(
    monkeypatch: Patch, capsys: Capture
) -> None:
    engine = open_engine("es")
    monkeypatch.setenv("COLUMNS", "30")
    texts = [*list(engine.judged.rows)[:2], "zapatillas"]
    given = "\n".join(texts).encode()
    assert search(monkeypatch, "--file", "-", "-k", "4", stdin=given) == 0
    lines = iter(capsys.readouterr().out.splitlines())
    for text in texts:
        for system, hits in engine.search(Question(text, k=4)).systems.items():
            for hit in hits:
                about = hit.product
                assert next(lines).split("\t") == [
                    text, system, str(hit.rank), f"{hit.score:.6f}", hit.label or "",
                    about.product_id, about.brand, about.color, about.title,
                ]  # fmt: skip
    assert list(lines) == []


def test_queries_come_from_a_file_one_line_of_json_each(
    monkeypatch: Patch, capsys: Capture
) -> None:
    Path("queries.txt").write_text("zapatillas\r\n\nsartén 28 cm\n", encoding="utf-8-sig")
    assert search(monkeypatch, "--file", "queries.txt", "--json", "--system", "bm25") == 0
    first = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["query"] for one in first] == ["zapatillas", "sartén 28 cm"]
    assert list(first[0]["systems"]) == ["bm25"]


def test_a_reader_that_has_enough_is_no_error(monkeypatch: Patch, capsys: Capture) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as nobody:
        monkeypatch.setattr(sys, "stdout", nobody)
        assert search(monkeypatch, "zapatillas", "--system", "bm25") == stage.READER_GONE
        monkeypatch.undo()
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_searched_for_is_named_and_the_others_are(
    monkeypatch: Patch, capsys: Capture
) -> None:
    given = b"zapatillas\n\n<p></p>\nbolso \xff\nmochila\x0bazul\n"
    assert search(monkeypatch, "--file", "-", "--json", stdin=given) == 1
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 2
    errors = said.err.splitlines()
    assert errors[0].startswith("line 3: query: must have text")
    assert errors[1].startswith("line 4: query: must be Unicode")
    assert errors[2] == "error in search: --file -: 2 of 4 lines could not be searched for."


def test_a_file_and_standard_input_have_the_same_lines(monkeypatch: Patch, capsys: Capture) -> None:
    given = "\nmochila\x0bazul\u2028roja\n  \n<p></p>\n".encode()
    Path("queries.txt").write_bytes(given)
    said = []
    for name in ("-", "queries.txt"):
        assert search(monkeypatch, "--file", name, "--json", stdin=given) == 1
        found = capsys.readouterr()
        said.append((found.out, found.err.splitlines()[0]))
    assert said[0] == said[1]
    assert said[0][1].startswith("line 4: query: must have text")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "query: must be given once, as an argument or by --file (found none)"),
        (["a", "--file", "-"], "(found both)"),
        ([""], "query: must have text"),
        (["a", "--locale", "xx"], "--locale xx: unknown locale; params.yaml has es"),
        (["a", "-k", "0"], "k: must be from 1 to 1000, which is retrieve.depth (found 0)"),
        (
            ["a", "--system", "bm52"],
            "system: must be one of dense, bm25, hybrid, rerank (found 'bm52'",
        ),
        (["a", "--brand", "Nobody"], "brand: no es product has 'Nobody'"),
        (["a", "--brand", "\udcff"], "brand: must be Unicode"),
        (["a", "--collapse"], "groups.json is missing. Add es to explore in params.yaml. Run"),
        (["--file", "missing.txt"], "missing.txt is missing. Name a file"),
        (["--file", "."], ". is not a regular file"),
        (["--file", "-"], "--file -: has no query. Write one on each line."),
    ],
)
def test_bad_input_is_one_message(
    monkeypatch: Patch, capsys: Capture, arguments: list[str], said: str
) -> None:
    assert search(monkeypatch, *arguments) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error in search: ")
    assert said in lines[0]


def test_a_closed_standard_input_has_no_queries(monkeypatch: Patch, capsys: Capture) -> None:
    monkeypatch.setattr(sys, "argv", ["search", "--file", "-"])
    monkeypatch.setattr(sys, "stdin", None)
    assert command.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error in search: --file -: standard input is closed.")


def test_json_is_json_whatever_text_the_output_can_hold(monkeypatch: Patch) -> None:
    said = []
    for encoding in ("utf-8", "ascii"):
        written = io.BytesIO()
        with io.TextIOWrapper(written, encoding=encoding) as out, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert search(patch, "sartén \N{GRINNING FACE}", "--json", "--system", "bm25") == 0
            said.append(json.loads(written.getvalue()))
    assert said[0] == said[1]


def test_a_missing_index_is_one_line_with_the_command(monkeypatch: Patch, capsys: Capture) -> None:
    moved = layout.index("es").folder.rename("moved")
    assert search(monkeypatch, "zapatillas") == 1
    moved.rename(layout.index("es").folder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("index.json is missing. Run `dvc repro index@es`.")
