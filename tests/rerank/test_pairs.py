"""Scores of pairs are those of sentence-transformers, and of the pair alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder

from pipeline.core.cpu import bfloat16_instructions
from pipeline.core.errors import PipelineError
from pipeline.core.tables import LABELS
from pipeline.encoders.encoder import Encoded
from pipeline.encoders.pairs import PairScorer, load_scorer, probabilities, scores_of
from tests.helpers.tiny_models import Family, build_model, edit_json, runtime
from tests.helpers.tiny_rerankers import LONGEST, build_reranker, reranker, reranker_weights

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_cache")]  # models are loaded

PAIRS = [
    ("zapatillas", "rojas " * n) for n in range(0, 40, 3)
] + [
    ("", "sin consulta"), ("sin producto", ""), ("", ""), ("水筒", "ステンレス 水筒 500ml 🎁"),
    ("larga " * 30, "corto"), ("larga " * 30, "larga " * 30), ("[SEP] raro", "a [SEP] b"),
]  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rerankers")


def scorer_of(
    folder: Path, engine: str = "torch", threads: int = 1, **contract: object
) -> PairScorer:
    spec = reranker(folder, **contract)
    return load_scorer(spec, reranker_weights(folder, **contract), runtime(engine, threads=threads))


@pytest.mark.parametrize(
    ("family", "labels"), [("bert", 1), ("bert", 4), ("roberta", 1), ("distilbert", 4)]
)
def test_logits_are_those_of_sentence_transformers(
    folders: Path, family: Family, labels: int
) -> None:
    folder = build_reranker(folders / f"{family}-{labels}", family=family, labels=labels)
    library = CrossEncoder(str(folder), activation_fn=torch.nn.Identity(), device="cpu")
    expected = np.asarray(library.predict(PAIRS)).reshape(len(PAIRS), labels)
    for engine, bound in (("torch", 1e-6), ("openvino", 1e-5)):
        found = scorer_of(folder, engine, labels=labels).logits(PAIRS)
        assert np.abs(found - expected).max() <= bound * max(1, np.abs(expected).max()), engine


def test_a_pair_that_is_too_long_is_cut_where_sentence_transformers_cuts_it(folders: Path) -> None:
    folder = build_reranker(folders / "cut")
    library = CrossEncoder(
        str(folder), activation_fn=torch.nn.Identity(), device="cpu", max_length=20
    )
    found = scorer_of(folder, max_tokens=20).logits(PAIRS)
    assert np.abs(found[:, 0] - library.predict(PAIRS)).max() <= 1e-6


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_a_pair_has_the_same_bits_alone_with_others_and_on_any_threads(
    folders: Path, engine: str
) -> None:
    folder = build_reranker(folders / "alone", labels=4)
    one = scorer_of(folder, engine, labels=4)
    together = one.logits(PAIRS)
    assert np.array_equal(together, np.concatenate([one.logits([pair]) for pair in PAIRS]))
    shuffled = np.random.default_rng(0).permutation(3 * len(PAIRS)) % len(PAIRS)
    two = scorer_of(folder, engine, threads=2, labels=4)
    assert np.array_equal(two.logits([PAIRS[at] for at in shuffled]), together[shuffled])


def test_bfloat16_scores_are_near_those_of_float32(folders: Path) -> None:
    if not bfloat16_instructions():
        pytest.skip("this CPU has no bfloat16")
    folder = build_reranker(folders / "half", labels=4)
    whole = scorer_of(folder, "openvino", labels=4).logits(PAIRS)
    half = scorer_of(folder, "openvino", labels=4, precision="bfloat16").logits(PAIRS)
    assert 0 < np.abs(half - whole).mean() < 0.05 * np.abs(whole).max()


def test_padding_and_its_shape_are_counted(folders: Path) -> None:
    scorer = scorer_of(build_reranker(folders / "shape"))
    tokens = scorer.tokenizer(PAIRS)
    parts: list[Encoded] = list(scorer.score_tokens(enumerate(tokens)))
    assert sorted(place for part in parts for place in part.places) == list(range(len(PAIRS)))
    assert all(len(each.ids) <= LONGEST for each in tokens)
    assert [bool(each.cut.size) for each in tokens].count(True) > 3


def test_four_labels_score_their_expected_gain_and_one_label_its_logit(folders: Path) -> None:
    spec = reranker(folders, labels=4, gains=(1.0, 0.5, 0.25, 0.0))
    logits = np.array([[2, 1, 0, -1], [0, 0, 0, 0], [90, 0, 0, -90]], dtype=np.float32)
    shares = torch.softmax(torch.tensor(logits, dtype=torch.float64), dim=1).numpy()
    assert np.allclose(probabilities(logits), shares, rtol=0, atol=1e-12)
    assert np.allclose(scores_of(logits, spec), shares @ [1, 0.5, 0.25, 0], rtol=0, atol=1e-7)
    assert scores_of(logits[:, :1], reranker(folders)).tolist() == [2, 0, 90]


def test_what_is_no_cross_encoder_of_this_entry_is_one_message(folders: Path) -> None:
    whole = build_reranker(folders / "whole", labels=4)
    with pytest.raises(PipelineError, match=r"rerankers\.tiny\.labels: 1, but the model has 4"):
        reranker_weights(whole)
    texts = build_model(folders / "encoder", pooling=None)
    with pytest.raises(PipelineError, match=r"names 'BertModel', expected a class that ends"):
        reranker_weights(texts)
    other = build_reranker(folders / "order", labels=4)
    for order in (reversed(LABELS), ["Irrelevant", "Complement", "Substitute", "Exact"]):
        edit_json(other / "config.json", id2label=dict(enumerate(order)))
        with pytest.raises(PipelineError, match="must be E, S, C, I, in this order"):
            reranker_weights(other, labels=4)
    foreign = build_reranker(folders / "foreign")
    edit_json(foreign / "config.json", vocab_size=100)
    with pytest.raises(PipelineError, match=r"rerankers\.tiny\.weights: .* must have the shape"):
        scorer_of(foreign)
    with pytest.raises(PipelineError, match=r"rerankers\.tiny\.max_tokens: 97 is more than the 96"):
        scorer_of(whole, labels=4, max_tokens=97)
    with pytest.raises(PipelineError, match=r"max_tokens: 3 leaves no room"):
        scorer_of(whole, labels=4, max_tokens=3)


def test_a_tokenizer_of_another_model_is_one_message(folders: Path) -> None:
    small = build_reranker(folders / "small")
    data = small / "tokenizer.json"
    text = data.read_text()
    data.write_text(text.replace('"[MASK]": 4', '"[MASK]": 4, "extra": 9999', 1))
    with pytest.raises(PipelineError, match=r"tiny\.weights: .* ids up to 9999, .* for 261 only"):
        scorer_of(small)
    # A multilingual model with the tokenizer of an English one.
    large = build_reranker(folders / "large", vocabulary=2000)
    with pytest.raises(PipelineError, match=r"tiny\.weights: .* ids up to 260 only, .* for 2000\."):
        scorer_of(large)


def test_a_score_that_is_not_a_number_names_its_pair(folders: Path) -> None:
    with pytest.raises(
        PipelineError, match=r"tiny: the output for the query 'x' and the product 'rojo' holds NaN"
    ):
        scorer_of(build_reranker(folders / "nan", nan=True)).logits([("x", "rojo")])


def test_a_text_that_is_not_unicode_is_one_message(folders: Path) -> None:
    scorer = scorer_of(build_reranker(folders / "unicode"))
    with pytest.raises(PipelineError, match="is not Unicode"):
        scorer.logits([("bien", "mal \ud800")])
