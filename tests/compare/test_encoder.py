"""The measures of an encoder by itself are compared where `compare.metrics` names them."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from pipeline.compare.command import compare
from pipeline.compare.revision import Revision
from pipeline.core import layout
from pipeline.core.arrays import Floats
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params
from pipeline.encoder_scores import form
from pipeline.encoder_scores.measures import measure
from pipeline.evaluate.judged_run import Judgements, judge
from pipeline.runs.ranking import rank_pairs
from tests.helpers import comparisons
from tests.helpers.artefacts import ROOT, params

QUERIES, EACH = 120, 8


VECTORS = {"product_vectors_sha256": "4" * 64, "query_vectors_sha256": "5" * 64}
"""The hashes of the vectors that the encoder's measures are of."""


def write_side(
    folder: Path, noise: float, systems_of: Mapping[str, str] | None = VECTORS, **sample: str
) -> Floats:
    """Write a revision's files of es; return the scores: what labels say, and noise.

    Args:
        folder: where to.
        noise: how much of it is in the scores.
        systems_of: the vectors that the systems' measures are of; None: they are older.
        sample: what is otherwise in the sample of the encoder's measures.
    """
    encoder = "e5-small-q4"
    rng = np.random.default_rng(7)
    query = np.repeat(np.arange(QUERIES), EACH)
    labels = rng.integers(0, 4, len(query))
    scores = -labels + rng.normal(0, noise, len(query))
    of = Judgements.from_pairs(query, np.arange(len(query)), labels, QUERIES)
    ranked = rank_pairs(query, np.arange(len(query)), scores)
    measured = measure(judge(ranked[0], ranked[1], of), ranked[2])

    values = comparisons.measures(np.random.default_rng(1), QUERIES)
    rows = comparisons.table(values, "es", encoder, vectors=systems_of)
    comparisons.write_reports(folder, "es", rows)
    of_sample = comparisons.card(rows).sample.model_dump(exclude={"depth"}) | sample
    path = folder / layout.encoder_values("es")
    path.parent.mkdir(parents=True)
    form.write_table(
        path,
        form.table(rows["query_id"], measured, ["EI"] * QUERIES),
        form.ValuesCard(
            encoder_scores_schema=form.ENCODER_SCORES_SCHEMA,
            sample=form.JudgedSample(**of_sample),
            encoder=encoder,
            weights_sha256="3" * 64,
            **VECTORS,
            similarity="cosine",
            contents_sha256="",
        ),
    )
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return scores


def given(*metrics: str) -> Params:
    one = {
        "encoder": "e5-small-q4",
        "index": "flat",
        "language": "es",
        "rerank": "none",
        "spelling": "typed",
        "systems": {},
    }
    only_es = {section: {"es": name} for section, name in one.items()}
    return params({**only_es, "compare.metrics": list(metrics), "uncertainty.samples": 1000})


def test_an_encoder_that_scores_worse_is_worse_in_every_measure(tmp_path: Path) -> None:
    for name, noise in (("a", 0.6), ("b", 1.2)):
        write_side(tmp_path / name, noise)
    a, b = (Revision(name, tmp_path / name) for name in ("a", "b"))
    names = ("ap_e_vs_i", "f1_e_vs_sci", "spearman", "query_spearman", "map")
    metrics = [f"encoder.{name}" for name in names]
    report = compare(given("dense.ndcg@10", *metrics), a, b, 2)
    same, *moves = report.found.moves
    assert same.equal
    for move in moves:
        assert move.refused, move.metric
        assert move.a > move.b
        assert move.losses[0].labels_a == "EI"
        assert move.holes is None
    back = compare(given(*metrics), b, a, 2)
    assert all(move.significant and not move.refused for move in back.found.moves)


def test_a_pooled_measure_moves_by_the_difference_of_the_measures_themselves(
    tmp_path: Path,
) -> None:
    means = []
    for name, noise in (("a", 0.6), ("b", 0.9)):
        write_side(tmp_path / name, noise)
        table, _ = form.read_table(
            (tmp_path / name / layout.encoder_values("es")).read_bytes(), name, "es", ""
        )
        means.append(table["encoder.spearman"].to_numpy().astype(np.float64).mean())
    a, b = (Revision(name, tmp_path / name) for name in ("a", "b"))
    (move,) = compare(given("encoder.spearman"), a, b, 2).found.moves
    assert move.difference.mean == pytest.approx(means[1] - means[0], abs=1e-5)
    assert move.won + move.lost + move.tied == QUERIES


def test_a_revision_without_the_encoders_measures_is_compared_in_the_others(
    tmp_path: Path,
) -> None:
    for name in ("a", "b"):
        write_side(tmp_path / name, 0.6)
    (tmp_path / "a" / layout.encoder_values("es")).unlink()
    a, b = (Revision(name, tmp_path / name) for name in ("a", "b"))
    found = compare(given("dense.ndcg@10", "encoder.map"), a, b, 2).found
    assert [move.metric for move in found.moves] == ["dense.ndcg@10"]
    assert "es of a has no encoder.map: not compared" in found.notes
    with pytest.raises(PipelineError, match=r"es of a has no 'encoder\.map'"):
        compare(given("dense.ndcg@10", "encoder.map"), b, a, 2)


def test_values_of_another_sample_than_the_systems_are_refused(tmp_path: Path) -> None:
    write_side(tmp_path / "a", 0.6, judgements_sha256="d" * 64)
    a = Revision("a", tmp_path / "a")
    with pytest.raises(PipelineError, match=r"es\.parquet of a: judgements_sha256 must be ccc"):
        a.sides(["es"])


def test_values_of_other_vectors_than_the_systems_are_refused(tmp_path: Path) -> None:
    again = {"query_vectors_sha256": "6" * 64}  # of a model that was trained again under its name
    write_side(tmp_path / "a", 0.6, VECTORS | again)
    a = Revision("a", tmp_path / "a")
    with pytest.raises(PipelineError, match=r"es\.parquet of a: query_vectors_sha256 must be 6666"):
        a.sides(["es"])


def test_a_table_of_the_systems_from_before_it_named_its_vectors_is_compared(
    tmp_path: Path,
) -> None:
    for name, systems_of in (("a", None), ("b", VECTORS)):
        write_side(tmp_path / name, 0.6, systems_of)
    a, b = (Revision(name, tmp_path / name) for name in ("a", "b"))
    (move,) = compare(given("encoder.map"), a, b, 2).found.moves
    assert move.equal
