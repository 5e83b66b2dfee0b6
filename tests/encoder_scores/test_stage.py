"""What the stage writes is what the pool run of `dense` says, and is checked when it is read."""

import json
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ir_measures import AP
from sklearn.metrics import average_precision_score

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.params import ENCODER_MEASURES, Params
from pipeline.encoder_scores import form
from pipeline.encoder_scores.stage import encoder_scores
from pipeline.evaluate import per_query
from pipeline.index import stage as stage_index
from pipeline.retrieve import stage as retrieve
from pipeline.vectors import pairs
from pipeline.vectors.manifest import read_manifest
from tests.helpers.artefacts import (
    LOCALE,
    params,
    random_vectors,
    tie_heavy,
    write_clean,
    write_embeddings,
)

pytestmark = pytest.mark.usefixtures("empty_folder")

PRODUCTS, QUERIES = 80, 30
OUTPUTS = (layout.encoder_scores(LOCALE), layout.encoder_values(LOCALE))


def given(similarity: str = "cosine", **changes: Any) -> Params:
    entry = f"encoders.{params().encoder[LOCALE]}"
    choice = {f"{entry}.similarity": similarity, f"{entry}.normalize": similarity == "cosine"}
    return params({**choice, "uncertainty.samples": 200, **changes})


def write(settings: Params, tied: bool = False, seed: int = 4) -> None:
    rng = np.random.default_rng(seed)
    write_clean(rng, PRODUCTS, QUERIES)
    make = tie_heavy if tied else random_vectors
    write_embeddings(settings, make(rng, PRODUCTS), make(rng, QUERIES), shard_rows=30)


def judged_run() -> pd.DataFrame:
    """Return the pool run of dense with its labels."""
    run = pq.read_table(layout.runs("dense", LOCALE).pool).to_pandas()
    judgements = pq.read_table(layout.clean(LOCALE).judgements).to_pandas()
    return run.merge(judgements, on=["query_id", "product_id"], validate="1:1")


@pytest.mark.parametrize("similarity", ["cosine", "dot", "l2"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_the_measures_are_those_of_the_pool_run_which_needs_an_index_and_this_does_not(
    similarity: str, dtype: str
) -> None:
    settings = given(similarity, **{"embed.dtype": dtype})
    write(settings, tied=dtype == "float16")
    encoder_scores(settings, LOCALE)
    found = form.read_scores(LOCALE)
    assert not layout.INDEX.exists()
    stage_index.index(settings, LOCALE)
    retrieve.retrieve(settings, LOCALE)

    run = judged_run()
    exact = run["label"] == "E"
    ap = average_precision_score(exact, run["score"])
    assert found.measures["ap_e_vs_sci"].value == pytest.approx(ap, abs=1e-5)
    of_two = run[run["label"].isin(["E", "I"])]
    ap = average_precision_score(of_two["label"] == "E", of_two["score"])
    assert found.measures["ap_e_vs_i"].value == pytest.approx(ap, abs=1e-5)
    worth = run["label"].map({"E": 3, "S": 2, "C": 1, "I": 0})
    spearman = run["score"].corr(worth, method="spearman")
    assert found.measures["spearman"].value == pytest.approx(spearman, abs=1e-5)
    # trec_eval orders ties as runs do.
    shares = exact.groupby(run["query_id"]).transform("mean")
    asked = run[(shares > 0) & (shares < 1)].astype({"query_id": str})
    qrels = pd.DataFrame(
        {"query_id": asked["query_id"], "doc_id": asked["product_id"],
         "relevance": (asked["label"] == "E").astype(int)}
    )  # fmt: skip
    ranked = asked.rename(columns={"product_id": "doc_id"})[["query_id", "doc_id", "score"]]
    expected = ir_measures.calc_aggregate([AP], qrels, ranked)[AP]
    assert found.measures["map"].value == pytest.approx(expected, abs=1e-5)
    assert found.labels == run["label"].value_counts().to_dict()
    assert found.similarity == similarity


def test_the_files_are_the_same_however_many_pairs_are_read_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = given()
    write(settings)
    encoder_scores(settings, LOCALE)
    whole = [path.read_bytes() for path in OUTPUTS]
    monkeypatch.setattr(pairs, "BATCH_BYTES", 1)
    encoder_scores(settings, LOCALE)
    assert [path.read_bytes() for path in OUTPUTS] == whole


def read_values(data: bytes, locale: str = LOCALE) -> Any:
    return form.read_table(data, "the table", locale, "Run it again.")


def test_the_table_has_the_measures_as_its_means_and_the_labels_in_ranked_order() -> None:
    settings = given()
    write(settings)
    encoder_scores(settings, LOCALE)
    scores, (table, card) = form.read_scores(LOCALE), read_values(OUTPUTS[1].read_bytes())
    assert card.sample == scores.sample
    assert scores.sample.queries == len(table) == QUERIES
    for name in ENCODER_MEASURES:
        values, each = table[f"encoder.{name}"], scores.measures[name]
        assert values.null_count == each.queries_left_out == QUERIES - each.queries
        mean = values.drop_null().to_numpy().mean()
        numbers = [each.low, each.value, each.high]
        assert numbers == sorted(number for number in numbers if number is not None)
        assert each.value == pytest.approx(mean, abs=form.ROUNDED)
    assert scores.measures["map"].queries_left_out > 0
    judged = pq.read_table(layout.clean(LOCALE).judgements).to_pandas()
    expected = [
        "".join(sorted(of["label"])) for _, of in judged.groupby("query_id") if len(of) <= 10
    ]
    found = ["".join(sorted(labels)) for labels in table["encoder.labels"].to_pylist()]
    assert sorted(each for each in found if len(each) < 10) == sorted(
        each for each in expected if len(each) < 10
    )


def test_a_table_that_is_damaged_edited_or_of_another_locale_is_refused() -> None:
    settings = given()
    write(settings)
    encoder_scores(settings, LOCALE)
    data = OUTPUTS[1].read_bytes()
    table, card = read_values(data)
    rng = np.random.default_rng(1)
    refused = 0
    for place in rng.integers(len(data), size=60):
        damaged = bytearray(data)
        damaged[place] ^= 1 << int(rng.integers(8))
        try:
            assert read_values(bytes(damaged))[0].equals(table)  # a byte that says nothing
        except PipelineError:
            refused += 1
    assert refused
    with pytest.raises(PipelineError, match="the table is of the locale es"):
        read_values(data, "us")
    for column, value, said in (
        ("encoder.map", 1.5, "encoder.map has a value that it cannot have"),
        ("encoder.spearman", 700.0, "the mean of encoder.spearman cannot be 700"),
        ("encoder.labels", None, "the columns must be"),
        (
            "encoder.labels",
            "\x1b[31mEVIL\n\n# heading @someone",
            "must be the labels of at most 10",
        ),
        ("encoder.labels", "EEEEEEEEEEE", "must be the labels of at most 10"),
        ("encoder.labels", pa.NA, "must be the labels of at most 10"),
    ):
        at = table.column_names.index(column)
        edited = table.remove_column(at)
        if value is not None:
            constant = pa.array([pa.scalar(value).as_py()] * QUERIES, table[column].type)
            edited = edited.add_column(at, column, constant)
        path = Path("edited.parquet")
        form.write_table(path, edited, card.model_copy(update={"contents_sha256": ""}))
        with pytest.raises(PipelineError, match=said):
            read_values(path.read_bytes())


def test_numbers_of_another_encoder_other_vectors_or_another_sample_do_not_fit() -> None:
    settings = given()
    write(settings)
    encoder_scores(settings, LOCALE)
    _, card = read_values(OUTPUTS[1].read_bytes())
    sample = per_query.Sample(**card.sample.model_dump(), depth=7)
    older = per_query.Card(
        per_query_schema=per_query.PER_QUERY_SCHEMA, sample=sample, encoder=card.encoder,
        index="flat", top_sha256="0" * 64, contents_sha256="",
    )  # fmt: skip
    systems = older.model_copy(update=read_manifest(settings, LOCALE).vectors_sha256())
    for fits in (older, systems):
        form.check_fits(card, fits, "it", "Run it.")
    other = sample.model_copy(update={"judgements_sha256": "d" * 64})
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"encoder": "labse"}, "encoder must be 'labse', as in the table of the systems"),
        ({"encoder": "multilingual-e5-base"}, "encoder must be 'multilingual-e5-base', as"),
        ({"product_vectors_sha256": "d" * 64}, "product_vectors_sha256 must be d{12}, as"),
        ({"query_vectors_sha256": "d" * 64}, "query_vectors_sha256 must be d{12}, as"),
        ({"sample": other}, "judgements_sha256 must be d{12}, as"),
    )
    for change, said in changes:
        with pytest.raises(PipelineError, match=f"it: {said}"):
            form.check_fits(card, systems.model_copy(update=change), "it", "Run it.")


def test_vectors_of_other_texts_or_ids_are_refused_and_nothing_is_written() -> None:
    settings = given()
    write(settings)
    write_clean(np.random.default_rng(5), PRODUCTS, QUERIES)
    with pytest.raises(PipelineError, match="the queries vectors are of 30 rows with ids"):
        encoder_scores(settings, LOCALE)
    assert not any(path.exists() for path in OUTPUTS)


def test_without_judgements_there_is_nothing_to_measure() -> None:
    settings = given()
    write(settings)
    path = layout.clean(LOCALE).judgements
    tables.write_table(path, pq.read_table(path).slice(0, 0), tables.JUDGEMENTS)
    with pytest.raises(PipelineError, match="there are no judgements to evaluate"):
        encoder_scores(settings, LOCALE)


def test_judgements_of_one_label_alone_leave_measures_without_numbers() -> None:
    settings = given()
    write(settings)
    path = layout.clean(LOCALE).judgements
    judged = pq.read_table(path).to_pandas().assign(label="E")
    tables.write_table(
        path, tables.JUDGEMENTS.empty_table().from_pandas(judged, tables.JUDGEMENTS),
        tables.JUDGEMENTS,
    )  # fmt: skip
    encoder_scores(settings, LOCALE)
    content = json.loads(OUTPUTS[0].read_text())
    for each in content["measures"].values():
        assert "value" not in each
        assert (each["queries"], each["queries_left_out"]) == (0, QUERIES)
    read_values(OUTPUTS[1].read_bytes())
