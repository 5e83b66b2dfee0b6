import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from sentence_transformers import SentenceTransformer

from pipeline.core.errors import PipelineError
from pipeline.encoders.model import load_model
from pipeline.encoders.tokens import Tokenizer, Tokens
from tests.helpers import tiny_e5_q4
from tests.helpers.tiny_models import (
    build_model,
    byte_bpe,
    edit_json,
    entry,
    random_texts,
    save_tokenizer,
    weights_of,
    wordpiece,
)

SPECIAL = (
    "", " ", "x", "  red \n shoe\t", "🎁", "Ünïcödé ＦＵＬＬ", "水筒 1リットル", "[SEP] [CLS]",
    "e\u0301", "running shoes for the running", "x" * 500, "\x00", "a" * 99 + "🎁" * 9,
)  # fmt: skip


def texts_of(seed: int) -> list[str]:
    return [*SPECIAL, *random_texts(np.random.default_rng(seed), 40, 90)]


def load(folder: Path, max_tokens: int = 128) -> tuple[str, SentenceTransformer]:
    """Return a model's tokenizer as JSON, and the model as sentence-transformers' own."""
    loaded = load_model(entry(folder, max_tokens=max_tokens), weights_of(folder))
    reference = SentenceTransformer(str(folder), device="cpu")
    reference.max_seq_length = max_tokens
    return loaded.tokenizer, reference


def assert_same_tokens(
    found: list[Tokens], reference: SentenceTransformer, texts: list[str], prefix: str
) -> None:
    features = reference.preprocess(texts, prompt=prefix or None)
    for tokens, ids, mask in zip(
        found, features["input_ids"], features["attention_mask"], strict=True
    ):
        assert tokens.ids.tolist() == ids[mask.bool()].tolist()
        assert tokens.ids.dtype == tokens.cut.dtype == np.int32
        assert tokens.prompt == features.get("prompt_length", 0)


@pytest.fixture(scope="module", params=["bpe", "wordpiece"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_model(tmp_path_factory.mktemp("tiny") / "model", tokenizer=request.param)


@pytest.mark.parametrize("max_tokens", [3, 12, 50, 128])
def test_tokens_are_those_of_sentence_transformers(folder: Path, max_tokens: int) -> None:
    texts = texts_of(max_tokens)
    library, reference = load(folder, max_tokens)
    for prefix in ("", "query: ", "a prefix longer than some limits: ", "🎁"):
        tokenizer = Tokenizer(library, prefix, max_tokens, "encoders.tiny")
        assert_same_tokens(tokenizer(texts), reference, texts, prefix)


def test_a_model_that_lower_cases_or_cuts_the_beginning_off_is_obeyed(tmp_path: Path) -> None:
    folder = build_model(tmp_path / "model")
    texts = [*texts_of(0), "RED SHOE", "red shoe"]
    edit_json(folder / "sentence_bert_config.json", do_lower_case=True)
    edit_json(folder / "tokenizer_config.json", truncation_side="left")
    library, reference = load(folder, 20)
    tokenizer = Tokenizer(library, "Query: ", 20, "encoders.tiny")
    found = tokenizer(texts)
    assert_same_tokens(found, reference, texts, "Query: ")
    assert found[-1].ids.tolist() == found[-2].ids.tolist()
    (long,) = tokenizer(["x" * 50])
    assert sorted(long.cut.tolist()) == list(range(-7, 50 - 18))


def library_of(kind: str, scratch: Path) -> str:
    """Return a tokenizer as JSON; a `bare` one frames no text by special tokens."""
    if kind == "unigram":
        return tiny_e5_q4.tokenizer_json().decode()
    if kind == "bare":
        return json.dumps(json.loads(tiny_e5_q4.tokenizer_json()) | {"post_processor": None})
    reader = {"bpe": byte_bpe, "wordpiece": wordpiece}[kind]()
    save_tokenizer(scratch / kind, reader, 128)
    return (scratch / kind / "tokenizer.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_what_is_cut_is_what_a_whole_tokenisation_has_more(
    kind: str, seed: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(seed)
    library = library_of(kind, tmp_path)
    prefix = str(rng.choice(["", "query: ", "q" * 30]))
    max_tokens = int(rng.integers(3, 60))
    texts = texts_of(seed)
    whole = tokenizers.Tokenizer.from_str(library)
    whole.no_truncation()
    found = Tokenizer(library, prefix, max_tokens, "encoders.tiny")(texts)
    for text, tokens in zip(texts, found, strict=True):
        full = whole.encode(prefix + text)
        assert len(tokens.ids) + len(tokens.cut) == len(full.ids)
        assert len(tokens.ids) == min(len(full.ids), max_tokens)
        kept = len(tokens.ids) - 1  # the closing token is kept, after what is left of the text
        assert tokens.ids.tolist() == [*full.ids[:kept], full.ids[-1]]
        begins = [begin - len(prefix) for begin, _ in full.offsets[kept:-1]]
        assert tokens.cut.tolist() == begins


def test_the_first_token_cut_begins_where_the_text_that_is_left_over_begins(
    tmp_path: Path,
) -> None:
    tokenizer = Tokenizer(library_of("bpe", tmp_path), "ab", 12, "encoders.tiny")
    (tokens,) = tokenizer(["01234567水9é"])  # a token a byte; two of the frame, two of the prefix
    assert tokens.cut.tolist() == [8, 8, 8, 9, 10, 10]
    (none,) = tokenizer(["01234567"])
    assert none.cut.tolist() == []


@pytest.mark.parametrize(
    ("kind", "text"),
    [("bpe", "ab c " * 40_000), ("unigram", "a" * 200_000), ("wordpiece", "a" * 200_000)],
)
def test_a_very_long_text_is_read_to_its_end(kind: str, text: str, tmp_path: Path) -> None:
    (tokens,) = Tokenizer(library_of(kind, tmp_path), "", 256, "encoders.tiny")([text])
    if kind == "wordpiece":
        assert len(tokens.ids) == 3  # too long for a word, and so unknown
    else:
        assert len(tokens.ids) == 256
        assert tokens.cut[-1] >= len(text) - 5
        assert (np.diff(tokens.cut) >= 0).all()


def test_a_lone_surrogate_is_refused_with_its_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(library_of("bpe", tmp_path), "", 128, "encoders.tiny")
    for lone in ("\ud83c", "half \ud83c of an emoji", "x" * 100 + "\udfff"):
        with pytest.raises(
            PipelineError, match=r"encoders\.tiny: the text .* is not Unicode"
        ) as caught:
            tokenizer(["fine", lone, "fine"])
        assert repr(lone)[:50] in str(caught.value)
        assert len(str(caught.value)) < 300


def test_a_text_without_any_token_is_refused_unless_its_prefix_has_some(tmp_path: Path) -> None:
    bare, framed = (library_of(kind, tmp_path) for kind in ("bare", "unigram"))
    with pytest.raises(PipelineError, match=r"encoders\.tiny: the text '' has no tokens") as caught:
        Tokenizer(bare, "", 16, "encoders.tiny")(["a b", ""])
    assert "\n" not in str(caught.value)
    assert all(len(tokens.ids) for tokens in Tokenizer(framed, "", 16, "x")(["a b", ""]))
    assert all(len(tokens.ids) for tokens in Tokenizer(bare, "a", 16, "x")(["a b", ""]))


def test_the_tokens_of_a_prompt_end_before_the_closing_token(tmp_path: Path) -> None:
    bare, framed = (library_of(kind, tmp_path) for kind in ("bare", "unigram"))
    for library, frame in ((bare, 0), (framed, 1)):
        whole = tokenizers.Tokenizer.from_str(library)
        for prefix in ("", "a", "query: "):
            (tokens,) = Tokenizer(library, prefix, 16, "encoders.tiny")(["ab"])
            plain = len(whole.encode(prefix, add_special_tokens=False).ids)
            assert tokens.prompt == (frame + plain if prefix else 0)


def test_texts_keep_their_order(tmp_path: Path) -> None:
    tokenizer = Tokenizer(library_of("wordpiece", tmp_path), "", 128, "encoders.tiny")
    texts = texts_of(1) * 20
    together = tokenizer(texts)
    for text, tokens in zip(texts[::17], together[::17], strict=True):
        (alone,) = tokenizer([text])
        assert alone.ids.tolist() == tokens.ids.tolist()
    assert tokenizer([]) == []
