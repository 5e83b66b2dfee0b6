"""Entries under `trained`: what they mean to a locale, and what is refused before any work."""

from typing import Any

import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.params import FolderWeights
from pipeline.core.params_file import check_params
from pipeline.core.trained import TrainedEncoder
from tests.helpers.artefacts import params, shipped

NAME, KEY = "minilm-demo", "trained.minilm-demo"
FOLDER = {"kind": "folder", "path": "here"}  # without its hash
TAUGHT = {f"{KEY}.loss": "distill-kl-div", f"{KEY}.teacher": "msmarco-minilm"}


def entries(**changed: dict[str, Any]) -> dict[str, Any]:
    """Return changes of params.yaml: more entries, each the shipped one with some keys changed."""
    shipped_one = shipped()["trained"][NAME]
    more = {name.replace("_", "-"): shipped_one | keys for name, keys in changed.items()}
    return {"trained": {NAME: shipped_one, **more}}


def refusals(changes: dict[str, Any]) -> list[str]:
    with pytest.raises(PipelineError) as caught:
        params(changes)
    first, *rest = str(caught.value).splitlines()
    assert first == "params.yaml:"
    return [line.strip() for line in rest]


def test_a_trained_encoder_has_the_contract_of_its_base_and_weights_of_its_own() -> None:
    found = params({"encoder.us": NAME})
    base, own = found.encoders["minilm"], found.encoder_of("us")
    assert own.weights == FolderWeights(kind="folder", path=f"models/encoder/{NAME}/model")
    assert own.model_copy(update={"weights": base.weights}) == base


def test_dimension_and_precision_replace_the_bases_and_a_chain_hands_them_on() -> None:
    changes = entries(
        first={"base": "e5-small-q4", "dimension": 64},
        second={"base": "first", "precision": "int8"},
    )
    second = params({**changes, "encoder.us": "second"}).encoder_of("us")
    assert (second.dimension, second.precision, second.query_prefix) == (64, "int8", "query: ")
    assert second.weights == FolderWeights(kind="folder", path="models/encoder/second/model")


def test_what_is_trained_for_a_choice_is_that_choice_and_its_bases_first() -> None:
    found = params(entries(first={}, second={"base": "first"}, third={"base": "second"}))
    assert found.trained_for(found.encoder.values()) == ()
    assert found.trained_for(["second", "labse", "third"]) == ("first", "second", "third")


def test_a_locale_may_choose_no_reranker_as_its_encoder() -> None:
    schedule = (
        "base",
        "teacher",
        "locales",
        "epochs",
        "batch",
        "lr",
        "warm_up",
        "max_tokens",
        "seed",
        "threads",
    )
    kept = {key: shipped()["trained"][NAME][key] for key in schedule}
    changes = {"trained": {"judge": {"kind": "reranker", **kept}}, "encoder.us": "judge"}
    (told,) = refusals(changes)
    assert told.startswith("encoder.us: 'judge' is not defined under encoders")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({f"{KEY}.base": "minlm"}, f"{KEY}.base: 'minlm' is no encoder under encoders or trained"),
        ({f"{KEY}.base": NAME}, f"{KEY}.base: it would be trained from itself (found {NAME} from"),
        ({f"{KEY}.batch": 1}, f"{KEY}.batch: must be greater than or equal to 2 (found 1)"),
        ({f"{KEY}.threads": 0}, f"{KEY}.threads: must be greater than or equal to 1 (found 0)"),
        ({f"{KEY}.threads": 4097}, f"{KEY}.threads: must be less than or equal to 4096 (found"),
        ({f"{KEY}.lr": 0.0}, f"{KEY}.lr: must be greater than 0 (found 0.0)"),
        ({f"{KEY}.lr": "fast"}, f"{KEY}.lr: must be a valid number (found 'fast')"),
        ({f"{KEY}.warm_up": 1.5}, f"{KEY}.warm_up: must be less than or equal to 1 (found 1.5)"),
        ({f"{KEY}.positives": []}, f"{KEY}.positives: must not be empty (found [])"),
        ({f"{KEY}.positives": ["X"]}, f"{KEY}.positives.0: must be 'E', 'S', 'C' or 'I'"),
        ({f"{KEY}.positives": ["E", "S"]}, f"{KEY}.negatives: S is among positives too"),
        ({f"{KEY}.locales": []}, f"{KEY}.locales: must not be empty (found [])"),
        ({f"{KEY}.kind": "enkoder"}, f"{KEY}.kind: 'enkoder' is not one of encoder, reranker"),
        ({f"{KEY}.loss": "tripet"}, f"{KEY}.loss: must be 'mnrl', 'cosine', 'contrastive'"),
        ({f"{KEY}.margin": 0.2}, f"{KEY}.margin: has no effect with the loss mnrl; it is for con"),
        ({f"{KEY}.scale": 0.0}, f"{KEY}.scale: must be greater than 0 (found 0.0)"),
        ({f"{KEY}.scale": 1e39}, f"{KEY}.scale: must be less than or equal to 1000 (found 1e+39)"),
        ({f"{KEY}.positives_per_query": 0},
         f"{KEY}.positives_per_query: must be greater than or equal to 1 (found 0)"),
        ({f"{KEY}.positives_per_query": 2, f"{KEY}.loss": "cosine"},
         f"{KEY}.positives_per_query: has no effect with the loss cosine; it is for mnrl, triplet"),
        ({f"{KEY}.tuned_share": 0}, f"{KEY}.tuned_share: must be greater than 0 (found 0)"),
        ({f"{KEY}.tuned_share": -1}, f"{KEY}.tuned_share: must be greater than 0 (found -1)"),
        ({f"{KEY}.tuned_share": 1.5},
         f"{KEY}.tuned_share: must be less than or equal to 1 (found 1.5)"),
        ({f"{KEY}.tuned_share": float("nan")}, f"{KEY}.tuned_share: must be a finite number"),
        ({"trained.reranker-demo.tuned_share": 0.5},
         "trained.reranker-demo.tuned_share: unknown key"),
        ({f"{KEY}.margn": 0.2}, f"{KEY}.margn: unknown key; did you mean 'margin'?"),
        ({f"{KEY}.loss": "triplet", f"{KEY}.negatives": []}, f"{KEY}.negatives: must not be empty"),
        ({f"{KEY}.mined": {"count": 3}, f"{KEY}.negatives": [], f"{KEY}.hard_negatives": 0},
         f"{KEY}.mined: has no effect with the loss mnrl and hard_negatives 0"),
        ({f"{KEY}.hard_negatives": 0},
         f"{KEY}.negatives: has no effect with the loss mnrl and hard_negatives 0 (found S, C, I)"),
        ({f"{KEY}.negatives": [], f"{KEY}.hard_negatives": 3},
         f"{KEY}.hard_negatives: has no effect with the loss mnrl without negatives or mined (fou"),
        ({f"{KEY}.loss": "cosine", f"{KEY}.hard_negatives": 5},
         f"{KEY}.hard_negatives: has no effect with the loss cosine; it is for mnrl, triplet, di"),
        ({f"{KEY}.loss": "contrastive", f"{KEY}.hard_negatives": 0},
         f"{KEY}.hard_negatives: has no effect with the loss contrastive; it is for mnrl, tripl"),
        ({f"{KEY}.mined": {"count": 9, "first": 2, "last": 9}, f"{KEY}.hard_negatives": 1},
         f"{KEY}.mined.count: 9 is more than the places 2 to 9 have"),
        ({f"{KEY}.mined": {"count": 1, "first": 150}, f"{KEY}.hard_negatives": 1},
         f"{KEY}.mined.first: 150 is after mined.last, 100"),
        ({f"{KEY}.mined": {"count": 0}, f"{KEY}.hard_negatives": 1},
         f"{KEY}.mined.count: must be greater than or equal to 1 (found 0)"),
        ({**TAUGHT, f"{KEY}.teacher": "mmarco"},
         f"{KEY}.teacher: 'mmarco' is no reranker under rerankers or trained (defined: none, mmar"),
        ({**TAUGHT, f"{KEY}.teacher": NAME}, f"{KEY}.teacher: '{NAME}' is no reranker under "),
        ({f"{KEY}.teacher": "msmarco-minilm"},
         f"{KEY}.teacher: has no effect with the loss mnrl; it is for distill-kl-div (found msma"),
        ({"trained.reranker-demo.teacher": "msmarco-minilm"},
         "trained.reranker-demo.teacher: has no effect with a reranker, which learns from labels"),
        ({f"{KEY}.loss": "distill-kl-div"}, f"{KEY}.teacher: must be a reranker (found none)"),
        ({**TAUGHT, f"{KEY}.hard_negatives": 0}, f"{KEY}.hard_negatives: must be 1 or more (found"),
        ({**TAUGHT, f"{KEY}.negatives": []}, f"{KEY}.negatives: must not be empty"),
        ({**TAUGHT, f"{KEY}.locales": ["us", "es"]},
         f"{KEY}.teacher: msmarco-minilm does not speak es, the language of the locale es"),
        ({**TAUGHT, "rerankers.msmarco-minilm.fields": ["product_title"]},
         f"{KEY}.teacher: msmarco-minilm reads some fields (found product_title), and pairs"),
        ({**TAUGHT, "encoder.us": NAME, "rerankers.msmarco-minilm.weights.revision": None},
         "rerankers.msmarco-minilm.weights.revision: must not be empty"),
        ({**TAUGHT, "encoder.us": NAME, "rerankers.msmarco-minilm.weights": FOLDER},
         "rerankers.msmarco-minilm.weights.sha256: must not be empty, since a model in use learns"),
        ({"encoder.us": NAME, "encoders.minilm.weights": FOLDER},
         "encoders.minilm.weights.sha256: must not be empty, since a model in use learns from it"),
        ({**TAUGHT, f"{KEY}.positives": ["E", "S", "C", "I"], f"{KEY}.negatives": [],
          f"{KEY}.mined": {"count": 3}},
         f"{KEY}.positives: must leave out a label"),
        ({"trained.labse": shipped()["trained"][NAME]}, "trained.labse: encoders has this name t"),
        ({"training.dev_share": 1.0}, "training.dev_share: must be less than 1 (found 1.0)"),
        ({"training.version": "tiny"}, "training.version: must be 'small', 'large' or 'all'"),
        ({f"{KEY}.precision": "float16", "encoder.us": NAME, "runtime.engine": "openvino"},
         f"{KEY}.precision: float16 needs the engine torch"),
        ({f"{KEY}.base": "quora-distilbert-multilingual", "encoder.us": NAME},
         "encoders.quora-distilbert-multilingual.weights.revision: must not be empty"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_key(changes: dict[str, Any], told: str) -> None:
    found = refusals(changes)
    assert len(found) == 1, found
    assert found[0].startswith(told)


@pytest.mark.parametrize(
    ("changes", "drawn"),
    [
        ({}, 1),
        ({"negatives": []}, 0),
        ({"negatives": [], "hard_negatives": 0}, 0),
        ({"negatives": [], "mined": {"count": 3}}, 1),
        ({"hard_negatives": 3}, 3),
        ({"loss": "triplet"}, 1),
        ({"loss": "cosine"}, 0),
    ],
)
def test_a_hard_negative_is_drawn_by_default_where_the_loss_draws_any_and_there_are_some(
    changes: dict[str, Any], drawn: int
) -> None:
    trained = params({f"{KEY}.{key}": value for key, value in changes.items()}).trained[NAME]
    assert isinstance(trained, TrainedEncoder)
    assert trained.drawn_negatives() == drawn


def test_a_circle_of_bases_is_refused_for_each_entry_in_it() -> None:
    found = refusals({**entries(a={"base": "b"}, b={"base": "a"}), "encoder.us": "a"})
    assert found == [
        "trained.a.base: it would be trained from itself (found a from b from a). Name an entry of "
        "encoders.",
        "trained.b.base: it would be trained from itself (found b from a from b). Name an entry of "
        "encoders.",
    ]


def test_a_teacher_is_what_its_model_needs_and_may_not_need_it() -> None:
    judge = shipped()["trained"]["reranker-demo"]
    student = {"loss": "distill-kl-div", "teacher": "judge"}
    changes = entries(first={}, student={"base": "first", **student})
    changes["trained"]["judge"] = judge | {"base": "first"}
    assert params(changes).trained_for(["student"]) == ("first", "judge", "student")
    changes["trained"]["judge"] = judge | {"base": "student"}
    assert refusals(changes) == [
        "trained.student.teacher: it would be trained from itself (found student from judge from "
        "student). Name an entry of rerankers.",
        "trained.judge.base: it would be trained from itself (found judge from student from judge)"
        ". Name an entry of encoders.",
    ]


def test_nothing_has_to_be_trained() -> None:
    assert params({"trained": {}}).encoder_names() == tuple(shipped()["encoders"])
    with pytest.raises(PipelineError, match="trained: must be an object"):
        check_params({**shipped(), "trained": None}, "params.yaml")
