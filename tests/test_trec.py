import itertools
import shutil
import sys
from pathlib import Path

import ir_measures
import numpy as np
import pyarrow as pa
import pytest
from ir_measures import AP, RR, Judged, P, R, nDCG

from pipeline import trec
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.params import SYSTEMS, Evaluate
from pipeline.core.tables import JUDGEMENTS, LABELS, PRODUCTS, QUERIES, RUN, write_table
from pipeline.evaluate.judging import Judgements, judge
from pipeline.evaluate.metrics import GAINS, catalogue_measures, pool_measures
from pipeline.runs import card as run_card
from pipeline.runs.ranking import Ranked, rank_pairs

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
CATALOGUE_MEASURES = {
    "ndcg@10": nDCG @ 10,
    "ndcg_judged_only@10": nDCG(judged_only=True) @ 10,
    "mrr@10": RR(rel=100) @ 10,
    "recall@10": R(rel=100) @ 10,
    "recall@50": R(rel=100) @ 50,
    "recall_e_or_s@50": R(rel=10) @ 50,
    "precision@10": P(rel=100) @ 10,
    "map@100": AP(rel=100) @ 100,
    "judged@10": Judged @ 10,
}
POOL_MEASURES = {"pool_ndcg": nDCG, "pool_ndcg@10": nDCG @ 10, "pool_mrr": RR(rel=100)}


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
        for system in SYSTEMS:
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


@pytest.mark.parametrize("seed", range(2))
def test_exported_files_give_ir_measures_our_numbers(
    project: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    artefacts = Artefacts("es", seed)

    assert trec_main(monkeypatch, "--locale", "es", "--out", "trec") == 0

    qrels = list(ir_measures.read_trec_qrels("trec/es.qrels"))
    assert len(qrels) == len(artefacts.judgements.codes)
    for (system, track), ranked in artefacts.ranked.items():
        measures = CATALOGUE_MEASURES if track == "catalogue" else POOL_MEASURES
        run = judge(ranked[0], ranked[1], artefacts.judgements)
        ours = catalogue_measures(run, CUTOFFS) if track == "catalogue" else pool_measures(run)
        exported = list(ir_measures.read_trec_run(f"trec/es.{system}.{track}.run"))
        theirs = {name: dict.fromkeys(map(str, artefacts.query_ids), 0.0) for name in measures}
        for name, measure in measures.items():
            for value in ir_measures.iter_calc([measure], qrels, exported):
                theirs[name][value.query_id] = value.value
            np.testing.assert_allclose(
                np.nan_to_num(ours[name], nan=0.0),
                list(theirs[name].values()),
                rtol=0,
                atol=1e-9,
                err_msg=f"{system} {name}",
            )


def test_exported_scores_fall_from_rank_to_rank_where_ours_tie(project: Path) -> None:
    artefacts = Artefacts("es", seed=0)
    table = artefacts.run_table(artefacts.catalogue)
    assert len(np.unique(table["score"])) < 10

    lines = [line.split() for line in trec.run_lines(table, "dense")]

    assert [line[2] for line in lines] == table["product_id"].to_pylist()
    assert {line[1] for line in lines} == {"Q0"}
    assert {line[5] for line in lines} == {"dense"}
    for before, after in itertools.pairwise(lines):
        if before[0] == after[0]:
            assert int(after[3]) == int(before[3]) + 1
            assert float(after[4]) < float(before[4])


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
        "1 Q0 é 1 -1 dense",
        "1 Q0 B0a 2 -2 dense",
        "2 Q0 x 1 -1 dense",
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

    with pytest.raises(PipelineError, match="column label holds 'X'"):
        list(trec.qrels_lines(judgements))


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

    told = capsys.readouterr().err
    assert "data/runs/dense/es/run.json: catalogue_sha256 must be" in told
    assert "Run `dvc repro retrieve@es`" in told
    assert not Path("trec").exists()


def test_an_unknown_locale_is_refused(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trec_main(monkeypatch, "--locale", "fr", "--out", "trec") == 1

    assert "--locale fr: unknown locale" in capsys.readouterr().err
