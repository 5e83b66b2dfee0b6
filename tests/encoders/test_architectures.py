"""Architectures of all kinds: the vectors of sentence-transformers, or one message."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pipeline.core.errors import PipelineError
from pipeline.encoders.distances import cosine_distance
from pipeline.encoders.loading import load_on, resolve_engine
from tests.helpers.tiny_models import (
    Family,
    build_model,
    changed_json,
    changed_tensors,
    edit_json,
    encoder_of,
    entry,
    runtime,
    weights_of,
)

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

TEXTS = ["tv", "red shoe", "x" * 14, "zapatillas de running para mujer", "水筒", "kettle " * 12]


# The engine that each runs on if none is asked for. test_padding has those that cannot be padded.
ENGINES: dict[Family, str] = {
    "big_bird": "torch-cpu",
    "deberta-v2": "openvino-cpu",
    "longformer": "torch-cpu",
    "mpnet": "openvino-cpu",
    "t5": "openvino-cpu",
    "xlm-roberta": "openvino-cpu",
    "xlnet": "openvino-cpu",
}
MORE = ("big_bird", "deberta-v2", "xlm-roberta", "xlnet")
"""Further ones of those that openvino takes, and that it does not."""


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(family, marks=pytest.mark.thorough) if family in MORE else family
        for family in ENGINES
    ],
)
def test_an_architecture_gives_the_vectors_that_each_text_has_alone(
    tmp_path: Path, family: Family
) -> None:
    folder = build_model(tmp_path / "model", family=family, layers=1)
    reference = SentenceTransformer(str(folder), device="cpu")
    alone = np.stack([reference.encode([text])[0] for text in TEXTS])
    spec, weights = entry(folder), weights_of(folder)
    choice = resolve_engine(spec, weights, runtime("auto"))
    assert (str(choice), choice.pads) == (ENGINES[family], True)
    found = load_on(choice, spec, weights, 1).encode_passages(TEXTS)
    assert cosine_distance(found, alone).max() < 1e-9


def _relative(tensors: dict[str, np.ndarray]) -> None:
    for layer in range(2):
        name = f"encoder.layer.{layer}.attention.self.distance_embedding.weight"
        tensors[name] = np.ones((255, 16), np.float32)


def _embeddings(rows: int) -> Callable[[Path], None]:
    """Cut the table of embeddings to so many rows, or fill it up with rows of ones."""

    def change(tensors: dict[str, np.ndarray]) -> None:
        name = "embeddings.word_embeddings.weight"
        found = tensors[name]
        more = np.ones((max(0, rows - len(found)), found.shape[1]), found.dtype)
        tensors[name] = np.concatenate([found, more])[:rows]

    def spoil(folder: Path) -> None:
        changed_tensors(change)(folder)
        edit_json(folder / "config.json", vocab_size=rows)

    return spoil


def _narrow_dense(folder: Path) -> None:
    edit_json(folder / "2_Dense/config.json", in_features=16)
    name = "linear.weight"
    changed_tensors(lambda all_: all_.update({name: all_[name][:, :16].copy()}), "2_Dense")(folder)


def _one_token_more(folder: Path) -> None:
    data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    data["added_tokens"].append(data["added_tokens"][0] | {"id": 900, "content": "<new>"})
    data["model"]["vocab"]["<new>"] = 900
    (folder / "tokenizer.json").write_text(json.dumps(data), encoding="utf-8")


_DENSE = "2_Dense/config.json"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "code for the model": (
        changed_json(auto_map={"AutoModel": "some/code--modeling.Mine"}),
        r"config\.json: auto_map asks for code of the model's own .found 'some/code--modeling",
    ),
    "code for its settings": (
        changed_json(auto_map={"AutoConfig": "configuration.Mine"}), "auto_map asks for code",
    ),
    "code for the tokenizer": (
        changed_json("tokenizer_config.json", auto_map={"AutoTokenizer": [None, "tokens.Mine"]}),
        r"tokenizer_config\.json: auto_map asks for code",
    ),
    "fewer embeddings than tokens": (_embeddings(200), "token ids up to 260, .* for 200 only"),
    "far more embeddings than tokens": (
        _embeddings(1500), "token ids up to 260 only, but the model has embeddings for 1500. Copy",
    ),
    "a token id beyond the embeddings": (_one_token_more, "token ids up to 900, .* for 261 only"),
    "a dense layer that does not fit": (
        _narrow_dense, r"pooling: model gives 32 components, but the model's Dense takes 16",
    ),
    "an activation of another library": (
        changed_json(_DENSE, activation_function="some.library.Swish"),
        r"activation_function must be a class of torch\.nn .found 'some\.library\.Swish'",
    ),
    "an activation that torch lacks": (
        changed_json(_DENSE, activation_function="torch.nn.modules.activation.Nothing"),
        "cannot be loaded: .*Nothing",
    ),
    "a dense setting of another release": (
        changed_json(_DENSE, scale=2), "scale .*has no effect here",
    ),
    "a dense layer without its bias": (
        changed_tensors(lambda all_: all_.pop("linear.bias"), "2_Dense"),
        "cannot be loaded: .*linear.bias",
    ),
    "a layer that is lacking": (
        changed_json(num_hidden_layers=3),
        "lacks 16 of the model's weights, such as encoder.layer.2",
    ),
    "a layer too many": (
        changed_json(num_hidden_layers=1),
        "BertModel has no place for .16, such as encoder.layer.1",
    ),
    # transformers 5 computes such models without them.
    "relative positions": (
        changed_tensors(_relative), "no place for .2, such as .*distance_embedding",
    ),
    "fewer positions than weights": (
        changed_json(max_position_embeddings=64),
        r"position_embeddings.weight must have the shape \[64, 32\], by config.json .found \[128",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_model_that_does_not_fit_together_is_one_message(tmp_path: Path, kind: str) -> None:
    folder = build_model(tmp_path / "model", dense=8)
    spoil, message = WRONG[kind]
    spoil(folder)
    with pytest.raises(PipelineError, match=message) as err:
        encoder_of(folder)
    assert "\n" not in str(err.value)


def test_embeddings_that_fill_up_a_table_change_no_vector(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    expected = encoder_of(folder).encode_passages(TEXTS)
    _embeddings(261 + 1024)(folder)
    np.testing.assert_array_equal(encoder_of(folder).encode_passages(TEXTS), expected)


def test_weights_of_half_precision_are_computed_in_float32(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    changed_tensors(lambda all_: all_.update({k: v.astype(np.float16) for k, v in all_.items()}))(
        folder
    )
    whole = build_model(tmp_path / "whole")
    changed_tensors(
        lambda all_: all_.update(
            {k: v.astype(np.float16).astype(np.float32) for k, v in all_.items()}
        )
    )(whole)
    edit_json(folder / "config.json", dtype="float16")
    assert encoder_of(folder).encode_passages(TEXTS).tobytes() == (
        encoder_of(whole).encode_passages(TEXTS).tobytes()
    )


def test_heads_of_other_tasks_and_old_buffers_change_nothing(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    expected = encoder_of(folder).encode_passages(TEXTS)

    def dress(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            tensors[f"bert.{name}"] = tensors.pop(name)
        tensors["cls.predictions.bias"] = np.ones(5, np.float32)
        tensors["bert.embeddings.position_ids"] = np.arange(128)[None]
        del tensors["bert.pooler.dense.bias"]

    changed_tensors(dress)(folder)
    assert encoder_of(folder).encode_passages(TEXTS).tobytes() == expected.tobytes()


def test_no_text_may_be_longer_than_the_positions(tmp_path: Path) -> None:
    # BigBird's sparse attention begins beyond 704 tokens, and depends on the texts before.
    cases: tuple[tuple[Family, int, int], ...] = (
        ("roberta", 128, 128), ("mpnet", 128, 128), ("big_bird", 1024, 704),
    )  # fmt: skip
    for family, positions, longest in cases:
        folder = build_model(tmp_path / family, family=family, layers=1, max_positions=positions)
        with pytest.raises(PipelineError, match=f"{longest + 1} is more than the {longest} tokens"):
            encoder_of(folder, max_tokens=longest + 1)
        assert encoder_of(folder, max_tokens=longest).encode_passages(["x" * 2000]).shape == (1, 32)
    unbounded = build_model(tmp_path / "xlnet", family="xlnet", layers=1)
    assert encoder_of(unbounded, max_tokens=300).encode_passages(["x" * 290]).shape == (1, 32)
