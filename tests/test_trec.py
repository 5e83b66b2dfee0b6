import contextlib
import io
import itertools
import json
import re
import shutil
import sys
import textwrap
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pytest

from pipeline import trec
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.params import Evaluate
from pipeline.core.systems import FIRST_SYSTEMS
from pipeline.core.tables import JUDGEMENTS, LABELS, PRODUCTS, QUERIES, RUN, write_table
from pipeline.evaluate.judged_run import Judgements, judge
from pipeline.evaluate.metrics import GAINS, catalogue_measures, pool_measures
from pipeline.evaluate.stage import evaluate
from pipeline.runs import card as run_card
from pipeline.runs.ranking import Ranked, rank_pairs
from tests.helpers.artefacts import params, write_clean, write_runs, write_sources

PARAMS = Path(__file__).parent.parent / "params.yaml"
CUTOFFS = Evaluate(
    ndcg=(10,),
    recall=(10, 50),
    judged=(10,),
    mrr=10,
    precision=10,
    map=100,
    capped_recall=10,
    ndcg_judged_only=10,
)


class Artefacts:
    """Clean judgements and each system's runs of random products with tied scores, on disk."""

    def __init__(self, locale: str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.ranked: dict[tuple[str, str], Ranked] = {}
        self.query_ids = np.sort(rng.choice(10**6, size=40, replace=False))
        alphabet = [*"ABab019_é", "商", "😀"]
        drawn = {"".join(rng.choice(alphabet, rng.integers(2, 6))) for _ in range(300)}
        self.product_ids = np.array(sorted(drawn), dtype=object)
        judged = [
            (row, code)
            for row in range(len(self.query_ids))
            for code in np.sort(rng.permutation(len(self.product_ids))[: rng.integers(1, 40)])
        ]
        rows, codes = np.array(judged).T
        labels = rng.integers(0, 4, size=len(rows))
        self.judgements = Judgements.from_pairs(rows, codes, labels, len(self.query_ids))
        self.pool = rank_pairs(rows, codes, rng.integers(0, 5, size=len(rows)) / 10)
        searched = np.repeat(np.arange(0, len(self.query_ids), 2), 120)  # half find nothing
        found = np.concatenate(
            [rng.permutation(len(self.product_ids))[:120] for _ in range(len(searched) // 120)]
        )
        self.catalogue = rank_pairs(searched, found, rng.integers(0, 9, size=len(found)) / 10)

        table = pa.table(
            [
                pa.array(self.query_ids[rows]),
                pa.array(self.product_ids[codes]),
                pa.array([LABELS[label] for label in labels]),
            ],
            schema=JUDGEMENTS,
        )
        clean = layout.clean(locale).folder
        write_table(clean / "judgements.parquet", table, JUDGEMENTS)
        queries, products = (list(map(str, ids)) for ids in (self.query_ids, self.product_ids))
        named = {"query_id": self.query_ids, "text": queries}
        write_table(clean / "queries.parquet", pa.table(named), QUERIES)
        of_products = {
            "product_id": products, "text": products,
            "field_ends": [[len(one)] for one in products],
        }  # fmt: skip
        write_table(clean / "products.parquet", pa.table(of_products, PRODUCTS), PRODUCTS)
        for system in FIRST_SYSTEMS:
            # Each ranks another way: the scores of one, in another order.
            for track, ranked in (("catalogue", self.catalogue), ("pool", self.pool)):
                rows, codes, scores = ranked
                other = rank_pairs(rows, codes, rng.permutation(scores))
                self.ranked[system, track] = other
                path = layout.runs(system, locale).folder / f"{track}.parquet"
                write_table(path, self.run_table(other), RUN)
            folder = layout.runs(system, locale).folder
            ids = (pa.chunked_array([self.query_ids]), pa.chunked_array([products]))
            card = run_card.make_card(layout.RunFiles(folder), system, {}, 120, *ids)
            write_json(folder / "run.json", card.model_dump(mode="json"))

    def run_table(self, ranked: tuple[np.ndarray, np.ndarray, np.ndarray]) -> pa.Table:
        rows, codes, scores = ranked
        ranks = np.arange(len(rows)) - np.searchsorted(rows, rows) + 1
        return pa.table(
            [
                pa.array(self.query_ids[rows]),
                pa.array(self.product_ids[codes]),
                pa.array(scores.astype(np.float32)),
                pa.array(ranks.astype(np.int32)),
                pa.array(codes.astype(np.int32)),
            ],
            schema=RUN,
        )


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PARAMS, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
    cutoffs = {"evaluate.recall": [10, 50, 100]}
    headline = params(cutoffs).evaluate.headline()
    for seed in range(2):
        rng = np.random.default_rng(seed)
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
        trec.export("es", FIRST_SYSTEMS, Path("trec"), params(cutoffs).evaluate)

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


@pytest.mark.parametrize("seed", range(2))
def test_exported_files_give_ir_measures_our_numbers(
    project: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    artefacts = Artefacts("es", seed)

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 0

    for (system, track), ranked in artefacts.ranked.items():
        run = judge(ranked[0], ranked[1], artefacts.judgements)
        ours = catalogue_measures(run, CUTOFFS) if track == "catalogue" else pool_measures(run)
        exported = list(ir_measures.read_trec_run(f"trec/es.{system}.{track}.run"))
        for name, theirs, of_track, qrels in trec.measures(CUTOFFS):
            if of_track != track:
                continue
            judged = list(ir_measures.read_trec_qrels(f"trec/es.{qrels.name}.qrels"))
            measure = ir_measures.parse_measure(theirs)
            values = {
                int(each.query_id): each.value
                for each in ir_measures.iter_calc([measure], judged, exported)
            }
            expected = dict(zip(artefacts.query_ids.tolist(), ours[name], strict=True))
            assert values.keys() == {key for key, value in expected.items() if value == value}
            for query, value in values.items():
                assert value == pytest.approx(expected[query], abs=1e-9), (system, name)


def test_exported_scores_are_ours_and_fall_from_rank_to_rank_where_ours_tie(project: Path) -> None:
    artefacts = Artefacts("es", seed=0)
    table = artefacts.run_table(artefacts.catalogue)
    assert len(np.unique(table["score"])) < 10

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
    assert {label: gain * 100 for label, gain in GAINS.items()} == trec.GRADES


def test_the_lines_are_those_of_the_trec_formats() -> None:
    judgements = pa.table(
        [[1, 1, 2, 2], ["B0a", "é", "B0a", "x"], ["E", "S", "C", "I"]], schema=JUDGEMENTS
    )
    run = pa.table(
        [[1, 1, 2], ["é", "B0a", "x"], [0.5, 0.5, 0.25], [1, 2, 1], [2, 0, 1]], schema=RUN
    )

    assert list(trec.qrels_lines(judgements)) == ["1 0 B0a 100", "1 0 é 10", "2 0 B0a 1", "2 0 x 0"]
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
        list(trec.qrels_lines(judgements))
    with pytest.raises(PipelineError, match="empty or holds white space"):
        list(trec.run_lines(run, "dense"))


def test_an_unknown_label_is_refused() -> None:
    judgements = pa.table([[1, 1], ["a", "b"], ["E", "X"]], schema=JUDGEMENTS)

    with pytest.raises(
        PipelineError, match=r"column label: expected one of E, S, C, I .found 'X'."
    ):
        list(trec.qrels_lines(judgements))


def test_a_second_export_to_the_same_folder_replaces_the_first(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Artefacts("es", seed=0)
    Path("trec").mkdir()
    Path("trec/es.gain.qrels").write_text("old")
    for _ in range(2):
        assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 0
    assert "old" not in Path("trec/es.gain.qrels").read_text()


def test_a_missing_run_is_one_message_and_nothing_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Artefacts("es", seed=0)
    layout.runs("hybrid", "es").pool.unlink()

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    assert capsys.readouterr().err == (
        "error in trec: data/runs/hybrid/es/pool.parquet is missing. Run `dvc repro hybrid@es`.\n"
    )
    assert not Path("trec").exists()


def test_a_run_that_was_edited_or_is_of_other_tables_is_refused_and_nothing_is_written(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Artefacts("es", seed=0)
    path = layout.runs("dense", "es").catalogue
    write_table(path, made.run_table(made.ranked["dense", "catalogue"]).slice(1), RUN)

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 1

    said = capsys.readouterr().err
    assert "data/runs/dense/es/run.json: catalogue_sha256 must be" in said
    assert "Run `dvc repro retrieve@es`" in said
    assert not Path("trec").exists()


def test_an_unknown_locale_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trec_main(monkeypatch, "--locale", "fr", "--out", "trec") == 1

    assert "--locale fr: unknown locale" in capsys.readouterr().err
