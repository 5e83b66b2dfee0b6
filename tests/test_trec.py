import contextlib
import io
import itertools
import json
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import trec
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.core.tables import JUDGEMENTS, PRODUCTS, RUN, read_table, write_table
from pipeline.evaluate.metrics import GAINS, GRADES
from pipeline.evaluate.stage import evaluate
from tests.helpers.artefacts import params, write_clean, write_runs, write_sources


@pytest.fixture
def made(project: Path) -> None:
    """Clean tables and the runs of all systems, many scores tied, in a folder of their own."""
    rng = np.random.default_rng(0)
    write_clean(rng, 200, 40)
    write_runs(rng, params().retrieve.depth)


def trec_main(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["trec", *arguments])
    return trec.main()


SCRIPT = re.search(r"\n\n    (import csv, pathlib, ir_measures\n(?:    .*\n)+)", trec.__doc__ or "")


def run_documented_script(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[tuple[str, str], float]:
    """Return what the script of the help prints, by system and measure."""
    assert SCRIPT is not None
    script = textwrap.dedent(SCRIPT[1].join(("    ", "")))
    assert len(script.splitlines()) == 5
    printed = io.StringIO()
    with monkeypatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.chdir(folder)
        exec(script, {})  # noqa: S102
    lines = [line.split() for line in printed.getvalue().splitlines()]
    return {(system, measure): float(value) for system, measure, value in lines}


@pytest.mark.slow
def test_the_documented_script_gives_the_reported_numbers_of_every_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some queries have no E, some no gain, some find nothing, some products have no text."""
    monkeypatch.chdir(tmp_path)
    cutoffs = {"evaluate.recall": [10, 50, 100], "retrieve.depth": 120}
    headline = params(cutoffs).evaluate.headline()
    rng = np.random.default_rng(0)
    judgements = write_clean(rng, 250, 80)
    labels = rng.choice(["E", "S", "C", "I"], len(judgements), p=[0.1, 0.2, 0.2, 0.5])
    few = judgements.set_column(2, "label", [labels.tolist()])
    without = pa.table(
        [few["query_id"].unique().slice(0, 9), ["ZZZ"] * 9, ["E"] * 9], schema=JUDGEMENTS
    )
    more = pa.concat_tables([few.cast(JUDGEMENTS), without])
    order = [("query_id", "ascending"), ("product_id", "ascending")]
    write_table(layout.clean("es").judgements, more.sort_by(order), JUDGEMENTS)
    write_sources({})
    write_runs(rng, 120)
    evaluate(params(cutoffs), "es")
    trec.export(params(cutoffs), "es", Path("trec"))

    found = run_documented_script(Path("trec"), monkeypatch)

    reported = json.loads(layout.metrics("es").read_text())
    assert reported["queries_without_e"] > reported["queries_without_gain"] > 0
    assert {key for key in found if key[1] in headline} == {
        (system, name) for system in FIRST_SYSTEMS for name in headline
    }
    assert len(found) == 3 * 17
    for (system, name), value in found.items():
        # Either side rounds to 5 digits.
        assert value == pytest.approx(reported[system][name], abs=1.01e-5), (system, name)


def test_exported_scores_are_ours_and_fall_from_rank_to_rank_where_ours_tie(made: None) -> None:
    table = read_table(layout.runs("dense", "es").catalogue, RUN, "")
    assert len(np.unique(table["score"])) < len(table) / 10

    lines = [line.split() for line in trec.run_lines(table, "dense")]

    assert [line[2] for line in lines] == table["product_id"].to_pylist()
    assert {line[1] for line in lines} == {"Q0"}
    assert {line[5] for line in lines} == {"dense"}
    for line, score in zip(lines, table["score"].to_pylist(), strict=True):
        assert float(line[4]) == pytest.approx(score, rel=2e-5, abs=1e-40)
    for before, after in itertools.pairwise(lines):
        if before[0] == after[0]:
            assert int(after[3]) == int(before[3]) + 1
            assert np.float32(after[4]) < np.float32(before[4])


def test_scores_that_fall_stay_as_they_are_and_others_are_lowered_by_the_least_step() -> None:
    ranks = np.array([1, 2, 3, 1, 2, 3, 4, 5, 1], dtype=np.int32)
    given = np.array([3, 2, -1, 0, 0, -0.0, -1, -1, 9], dtype=np.float32)
    least = float(np.nextafter(np.float32(0), np.float32(1)))
    below = float(np.nextafter(np.float32(-1), np.float32(-2)))
    found = trec.falling(ranks, given).tolist()
    assert found == [3, 2, -1, 0, -least, -2 * least, -1, below, 9]


def test_the_grades_are_the_gains_times_a_hundred() -> None:
    assert {label: gain * 100 for label, gain in GAINS.items()} == GRADES
    assert GRADES == {"E": 100, "S": 10, "C": 1, "I": 0}


def test_the_lines_are_those_of_the_trec_formats() -> None:
    judgements = pa.table(
        [[1, 1, 2, 2], ["B0a", "é", "B0a", "x"], ["E", "S", "C", "I"]], schema=JUDGEMENTS
    )
    run = pa.table(
        [[1, 1, 2], ["é", "B0a", "x"], [0.5, 0.5, 0.25], [1, 2, 1], [2, 0, 1]], schema=RUN
    )

    assert list(trec.qrels_lines(judgements, GRADES)) == [
        "1 0 B0a 100", "1 0 é 10", "2 0 B0a 1", "2 0 x 0",
    ]  # fmt: skip
    assert list(trec.run_lines(run, "dense")) == [
        "1 Q0 é 1 0.5 dense",
        "1 Q0 B0a 2 0.49999997 dense",
        "2 Q0 x 1 0.25 dense",
    ]


def test_an_empty_run_has_no_lines() -> None:
    assert list(trec.run_lines(RUN.empty_table(), "dense")) == []


@pytest.mark.parametrize("bad", ["", "B 0", "B0\t", "B\u30000", "B\u00a00", "B\u0085", "B\x1c0"])
def test_an_id_that_a_tool_would_split_is_refused(bad: str) -> None:
    judgements = pa.table([[1, 1], ["fine", bad], ["E", "S"]], schema=JUDGEMENTS)
    run = pa.table([[1, 1], ["fine", bad], [0.5, 0.25], [1, 2], [1, 0]], schema=RUN)

    with pytest.raises(PipelineError, match="empty or holds white space"):
        list(trec.qrels_lines(judgements, GRADES))
    with pytest.raises(PipelineError, match="empty or holds white space"):
        list(trec.run_lines(run, "dense"))


def test_an_unknown_label_is_refused() -> None:
    judgements = pa.table([[1, 1], ["a", "b"], ["E", "X"]], schema=JUDGEMENTS)

    with pytest.raises(
        PipelineError, match=r"column label: expected one of E, S, C, I .found 'X'."
    ):
        list(trec.qrels_lines(judgements, GRADES))


def test_a_second_export_to_the_same_folder_replaces_the_first(
    made: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("trec").mkdir()
    Path("trec/es.gain.qrels").write_text("old")
    for _ in range(2):
        assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 0
    assert "old" not in Path("trec/es.gain.qrels").read_text()


def test_a_missing_run_is_one_message_and_nothing_is_written(
    made: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout.runs("hybrid", "es").pool.unlink()

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    assert capsys.readouterr().err == (
        "error in trec: data/runs/hybrid/es/pool.parquet is missing. Run `dvc repro hybrid@es`.\n"
    )
    assert not Path("trec").exists()


def test_a_run_that_was_edited_or_is_of_other_tables_is_refused_and_nothing_is_written(
    made: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = layout.runs("dense", "es").catalogue
    write_table(path, read_table(path, RUN, "").slice(1), RUN)

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    said = capsys.readouterr().err
    assert "data/runs/dense/es/catalogue.parquet: sha256 must be" in said
    assert "Run `dvc repro retrieve@es`" in said
    assert not Path("trec").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"retrieve.depth": 1_500},
        {"bm25.k1": 2.0},
        {"hybrid.dense_weight": 0.3},
        {"encoder.es": "labse"},
    ],
)
def test_runs_of_other_settings_are_refused_and_nothing_is_written(
    made: None, changes: dict[str, object]
) -> None:
    with pytest.raises(PipelineError, match="dvc repro"):
        trec.export(params(changes), "es", Path("trec"))
    assert not Path("trec").exists()


def test_an_id_of_a_run_that_a_tool_would_split_is_refused_and_leaves_the_export_before(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    write_clean(rng, 200, 40)
    products = layout.clean("es").products
    table = read_table(products, PRODUCTS, "")
    ids = table["product_id"].to_pylist()
    ids[100] += " x"
    write_table(products, table.set_column(0, PRODUCTS.field(0), [ids]), PRODUCTS)
    write_runs(rng, params().retrieve.depth)
    Path("trec").mkdir()
    Path("trec/es.gain.qrels").write_text("old")

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    assert f"product_id {ids[100]!r} is empty or holds white space" in capsys.readouterr().err
    assert [path.name for path in Path("trec").iterdir()] == ["es.gain.qrels"]
    assert Path("trec/es.gain.qrels").read_text() == "old"


def test_an_export_of_which_a_file_cannot_be_placed_leaves_the_export_before(
    made: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 0
    last = max(Path("trec").iterdir())
    last.unlink()
    last.mkdir()
    others = [path for path in Path("trec").iterdir() if path != last]
    for path in others:
        path.write_text("old")
    capsys.readouterr()

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    assert capsys.readouterr().err == f"error in trec: {last} is a folder. Name a file.\n"
    assert {*Path("trec").iterdir()} == {*others, last}
    assert {path.read_text() for path in others} == {"old"}


def test_an_unknown_locale_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trec_main(monkeypatch, "--locale", "fr", "--out", "trec") == 1

    assert "--locale fr: unknown locale" in capsys.readouterr().err


def test_lines_are_written_in_utf_8(tmp_path: Path) -> None:
    trec.write_lines(tmp_path / "a", ["1 0 商😀é 100"])
    assert (tmp_path / "a").read_bytes() == "1 0 商😀é 100\n".encode()
