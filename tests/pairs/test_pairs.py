"""Pairs hold what the train queries were judged on, and nothing of what is evaluated."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipeline.clean.stage import clean
from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Params
from pipeline.core.trained_folder import refuse_other_pairs
from pipeline.pairs.leakage import draw_dev
from pipeline.pairs.stage import pairs
from pipeline.sample.columns import TEXTS
from pipeline.sample.stage import sample
from pipeline.text.normalise import join_fields, normalise
from tests.conftest import RunStage
from tests.helpers import artefacts
from tests.helpers.esci_files import (
    EXAMPLES_FILE,
    example,
    product,
    random_source,
    write_source,
)

NAME, LOCALES = "minilm-demo", ("us", "es", "jp")
Row = dict[str, Any]
Draw = Callable[..., Params]


@pytest.fixture
def drawn(project: Path) -> Draw:
    """Return what evaluates the test split of some rows, and draws pairs from the train split."""

    def run(
        examples: Sequence[Row],
        products: Sequence[Row],
        locales: Sequence[str] = ("us",),
        changes: Row | None = None,
    ) -> Params:
        write_source(project / "source", examples, products)
        params = artefacts.params(
            {
                "sample.source": "source",
                "training.source": "source",
                f"trained.{NAME}.locales": list(locales),
                **(changes or {}),
            }
        )
        sample(params)
        for each in params.locales:
            clean(params, each)
        pairs(params, NAME)
        return params

    return run


def read(side: str) -> list[Row]:
    table = tables.read_table(layout.pairs(NAME).side(side), tables.PAIRS, "")
    rows: list[Row] = table.to_pylist()
    return rows


def counts(locale: str = "us") -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = json.loads(layout.pairs(NAME).counts.read_text())[locale]
    return found


def train(number: int, label: str = "E", query: str | None = "", locale: str = "us") -> Row:
    """A judgement of a train query, of the product A."""
    return example(number, number, "A", label, locale, query, split="train")


def evaluated(query_id: int = 900, **columns: Any) -> list[Row]:
    """A test query in each locale, which the evaluation needs."""
    return [
        example(query_id + place, query_id + place, "A", locale=locale, **columns)
        for place, locale in enumerate(LOCALES)
    ]


PRODUCTS = [product(one, locale) for locale in LOCALES for one in "AB"]


@pytest.mark.parametrize("seed", range(2))
def test_pairs_are_the_usable_judgements_of_train_queries_that_are_not_evaluated(
    drawn: Draw, seed: int
) -> None:
    examples, products = random_source(seed, queries=90)
    params = drawn(examples, products, LOCALES, {"training.dev_share": 0.3})

    tested = [row for row in examples if row["split"] == "test" and row["small_version"]]
    known = {
        (row["product_locale"], row["product_id"]): join_fields(
            (row[name] for name in params.clean.fields), params.clean.separator
        )[0]
        for row in products
    }
    # An evaluated query has a text and a judged product that has a row.
    shown = {
        row["query_id"]: normalise(row["query"])
        for row in tested
        if normalise(row["query"]) and (row["product_locale"], row["product_id"]) in known
    }
    texts = {text.casefold() for text in shown.values()}
    expected = {
        (row["product_locale"], row["query_id"], row["product_id"]): (
            normalise(row["query"]), row["esci_label"],
            known.get((row["product_locale"], row["product_id"]), ""),
        )
        for row in examples
        if row["split"] == "train" and row["small_version"]
    }  # fmt: skip
    expected = {
        key: (query, label, text)
        for key, (query, label, text) in expected.items()
        if query and text and query.casefold() not in texts
    }
    sides = {side: read(side) for side in ("train", "dev")}
    found = {
        (row["locale"], row["query_id"], row["product_id"]): (
            row["query"], row["label"], row["text"],
        )
        for rows in sides.values()
        for row in rows
    }  # fmt: skip
    assert found == expected
    assert sum(map(len, sides.values())) == len(expected)
    for rows in sides.values():
        keys = [(row["locale"], row["query_id"], row["product_id"]) for row in rows]
        assert keys == sorted(keys)
    for column in ("query_id", "query"):
        one, other = ({str(row[column]).casefold() for row in rows} for rows in sides.values())
        assert one
        assert other
        assert not one & other
        against = {str(each) for each in shown} if column == "query_id" else texts
        assert not (one | other) & against


def test_every_row_that_is_read_is_kept_or_counted_under_one_reason(drawn: Draw) -> None:
    drawn(*random_source(5, queries=90), LOCALES)
    for locale in LOCALES:
        for part in (counts(locale)["queries"], counts(locale)["judgements"]):
            dropped = sum(count for name, count in part.items() if name.startswith("dropped"))
            assert part["in"] == part["out"] + dropped
        kept = [counts(locale)[side] for side in ("train", "dev")]
        assert counts(locale)["queries"]["out"] == sum(side["queries"] for side in kept)
        labelled = sum(side[label] for side in kept for label in tables.LABELS)
        assert counts(locale)["judgements"]["out"] == labelled


def test_a_text_that_is_evaluated_in_any_locale_is_dropped_in_whatever_form_it_is_written(
    drawn: Draw,
) -> None:
    forms = [
        "usb cable",
        "USB Cable",
        " usb\tcable ",
        "<b>usb</b> cable",
        "ＵＳＢ cable",
        "usb&nbsp;cable",
    ]
    others = [train(number) for number in range(100, 120)]
    examples = [train(number, query=form) for number, form in enumerate(forms)]
    test = [*evaluated(), example(990, 990, "A", locale="jp", query="Usb cable")]
    drawn([*examples, *others, *test], PRODUCTS)
    assert counts()["queries"]["dropped_evaluated_text"] == len(forms)
    assert counts()["judgements"]["dropped_query_evaluated"] == len(forms)
    assert not [row for side in ("train", "dev") for row in read(side) if row["query_id"] < 100]


def test_a_corrected_query_is_dropped_as_it_was_typed_and_as_it_is_searched_for(
    drawn: Draw,
) -> None:
    products = [
        product(one, locale, product_title="red sneakers") for locale in LOCALES for one in "AB"
    ]
    examples = [train(number, query=text) for number, text in enumerate(["snekaers", "sneakers"])]
    others = [train(number) for number in range(100, 120)]
    test = [*evaluated(), example(990, 990, "A", query="snekaers")]
    drawn([*examples, *others, *test], products, changes={"spelling.us": "corrected"})
    assert counts()["queries"]["dropped_evaluated_text"] == len(examples)


def test_a_query_id_that_is_evaluated_is_dropped_though_its_text_is_another(
    drawn: Draw, project: Path
) -> None:
    examples = [*evaluated(0, query="x"), *(train(number) for number in range(100, 120))]
    params = drawn(examples, PRODUCTS)
    write_source(project / "other", [train(number) for number in range(20)], PRODUCTS)
    other = params.training.model_copy(update={"source": "other"})
    pairs(params.model_copy(update={"training": other}), NAME)
    assert counts()["queries"]["dropped_evaluated_id"] == 3
    assert counts()["queries"]["out"] == 17


def test_products_of_both_sides_are_counted(drawn: Draw) -> None:
    learned = [example(n, n, "AB"[n % 2], split="train") for n in range(100, 120)]
    drawn([*evaluated(), *learned], PRODUCTS)
    assert counts()["products"] == {
        "out": 2, "judged_for_evaluated_queries": 1, "repeated_rows_dropped": 0,
    }  # fmt: skip


def test_what_sample_counts_and_warns_of_is_counted_and_warned_of_here_too(
    drawn: Draw, caplog: pytest.LogCaptureFixture
) -> None:
    learned = [train(number) for number in range(100, 120)]
    outside = [
        example(1_000 + number, number, "B", split="train", small_version=0)
        for number in range(100, 107)
    ]
    drawn([*evaluated(), *learned, *outside], [*PRODUCTS, product("A")])
    assert counts()["judgements"]["outside_filters"] == 7
    assert counts()["products"]["repeated_rows_dropped"] == 1
    assert (
        "warning: 7 judgements of the drawn us queries are outside training.version and the split "
        "train, and left out" in caplog.text
    )
    assert "named_by_text" not in counts()["queries"]


def test_spellings_that_are_joined_to_one_query_are_counted(drawn: Draw, project: Path) -> None:
    params = drawn([*evaluated(), *(train(number) for number in range(100, 120))], PRODUCTS)
    learned = [train(number, query=f"shoe {number}") for number in range(60)]
    learned.append(train(60, query=" shoe  3"))
    path = write_source(project / "other", learned, PRODUCTS) / EXAMPLES_FILE
    pq.write_table(pq.read_table(path).drop_columns(["query_id"]), path)
    other = params.training.model_copy(update={"source": "other"})
    pairs(params.model_copy(update={"training": other}), NAME)
    assert counts()["queries"]["named_by_text"] == 60
    assert counts()["queries"]["spellings_joined"] == 1


def test_queries_without_e_are_kept_and_counted(drawn: Draw) -> None:
    learned = [train(n, "E" if n % 2 else "I") for n in range(100, 140)]
    drawn([*evaluated(), *learned], PRODUCTS)
    without = [counts()[side]["queries_without_E"] for side in ("train", "dev")]
    assert sum(without) == 20
    assert without[0] == sum(row["label"] == "I" for row in read("train"))


def test_what_is_evaluated_beside_the_queries_changes_no_pair(drawn: Draw) -> None:
    examples, products = random_source(6, queries=90)
    files = layout.pairs(NAME)
    written = []
    for distractors in ("all", 0):
        drawn(examples, products, LOCALES, {"sample.distractors": distractors})
        written.append([path.read_bytes() for path in (files.train, files.dev, files.card)])
    assert written[0] == written[1]


def test_a_model_is_not_evaluated_on_queries_that_its_pairs_were_not_kept_apart_from(
    drawn: Draw,
) -> None:
    """Its stages are run by hand: the graph of DVC would draw the pairs again."""
    twins = [train(120, query="query 900"), train(121, query="query 910")]
    examples = [*evaluated(), *evaluated(910), *(train(n) for n in range(100, 120)), *twins]
    params = drawn(examples, PRODUCTS, changes={"sample.queries": 1})
    model, files = layout.model("encoder", NAME), layout.pairs(NAME)
    model.folder.mkdir(parents=True)

    def learn() -> None:
        learned = {side: sha256_file(files.side(side)) for side in ("train", "dev")}
        model.card.write_text(json.dumps({"pairs": learned}))

    learn()
    for locale in LOCALES:
        refuse_other_pairs(params, NAME, locale)
    whole = artefacts.params({
        "sample.source": "source", "training.source": "source", f"trained.{NAME}.locales": ["us"],
        "sample.queries": "all",
    })  # fmt: skip
    sample(whole)
    for locale in LOCALES:
        clean(whole, locale)
    refuse_other_pairs(whole, "minilm", "us")  # it was not trained
    said = (
        rf"{files.card}: evaluated must be \w+ \(found \w+\): {NAME} was kept apart from other "
        rf"queries of us than are evaluated now. Run `dvc repro models/dvc.yaml:train@{NAME}`"
    )
    with pytest.raises(PipelineError, match=said):
        refuse_other_pairs(whole, NAME, "us")
    pairs(whole, NAME)
    with pytest.raises(PipelineError, match=r": the model learned from other pairs\. Run"):
        refuse_other_pairs(whole, NAME, "us")
    learn()
    refuse_other_pairs(whole, NAME, "us")
    training = whole.training.model_copy(update={"dev_share": 0.5})
    other = whole.model_copy(update={"training": training})
    with pytest.raises(PipelineError, match=r"dev_share must be 0\.5 \(found 0\.2\): the pairs"):
        refuse_other_pairs(other, NAME, "us")
    shutil.rmtree(files.folder)  # as where another machine trained
    refuse_other_pairs(other, NAME, "us")


def test_a_query_stays_on_its_side_when_others_come_and_equal_texts_are_on_one_side() -> None:
    def table(rows: dict[int, str]) -> Any:
        return tables.QUERIES.empty_table().from_pydict(
            {"query_id": list(rows), "text": list(rows.values())}
        )

    few = {number: f"text {number}" for number in range(0, 400, 2)}
    many = {number: f"text {number}" for number in range(400)}
    side = draw_dev({"us": table(few)}, 0.25, 1)["us"]
    assert side == draw_dev({"us": table(many)}, 0.25, 1)["us"] & few.keys()
    assert 0.15 < len(side) / len(few) < 0.35
    assert side != draw_dev({"us": table(few)}, 0.25, 2)["us"]
    same = {number: f"TEXT {number % 20}" for number in range(1_000, 1_400)}
    both = draw_dev({"us": table(many), "es": table({**same, 2_000: "other"})}, 0.25, 1)
    chosen = {many[number].casefold() for number in both["us"]}
    for number, text in same.items():
        assert (number in both["es"]) == (text.casefold() in chosen)


REFUSED: list[tuple[list[Row], Row, str]] = [
    ([train(n, "S") for n in range(50)], {}, "no product of the train queries is labelled E"),
    ([train(1), train(2)], {"training.dev_share": 0.01}, "no product of the dev queries is"),
    ([train(1), train(2)], {"training.dev_share": 0.99}, "no product of the train queries is"),
    ([], {}, r"=small and the split train .rows before: .* Use another training\.version"),
    ([train(1, query="query 900")], {}, "none of the 1 train queries of us can be lea"),
    ([train(1, query=None)], {}, "none of the 1 train queries of us can be lea"),
    ([example(1, 1, "GONE", split="train")], {}, "none of the 1 products judged for"),
    ([train(1)], {"training.source": "nowhere"}, "training.source must be a folder with"),
    ([train(1)], {f"trained.{NAME}.locales": ["us", "de"]}, "never holds 'de'"),
    ([train(1), {**train(1), "example_id": 2, "esci_label": "S"}], {}, "must have one label"),
    ([{**train(1), "esci_label": None}], {}, "column esci_label holds 1 null"),
    ([train(1)], {"training.source": "unlabelled"}, r"column esci_label is missing.*`training\.co"),
    ([{**train(1), "esci_label": "X"}], {}, "column esci_label holds 'X'"),
]


def test_products_without_text_are_told_by_the_file_of_the_source(drawn: Draw) -> None:
    silent = {**product("Z", "us"), **dict.fromkeys(TEXTS)}
    learned = example(1, 1, "Z", split="train")
    with pytest.raises(PipelineError, match="none of its 1 products has any text") as caught:
        drawn([*evaluated(), learned], [*PRODUCTS, silent])
    assert f"{layout.PRODUCTS_FILE}: none" in str(caught.value)
    assert ".partial" not in str(caught.value)


def test_what_cannot_be_learned_from_is_refused_and_the_pairs_stay(drawn: Draw) -> None:
    drawn([*evaluated(), *(train(number) for number in range(100, 120))], PRODUCTS)
    labels = Path(shutil.copytree("source", "unlabelled")) / EXAMPLES_FILE
    pq.write_table(pq.read_table(labels).drop_columns("esci_label"), labels)
    before = {path: path.read_bytes() for path in layout.pairs(NAME).folder.iterdir()}
    for learned, changes, told in REFUSED:
        with pytest.raises(PipelineError, match=told):
            drawn([*evaluated(), *learned], PRODUCTS, changes=changes)
        assert before == {path: path.read_bytes() for path in layout.pairs(NAME).folder.iterdir()}
        assert [path.name for path in layout.PAIRS.iterdir()] == [NAME]


def test_a_train_split_that_is_evaluated_is_refused_before_any_work() -> None:
    both = {"sample.splits": ["train", "test"]}
    artefacts.params(both)  # nothing is trained
    with pytest.raises(PipelineError, match=r"sample.splits: train is evaluated, and trained.mini"):
        artefacts.params({**both, "encoder.us": NAME})


@pytest.mark.slow
def test_a_name_that_params_yaml_lacks_is_one_message(run_stage: RunStage) -> None:
    done = run_stage("pairs", "--name", "minilm-dem")
    assert done.returncode == 1
    assert done.stderr == (
        "error in pairs: --name minilm-dem: params.yaml has no such model under trained (it has: "
        "minilm-demo, reranker-demo); did you mean 'minilm-demo'?\n"
    )


def test_the_files_hold_no_more_than_their_schema(drawn: Draw) -> None:
    drawn([*evaluated(), *(train(number) for number in range(100, 120))], PRODUCTS)
    for side in ("train", "dev"):
        assert pq.read_schema(layout.pairs(NAME).side(side)).equals(tables.PAIRS)
    assert {path.name for path in layout.pairs(NAME).folder.iterdir()} == {
        "train.parquet", "dev.parquet", "counts.json", "card.json",
    }  # fmt: skip
