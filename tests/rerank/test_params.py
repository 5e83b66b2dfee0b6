"""A reranker that cannot be used is told with its key before any work."""

from typing import Any

import pytest

from pipeline.core.errors import PipelineError
from pipeline.core.systems import SYSTEMS
from tests.helpers.artefacts import params

ON = {"rerank.es": "mmarco-minilm"}
FOUR = {"rerankers.mmarco-minilm.labels": 4}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rerank.es": "mmarco-minilmm"}, r"rerank\.es: .* did you mean 'mmarco-minilm'"),
        ({"rerank.es": "minilm-demo"}, r"rerank\.es: 'minilm-demo' is not defined under rerankers"),
        ({"reranking.depth": 0}, r"reranking\.depth: must be greater than or equal to 1"),
        (ON | {"reranking.depth": 1001}, r"reranking\.depth: 1001 is more than retrieve\.depth"),
        ({"reranking.weight": 0.0}, r"reranking\.weight: must be greater than 0"),
        ({"reranking.run": "rerank"}, r"reranking\.run: .*'dense', 'bm25' or 'hybrid'"),
        (FOUR, r"gains: must be empty .* and 4 numbers, for E, S, C and I, .* \(found None for 4"),
        ({"rerankers.mmarco-minilm.gains": [1, 1, 1, 1]}, r"gains: must be empty for a model of 1"),
        (
            FOUR | {"rerankers.mmarco-minilm.gains": [1e39, 0.1, 0.01, 0.0]},
            r"gains\.0: must be less than or equal to 1000000",
        ),
        (FOUR | {"rerankers.mmarco-minilm.gains": [1.0]}, r"rerankers\.mmarco-minilm\.gains: "),
        ({"rerankers.mmarco-minilm.labels": 3}, r"rerankers\.mmarco-minilm\.labels: "),
        ({"rerankers.mmarco-minilm.zzzz": 3}, r"rerankers\.mmarco-minilm\.zzzz: unknown key"),
        ({"rerankers.mmarco-minilm.activation": "sigmoid"}, r"activation: .*'identity'"),
        (
            ON | {"clean.fields": ["product_title"],
                  "rerankers.mmarco-minilm.fields": ["product_brand"]},
            r"fields: product_brand is not under clean\.fields \(it has: product_title\)",
        ),
        (
            ON | {"rerankers.mmarco-minilm.weights.revision": None},
            r"rerankers\.mmarco-minilm\.weights\.revision: must not be empty",
        ),
        (
            ON | {"rerankers.mmarco-minilm.precision": "int8", "runtime.engine": "torch"},
            r"rerankers\.mmarco-minilm\.precision: int8 needs the engine openvino",
        ),
        ({"rerankers.mine": None}, r"rerankers\.mine: must not be empty"),
        ({"rerankers.none": 5}, r"rerankers\.none: "),
        (
            {"trained.mmarco-minilm": None},
            r"trained\.mmarco-minilm: ",
        ),
        ({"compare.metrics": ["rerank.ndcg@10"]}, r"'rerank\.ndcg@10' is not kept"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be_obeyed_is_one_message(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(PipelineError, match=told):
        params(changes)


def test_a_locale_has_the_system_when_it_names_a_reranker() -> None:
    given = params(ON)
    assert given.systems_of("es") == SYSTEMS
    assert given.systems_of("us") == SYSTEMS[:-1]
    every = {f"rerank.{locale}": "mmarco-minilm" for locale in given.locales}
    assert params(every | {"compare.metrics": ["rerank.ndcg@10"]})


def test_a_trained_reranker_has_four_labels_and_its_own_folder() -> None:
    spec = params({"rerank.us": "reranker-demo"}).reranker_of("us")
    assert spec is not None
    assert spec.weights.kind == "folder"
    assert "models/reranker/reranker-demo" in spec.weights.path
    assert (spec.labels, spec.fields, spec.max_tokens) == (4, "all", 64)
    assert spec.languages == params().encoders["minilm"].languages
