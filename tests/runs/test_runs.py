"""Runs are read back as they were written, in step, or refused with a reason."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from pipeline.core import files, layout, tables
from pipeline.core.errors import PipelineError
from pipeline.runs import card as run_card
from pipeline.runs import files as run_files
from pipeline.runs.inputs import Inputs, read_inputs, read_judgements
from tests.helpers.artefacts import LOCALE, write_clean
from tests.helpers.run_files import random_run, rewrite_run, write_given_runs

QUERIES, PRODUCTS = 30, 50


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Inputs:
    """Clean tables in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    write_clean(np.random.default_rng(2), PRODUCTS, QUERIES)
    return read_inputs(LOCALE)


def _path(track: str = "catalogue") -> Path:
    return layout.runs("dense", LOCALE).folder / f"{track}.parquet"


@pytest.mark.parametrize("written_a_group", [1, 4, 30])
@pytest.mark.parametrize("read_a_piece", [1, 7, 30, 99])
def test_a_run_is_read_in_pieces_of_whole_queries_however_it_was_written(
    inputs: Inputs, written_a_group: int, read_a_piece: int
) -> None:
    run = random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12)
    write_given_runs("dense", inputs, run, queries_a_group=written_a_group)
    pieces = list(run_files.iter_run(_path(), inputs, read_a_piece, "do"))
    covered = [row for rows, _ in pieces for row in rows]
    assert covered == list(range(QUERIES))
    assert max(len(rows) for rows, _ in pieces) == min(read_a_piece, QUERIES)
    for rows, (found, _, _) in pieces:
        assert set(found.tolist()) <= set(rows)
    for column, expected in zip(
        zip(*(piece for _, piece in pieces), strict=True), run, strict=True
    ):
        np.testing.assert_allclose(np.concatenate(column), expected, rtol=1e-7)


def test_a_run_holds_the_id_of_each_row_that_it_names(inputs: Inputs) -> None:
    run = random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12)
    write_given_runs("dense", inputs, run)
    table = tables.read_table(_path(), tables.RUN, "")
    assert table["product_id"].to_pylist() == inputs.products.take(table["product_row"]).to_pylist()
    assert table["product_row"].to_pylist() == run[1].tolist()


def test_an_empty_run_has_nothing_for_every_query(inputs: Inputs) -> None:
    nothing = np.empty(0, np.int64)
    write_given_runs("dense", inputs, (nothing, nothing, np.empty(0)))
    pieces = list(run_files.iter_run(_path(), inputs, 8, "do"))
    assert [rows for rows, _ in pieces] == [range(8), range(8, 16), range(16, 24), range(24, 30)]
    assert not any(len(found[0]) for _, found in pieces)


def _shuffled(run: pd.DataFrame) -> pd.DataFrame:
    return run.sample(frac=1, random_state=0)


def _ranks_exchanged(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(rank=run["rank"].where(run.index > 1, 3 - run["rank"]))


def _of_nowhere(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(product_row=run["product_row"].where(run.index != 5, PRODUCTS))


def _before_all(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(product_row=run["product_row"].where(run.index != 5, -1))


def _of_another_query(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(query_id=run["query_id"].where(run.index != 5, -1))


def _twice(run: pd.DataFrame) -> pd.DataFrame:
    first = run["product_row"].iloc[0]
    return run.assign(product_row=run["product_row"].where(run.index != 1, first))


def _nan(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(score=run["score"].where(run.index != 3, np.nan))


def _rising(run: pd.DataFrame) -> pd.DataFrame:
    return run.assign(score=run["score"].where(run.index != 1, 99))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_shuffled, "not sorted by query_id"),
        (_ranks_exchanged, "not sorted by rank"),
        (_of_nowhere, "product_row 50 is not among the 50 clean products"),
        (_before_all, "product_row -1 is not among the 50 clean products"),
        (_of_another_query, "-1 is not in the clean tables"),
        (_twice, "the product is repeated"),
        (_nan, "the score must be a finite number"),
        (_rising, "the score is higher than that of the rank before"),
    ],
)
def test_a_run_that_cannot_be_right_is_refused_with_its_file_and_the_way_out(
    inputs: Inputs, change: Callable[[pd.DataFrame], pd.DataFrame], told: str
) -> None:
    run = random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12, least=6)
    write_given_runs("dense", inputs, run, queries_a_group=QUERIES)
    rewrite_run(_path(), change)
    with pytest.raises(PipelineError, match=rf"{_path()}.*{told}.*. run it again"):
        list(run_files.iter_run(_path(), inputs, 8, "run it again"))


def test_row_groups_out_of_order_are_refused(inputs: Inputs) -> None:
    rows, codes, scores = random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=9, least=1)
    for first, second in ((rows >= 15, rows < 15), (rows < 15, rows <= 14)):
        with run_files.write_runs(LOCALE, "dense", {}, 9, inputs) as (catalogue, _):
            catalogue.add(rows[first], codes[first], scores[first])
            catalogue.add(rows[second], codes[second], scores[second])
        with pytest.raises(PipelineError, match="not sorted by query_id"):
            list(run_files.iter_run(_path(), inputs, 8, "do"))


def test_inputs_are_the_judged_pairs_that_can_be_ranked(inputs: Inputs) -> None:
    path = layout.clean(LOCALE).judgements
    judgements = tables.read_table(path, tables.JUDGEMENTS, "")
    assert len(inputs.pair_queries) == len(judgements)
    added = judgements.slice(len(judgements) - 1).to_pylist()[0] | {"product_id": "ZZZ"}
    more = pa.concat_tables([judgements, pa.Table.from_pylist([added], judgements.schema)])
    tables.write_table(path, more, tables.JUDGEMENTS)
    assert len(read_inputs(LOCALE).pair_queries) == len(judgements)
    tables.write_table(path, more.take(list(range(len(more)))[::-1]), tables.JUDGEMENTS)
    with pytest.raises(PipelineError, match="not sorted by query_id"):
        read_inputs(LOCALE)


def test_judgements_are_rows_of_the_ids_and_products_without_text_are_beyond_all(
    inputs: Inputs,
) -> None:
    path = layout.clean(LOCALE).judgements
    table = tables.read_table(path, tables.JUDGEMENTS, "")
    told = table.to_pylist()
    for at, product in ((3, "ZZ"), (8, "AA"), (20, "ZZ")):
        told[at] |= {"product_id": product}
    tables.write_table(path, pa.Table.from_pylist(told, tables.JUDGEMENTS), tables.JUDGEMENTS)

    ids, judgements, (rows, codes, labels) = read_judgements(LOCALE)

    assert judgements.to_pylist() == told
    assert ids.queries.take(rows).to_pylist() == judgements["query_id"].to_pylist()
    assert [tables.LABELS[label] for label in labels] == judgements["label"].to_pylist()
    without = np.flatnonzero(~ids.has_text(codes))
    assert without.tolist() == [3, 8, 20]
    assert codes[3] == codes[20] != codes[8]
    known = np.delete(np.arange(len(codes)), without)
    assert ids.products.take(codes[known]).equals(judgements["product_id"].take(known))
    of_runs = read_inputs(LOCALE)
    np.testing.assert_array_equal(of_runs.pair_products, codes[known])
    np.testing.assert_array_equal(of_runs.pair_queries, rows[known])
    told[5] |= {"label": "X"}
    tables.write_table(path, pa.Table.from_pylist(told, tables.JUDGEMENTS), tables.JUDGEMENTS)
    with pytest.raises(PipelineError, match=rf"{path}: X is not in the clean tables. Run `dvc"):
        read_inputs(LOCALE)


def test_a_failed_stage_leaves_the_old_runs(inputs: Inputs) -> None:
    run = random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12)
    write_given_runs("dense", inputs, run)
    before = {
        path.name: path.read_bytes() for path in layout.runs("dense", LOCALE).folder.iterdir()
    }

    def fail() -> None:
        with run_files.write_runs(LOCALE, "dense", {}, 3, inputs) as (catalogue, _):
            catalogue.add(*run)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    after = {path.name: path.read_bytes() for path in layout.runs("dense", LOCALE).folder.iterdir()}
    assert before == after
    assert [path.name for path in layout.runs("dense", LOCALE).folder.parent.iterdir()] == [LOCALE]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"run_schema": 1}, r"run_schema must be 4 \(found 1\)"),
        (
            {"system": "bm25"},
            r"system must be 'dense' \(found 'bm25'\): the runs are of another system, or the card",
        ),
        ({"system": "splade"}, r"system must be 'dense' \(found 'splade'\)"),
        ({"depth": "12"}, "depth: must be a valid integer"),
        ({"encoder": "x"}, "encoder: Extra inputs are not permitted"),
        (
            {"product_ids_sha256": "0"},
            "product_ids_sha256 must be .* of other tables, or the card was edited",
        ),
    ],
)
def test_a_card_that_does_not_fit_its_runs_is_refused(
    inputs: Inputs, change: dict[str, object], told: str
) -> None:
    runs = layout.runs("dense", LOCALE)
    write_given_runs(
        "dense", inputs, random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12)
    )
    card = run_card.read_card(runs, "dense", inputs.queries, inputs.products, "do")
    assert (card.system, card.run_schema) == ("dense", run_card.RUN_SCHEMA)
    path = runs.card
    files.write_json(path, json.loads(path.read_text()) | change)
    with pytest.raises(PipelineError, match=rf"{path}: {told}.*. do"):
        run_card.read_card(runs, "dense", inputs.queries, inputs.products, "do")


@pytest.mark.parametrize("track", ["catalogue", "pool"])
def test_a_run_that_is_missing_or_of_another_card_is_named(inputs: Inputs, track: str) -> None:
    runs = layout.runs("dense", LOCALE)
    write_given_runs(
        "dense", inputs, random_run(np.random.default_rng(3), QUERIES, PRODUCTS, most=12)
    )
    card = json.loads(runs.card.read_text())
    files.write_json(runs.card, card | {f"{track}_sha256": "0" * 64})
    with pytest.raises(
        PipelineError,
        match=rf"^{_path(track)}: sha256 must be 0{{12}} .found \w{{12}}.: it is damaged, or it or "
        r"run.json was edited\. do$",
    ):
        run_card.read_card(runs, "dense", inputs.queries, inputs.products, "do")
    _path(track).unlink()
    with pytest.raises(PipelineError, match=rf"^{_path(track)} is missing\. do$"):
        run_card.read_card(runs, "dense", inputs.queries, inputs.products, "do")
