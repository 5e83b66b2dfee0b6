"""JinaBERT runs without foreign code, and equals a plain reading of its papers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.core.errors import PipelineError
from pipeline.encoders.distances import cosine_distance
from pipeline.encoders.identity import identity
from pipeline.encoders.loading import resolve_engine
from pipeline.encoders.model import load_model
from pipeline.encoders.model_check import check_folder
from tests.helpers.tiny_jina import build_jina, jina_by_hand
from tests.helpers.tiny_models import (
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

# Of many lengths, so that batches hold padding.
TEXTS = ["tv", "red shoe for the running", "x", "algodon " * 40, "", "camiseta 100%", "?" * 9]
ENGINES = ("torch", "openvino")


def normed(vectors: np.ndarray) -> np.ndarray:
    result: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return result


FORMS: dict[str, dict[str, Any]] = {
    "as published, but smaller": {"heads": 8, "hidden": 64, "dtype": "float16"},
    "heads that are no power of two": {"heads": 6, "hidden": 48},
    "other names, no modules.json": {"prefix": "bert.", "pooler": False, "pooling": None},
}


@pytest.mark.parametrize("form", FORMS)
def test_both_engines_compute_what_the_papers_say(tmp_path: Path, form: str) -> None:
    folder = build_jina(tmp_path / "model", **FORMS[form])
    expected = normed(jina_by_hand(folder, TEXTS, max_tokens=128))
    for engine in ENGINES:
        encoder = encoder_of(folder, engine=engine, pooling="mean")
        found = encoder.encode_passages(TEXTS)
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=engine)
        again = encoder.encode_passages(TEXTS[1:2])
        assert again.tobytes() == found[1:2].tobytes()
    spec, weights = entry(folder, pooling="mean"), weights_of(folder, pooling="mean")
    choice = resolve_engine(spec, weights, runtime("auto"))
    assert (str(choice), choice.pads) == ("openvino-cpu", True)


def test_texts_far_beyond_512_tokens_are_read_whole_and_8192_at_most(tmp_path: Path) -> None:
    folder = build_jina(tmp_path / "model", hidden=8, heads=2, layers=1)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdef"), 2000)), "tv"]
    expected = jina_by_hand(folder, texts)
    for engine in ENGINES:
        encoder = encoder_of(folder, engine=engine, max_tokens=8192)
        distance = cosine_distance(encoder.encode_passages(texts), normed(expected))
        assert distance.max() < 1e-9, engine
    with pytest.raises(PipelineError, match="8193 is more than the 8192 tokens that the model"):
        encoder_of(folder, max_tokens=8193)


def test_no_code_of_the_model_runs(tmp_path: Path) -> None:
    folder = build_jina(tmp_path / "model")
    ran = tmp_path / "ran"
    for name in ("modeling_bert", "configuration_bert"):
        (folder / f"{name}.py").write_text(f"open({str(ran)!r}, 'w')\n", encoding="utf-8")
    loaded = load_model(entry(folder), weights_of(folder))
    assert type(loaded.modules[0].auto_model).__module__ == "pipeline.encoders.jina_bert"
    assert not ran.exists()


def test_an_entry_that_lets_its_code_run_is_refused_because_none_is_needed(tmp_path: Path) -> None:
    code = {"revision": "0" * 40, "remote_code": True, "code_revision": "0" * 40}
    spec = entry(tmp_path, weights={"kind": "hub", "model": "some/model", **code})
    folder = build_jina(tmp_path / "model")
    # As the hub's folder is once its code was joined to it.
    edit_json(folder / "config.json", auto_map={"AutoModel": "modeling_bert.JinaBertModel"})
    with pytest.raises(PipelineError, match="Remove remote_code and code_revision"):
        check_folder(folder, spec, "encoders.tiny.weights")


def test_another_form_of_the_built_in_class_shares_nothing_that_was_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    jina, bert = build_jina(tmp_path / "jina"), build_model(tmp_path / "bert")

    def keys(folder: Path) -> tuple[object, set[str]]:
        spec, weights = entry(folder), weights_of(folder)
        choice = resolve_engine(spec, weights, runtime("openvino"))
        engines = {path.name for path in (tmp_path / "cache/engines").glob("[!.]*")}
        return identity(spec, weights, choice, "query"), engines

    before = {folder: keys(folder) for folder in (jina, bert)}
    monkeypatch.setattr("pipeline.encoders.model.JINA_FORM", 2)
    (about, engines), same = keys(jina), keys(bert)
    assert about != before[jina][0]
    assert len(engines - before[bert][1]) == 2  # what was converted, and what is known of padding
    assert same[0] == before[bert][0]
    assert same[1] == engines


def test_what_sentence_transformers_saves_of_it_is_read_again(tmp_path: Path) -> None:
    folder = build_jina(tmp_path / "model")
    load_model(entry(folder), weights_of(folder)).modules.save(str(tmp_path / "saved"))
    found = encoder_of(tmp_path / "saved").encode_passages(TEXTS)
    assert found.tobytes() == encoder_of(folder).encode_passages(TEXTS).tobytes()


_LAYER = "encoder.layer.1.attention.self"
WRONG: dict[str, tuple[Callable[[Path], None], str]] = {
    "another gate": (changed_json(feed_forward_type="reglu"), "must be geglu .found .reglu"),
    "no gate": (changed_json(feed_forward_type="original"), "must be geglu .found .original"),
    "a gate that is not named": (changed_json(feed_forward_type=None), "must be geglu .found None"),
    "another activation": (changed_json(hidden_act="relu"), "hidden_act .* must be gelu"),
    "heads that do not fit": (
        changed_json(num_attention_heads=5),
        "multiple of num_attention_heads",
    ),
    "normalised queries": (
        changed_json(
            auto_map={"AutoModel": "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel"}
        ),
        "auto_map asks for code of the model's own .found .jinaai/jina-bert-v2-qk-post-norm",
    ),
    "a tokenizer of its own": (
        changed_json(
            auto_map={
                "AutoModel": "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
                "AutoTokenizer": ["tokens.Own", None],
            }
        ),
        "auto_map asks for code of the model's own .found .jinaai/jina-bert-implementation",
    ),
    "the third version": (
        changed_json(
            model_type="xlm-roberta",
            auto_map={"AutoModel": "jinaai/xlm-roberta-flash-implementation--x.XLMRobertaLoRA"},
        ),
        "auto_map asks for code of the model's own",
    ),
    "tensors of normalised queries": (
        changed_tensors(lambda all_: all_.update({f"{_LAYER}.layer_norm_q.weight": np.ones(32)})),
        "JinaBertModel has no place for .1, such as .*layer_norm_q",
    ),
    "a tensor that is lacking": (
        changed_tensors(lambda all_: all_.pop(f"{_LAYER}.key.bias")),
        "lacks 1 of the model's weights, such as encoder.layer.1.attention.self.key.bias",
    ),
    "a tensor of another shape": (
        changed_tensors(lambda all_: all_.update({f"{_LAYER}.key.bias": np.ones(31, np.float32)})),
        r"key.bias must have the shape \[32\], by config.json .found \[31\]",
    ),
}


@pytest.mark.parametrize("kind", WRONG)
def test_another_model_than_the_one_built_in_is_one_message(tmp_path: Path, kind: str) -> None:
    folder = build_jina(tmp_path / "model")
    spoil, message = WRONG[kind]
    spoil(folder)
    with pytest.raises(PipelineError, match=message) as err:
        encoder_of(folder)
    assert "\n" not in str(err.value)
