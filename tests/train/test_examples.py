"""What each step learns from: no torch, arrays alone."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS, PAIRS
from pipeline.core.trained import TrainedEncoder, TrainedReranker
from pipeline.train.examples import Examples, LabelledPairs, Step
from pipeline.train.pairs import Pairs, pairs_of
from tests.helpers.training import RERANKER, SETTINGS, pair_table


def encoder(**changes: Any) -> TrainedEncoder:
    data = SETTINGS | changes
    return TrainedEncoder.model_validate(
        data | {key: tuple(value) for key, value in data.items() if isinstance(value, list)}
    )


def reranker(**changes: Any) -> TrainedReranker:
    return TrainedReranker.model_validate(RERANKER | {"locales": ("us",)} | changes)


def pairs(queries: int = 20, **options: Any) -> Pairs:
    return pairs_of(pair_table(queries, 5, **options))


def all_steps(examples: Examples | LabelledPairs, epoch: int = 0) -> list[Step]:
    return [examples.step(rows, epoch, number) for number, rows in enumerate(examples.steps(epoch))]


def texts_of(found: Pairs, step: Step, column: int) -> list[str]:
    everything = [*found.queries, *found.texts]
    return [everything[item] for item in step.items[step.columns[column]]]


def test_pairs_are_the_rows_of_their_table() -> None:
    table = pair_table(9, 1)
    found = pairs_of(table)
    rows = table.to_pylist()
    assert [found.queries[at] for at in found.query] == [row["query"] for row in rows]
    assert [found.texts[at] for at in found.text] == [row["text"] for row in rows]
    assert [LABELS[at] for at in found.label] == [row["label"] for row in rows]
    keys = [(row["locale"], row["query_id"]) for row in rows]
    assert [sorted(set(keys)).index(key) for key in keys] == found.group.tolist()
    products = [(row["locale"], row["product_id"]) for row in rows]
    assert [sorted(set(products)).index(key) for key in products] == found.product.tolist()
    assert found.queries_count() == 9


@pytest.mark.parametrize("loss", ["mnrl", "triplet", "cosine", "contrastive"])
def test_an_epoch_is_every_example_once_in_steps_of_nearly_one_size(loss: str) -> None:
    found = pairs()
    examples = Examples(found, encoder(loss=loss, batch=7), "trained.x")
    for epoch in range(3):
        steps = examples.steps(epoch)
        rows = np.concatenate(steps)
        wanted = found.has(("E",)) if loss in ("mnrl", "triplet") else found.has(LABELS)
        assert sorted(rows.tolist()) == np.flatnonzero(wanted).tolist()
        sizes = {len(step) for step in steps}
        assert max(sizes) <= 7
        assert max(sizes) - min(sizes) <= 1
    assert examples.steps(0)[0].tolist() != examples.steps(1)[0].tolist()


@pytest.mark.parametrize("loss", ["mnrl", "triplet"])
def test_an_epoch_has_at_most_so_many_positives_of_a_query_and_each_has_its_turn(loss: str) -> None:
    found = pairs()
    examples = Examples(found, encoder(loss=loss, batch=7, positives_per_query=1), "trained.x")
    positives = np.flatnonzero(found.has(("E",)))
    learned: set[int] = set()
    for epoch in range(40):
        rows = np.concatenate(examples.steps(epoch))
        assert len(rows) == examples.size
        assert sorted(found.group[rows].tolist()) == np.unique(found.group[positives]).tolist()
        learned.update(rows.tolist())
    assert learned == set(positives.tolist())


@pytest.mark.parametrize("most", [1, 2, 3, 99])
@pytest.mark.parametrize("seed", range(4))
def test_a_query_has_all_its_positives_up_to_the_cap_and_one_seed_draws_the_same(
    seed: int, most: int
) -> None:
    rng = np.random.default_rng(seed)
    table = pair_table(30, seed, per_query=20)  # five E of each query
    found = pairs_of(table.filter(rng.random(len(table)) < rng.uniform(0.3, 1)))
    positives = found.group[found.has(("E",))]
    settings = encoder(batch=2, seed=seed, positives_per_query=most)
    one, other = (Examples(found, settings, "trained.x") for _ in range(2))
    for epoch in range(3):
        rows = np.concatenate(one.steps(epoch))
        assert rows.tolist() == np.concatenate(other.steps(epoch)).tolist()
        assert len(set(rows.tolist())) == one.size == len(rows)
        assert found.has(("E",))[rows].all()
        counts = np.minimum(np.bincount(positives), most)
        assert np.bincount(found.group[rows], minlength=len(counts)).tolist() == counts.tolist()


def test_a_step_follows_from_the_seed_the_epoch_and_its_number() -> None:
    one, other = (Examples(pairs(), encoder(), "x") for _ in range(2))
    for left, right in zip(all_steps(one, 1), all_steps(other, 1), strict=True):
        assert left.items.tolist() == right.items.tolist()
    reseeded = Examples(pairs(), encoder(seed=4), "x")
    assert one.steps(0)[0].tolist() != reseeded.steps(0)[0].tolist()
    rows = one.steps(0)[0]
    drawn = {tuple(one.step(rows, epoch, 0).items.tolist()) for epoch in range(8)}
    assert len(drawn) > 1  # other hard negatives


def test_a_known_positive_is_never_a_wrong_answer_and_the_own_one_always_counts() -> None:
    found = pairs()
    known = {
        (found.queries[query], found.texts[text])
        for query, text in zip(
            found.query[found.has(("E",))], found.text[found.has(("E",))], strict=True
        )
    }
    masked = 0
    for step in all_steps(Examples(found, encoder(batch=40), "x")):
        queries, texts = texts_of(found, step, 0), texts_of(found, step, 1)
        assert isinstance(step.target, np.ndarray)
        for row, query in enumerate(queries):
            own = int(step.target[row])
            assert (query, texts[own]) in known
            for at, text in enumerate(texts):
                assert step.counts[row, at] == (at == own or (query, text) not in known)
        masked += int((~step.counts).sum())
    assert masked > 0  # two E of a query were in one step


def test_a_product_that_is_right_for_a_query_in_other_case_is_no_wrong_answer() -> None:
    rows = pair_table(20, 5).to_pylist()
    for row in rows:
        row["query"] = ("Red Shoes", "red shoes", "lamp")[row["query_id"] % 3]
    found = pairs_of(pa.Table.from_pylist(rows, schema=PAIRS))
    settings = encoder(batch=40, negatives=[], hard_negatives=0)
    (step,) = all_steps(Examples(found, settings, "x"))
    assert isinstance(step.target, np.ndarray)
    right = {(row["query"].lower(), row["text"]) for row in rows if row["label"] == "E"}
    queries, texts = texts_of(found, step, 0), texts_of(found, step, 1)
    assert set(queries) == {"Red Shoes", "red shoes", "lamp"}
    for row, query in enumerate(queries):
        own = int(step.target[row])
        counts = [at == own or (query.lower(), text) not in right for at, text in enumerate(texts)]
        assert step.counts[row].tolist() == counts
    alone = [row for row in rows if row["query"] != "lamp"]
    with pytest.raises(PipelineError, match="needs negative products, and none of a query's own"):
        Examples(pairs_of(pa.Table.from_pylist(alone, schema=PAIRS)), settings, "x")


@pytest.mark.parametrize("negatives", [[], ["C", "I"], ["E"]])
def test_an_exact_product_is_no_wrong_answer_where_others_are_the_positives_unless_it_is_a_negative(
    negatives: list[str],
) -> None:
    rows = pair_table(20, 5).to_pylist()
    exact = {row["query_id"]: row["text"] for row in rows if row["label"] == "E"}
    for row in rows:
        if row["label"] == "S":  # the product that is exact for another query
            row["text"] = exact[(row["query_id"] + 3) % 20]
    found = pairs_of(pa.Table.from_pylist(rows, schema=PAIRS))
    drawn = {} if negatives else {"hard_negatives": 0}
    settings = encoder(positives=["S"], negatives=negatives, batch=20, **drawn)
    (step,) = all_steps(Examples(found, settings, "x"))
    ids = {row["query"]: row["query_id"] for row in rows}
    queries, texts = texts_of(found, step, 0), texts_of(found, step, 1)
    for row, query in enumerate(queries):
        assert step.counts[row, texts.index(exact[ids[query]])] == (negatives == ["E"])


def test_hard_negatives_are_the_querys_own_products_of_the_labels_that_are_asked_for() -> None:
    found = pairs()
    labelled = {
        (found.queries[query], found.texts[text]): LABELS[label]
        for query, text, label in zip(found.query, found.text, found.label, strict=True)
    }
    for step in all_steps(Examples(found, encoder(loss="triplet", negatives=["S"]), "x")):
        columns = [texts_of(found, step, column) for column in range(3)]
        for query, right, wrong in zip(*columns, strict=True):
            assert labelled[query, right] == "E"
            assert labelled[query, wrong] == "S"
    in_batch = all_steps(Examples(found, encoder(negatives=[], hard_negatives=0), "x"))
    assert {labelled.get((q, t)) for step in in_batch for q, t in zip(
        texts_of(found, step, 0), np.array(texts_of(found, step, 1))[step.target], strict=True
    )} == {"E"}  # fmt: skip


def test_a_triplet_loss_counts_the_positives_that_have_no_negative() -> None:
    table = pair_table(20, 5)
    keep = [not (row["query_id"] < 8 and row["label"] != "E") for row in table.to_pylist()]
    examples = Examples(pairs_of(table.filter(keep)), encoder(loss="triplet"), "x")
    assert (examples.size, examples.without_negative) == (24, 16)


def test_the_queries_without_a_hard_negative_are_counted_where_any_is_drawn() -> None:
    table = pair_table(20, 5)
    keep = [not (row["query_id"] < 8 and row["label"] != "E") for row in table.to_pylist()]
    found = pairs_of(table.filter(keep))
    cases: list[tuple[dict[str, Any], int]] = [
        ({}, 8),
        ({"hard_negatives": 3}, 8),
        ({"loss": "triplet"}, 8),
        ({"negatives": [], "hard_negatives": 0}, 0),
        ({"loss": "cosine"}, 0),
    ]
    for changes, expected in cases:
        assert Examples(found, encoder(**changes), "x").queries_without_negative == expected


def test_targets_are_those_of_the_labels() -> None:
    found = pairs()
    wanted = dict(zip(LABELS, (1.0, 0.6, 0.2, 0.0), strict=True))
    examples = Examples(found, encoder(loss="cosine"), "x")
    rows = examples.steps(0)[0]
    target = examples.step(rows, 0, 0).target
    assert target.tolist() == [np.float32(wanted[LABELS[at]]) for at in found.label[rows]]
    binary = Examples(found, encoder(loss="contrastive"), "x")
    rows = binary.steps(0)[0]
    assert binary.step(rows, 0, 0).target.tolist() == (found.label[rows] == 0).tolist()


def test_a_rerankers_epoch_is_every_pair_once_and_its_steps_mix_the_queries() -> None:
    found = pairs()
    examples = LabelledPairs(found, reranker(batch=12), "x")
    for epoch in range(2):
        steps = all_steps(examples, epoch)
        assert sorted(np.concatenate([step.items for step in steps])) == list(range(len(found)))
        assert {len(step.items) for step in steps} <= {11, 12}
        for step in steps:
            assert step.target.tolist() == found.label[step.items].tolist()
            assert len(np.unique(found.group[step.items])) > 3  # whole queries would be 3
    assert examples.steps(0)[0].tolist() != examples.steps(1)[0].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 41}, r" 41 is more than the 40 .* at most 40, or take more queries\.$"),
        ({"batch": 41, "positives_per_query": 9}, r" 40, or take more queries\.$"),
        (
            {"batch": 21, "positives_per_query": 1},
            r" 20, or take more queries, or raise positives_per_query\.$",
        ),
        ({"loss": "triplet", "hard_negatives": 0}, r"own are drawn\. Name labels under negatives"),
        ({"negatives": ["C"]}, r"no pair has a label of negatives \(C\)\. .* hard_negatives: 0\.$"),
        ({"loss": "contrastive", "negatives": ["C"]}, r"no pair has a label of negatives \(C\)"),
        ({"loss": "cosine", "negatives": []}, r"no pair has a label of negatives \(none\)"),
    ],
)
def test_what_gives_no_examples_is_refused(changes: dict[str, Any], message: str) -> None:
    table = pair_table(20, 5)
    table = table.filter([label != "C" for label in table["label"].to_pylist()])
    with pytest.raises(PipelineError, match=rf"^trained\.x\.(loss|batch):.*{message}"):
        Examples(pairs_of(table), encoder(**changes), "trained.x")


@pytest.mark.parametrize(
    "changes",
    [
        {"negatives": [], "hard_negatives": 0},
        {},
        {"loss": "triplet"},
        {"loss": "distill-kl-div", "teacher": "judge"},
        {"loss": "cosine"},
        {"loss": "contrastive"},
        {"loss": "online-contrastive"},
    ],
)
def test_positives_that_the_train_split_lacks_are_refused_with_every_loss_by_their_own_key(
    changes: dict[str, Any],
) -> None:
    table = pair_table(20, 5)
    table = table.filter([label != "S" for label in table["label"].to_pylist()])
    settings = encoder(**({"positives": ["S"], "negatives": ["C", "I"]} | changes))
    said = (
        r"^trained\.x\.positives: no pair of the train split has one of these labels \(found S\)\. "
        r"Name labels that it has: E, C, I\.$"
    )
    with pytest.raises(PipelineError, match=said):
        Examples(pairs_of(table), settings, "trained.x")


def test_a_batch_of_fewer_than_two_is_not_recommended() -> None:
    table = pair_table(1, 5, per_query=2)  # an E and an S
    for most, said in ((3, "Set at most 3, or take more queries"), (1, r"learn from\. Take more")):
        rows = pa.concat_tables([table] * most) if most > 1 else table
        with pytest.raises(PipelineError, match=rf"8 is more than the {most} examples .*{said}"):
            Examples(pairs_of(rows), encoder(loss="triplet"), "trained.x")


def test_a_loss_of_triplets_needs_a_query_with_both_kinds_of_products() -> None:
    rows = pair_table(20, 5).to_pylist()
    kept = [row for row in rows if row["label"] == ("E" if row["query_id"] % 2 else "I")]
    found = pairs_of(pa.Table.from_pylist(kept, schema=PAIRS))
    with pytest.raises(
        PipelineError, match=r"^trained\.x\.loss: .* beside a positive product\. Na"
    ):
        Examples(found, encoder(loss="triplet"), "trained.x")


def test_one_query_alone_has_no_negatives_in_its_batch() -> None:
    with pytest.raises(PipelineError, match="negative products, and none of a query's own are"):
        Examples(pairs(1, per_query=9), encoder(batch=2, hard_negatives=0), "trained.x")


def test_a_reranker_needs_more_than_one_label() -> None:
    table = pair_table(5, 5)
    table = table.filter([label == "E" for label in table["label"].to_pylist()])
    with pytest.raises(PipelineError, match="all pairs have one label"):
        LabelledPairs(pairs_of(table), reranker(), "trained.x")


def test_a_distilled_triplet_has_the_teachers_scores_of_its_own_two_pairs() -> None:
    found = pairs(20)
    settings = encoder(loss="distill-kl-div", teacher="judge", negatives=["C", "I"], batch=9)
    examples = Examples(found, settings, "x")
    examples.learn_from(lambda _, rows, __: rows.astype(np.float64))  # a score is its row
    assert examples.taught is not None
    scored = np.isfinite(examples.taught)
    assert {LABELS[at] for at in found.label[scored]} == {"E", "C", "I"}
    by_text = {
        (found.queries[query], found.texts[text]): float(row)
        for row, (query, text) in enumerate(zip(found.query, found.text, strict=True))
    }
    for step in all_steps(examples):
        asked, right, wrong = (texts_of(found, step, column) for column in range(3))
        expected = [
            [by_text[query, one], by_text[query, other]]
            for query, one, other in zip(asked, right, wrong, strict=True)
        ]
        assert step.target.tolist() == expected
