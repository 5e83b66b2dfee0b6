import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder, Runtime
from pipeline.core.params_file import load_params
from pipeline.encoders.e5_folder import write_model_folder
from pipeline.encoders.e5_q4 import dequantise, parse_model
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.loading import load_encoder
from pipeline.encoders.weights import resolve_weights
from tests.helpers import tiny_e5_q4

FIXTURE = Path(__file__).parents[1] / "fixtures" / "e5_engine"
RUNTIME = Runtime(
    device="cpu", engine="auto", threads=1, memory_limit=None, store_gigabytes=1, executor="local",
    ray_address=None, checkpoint_minutes=5.0,
)  # fmt: skip


def test_every_tensor_of_a_random_file_comes_back_exactly() -> None:
    for seed in range(5):
        tensors = tiny_e5_q4.random_tensors(seed)
        model = parse_model(tiny_e5_q4.pack(tensors), "tiny.bin")
        assert list(model.pieces) == list(tiny_e5_q4.PIECES)
        assert len(model.tensors) == len(tensors)
        names = {
            "emb.word": "embeddings.word_embeddings.weight",
            "emb.ln.b": "embeddings.LayerNorm.bias",
            "l0.q.w": "encoder.layer.0.attention.self.query.weight",
            "l1.fi.b": "encoder.layer.1.intermediate.dense.bias",
            "l1.fo.w": "encoder.layer.1.output.dense.weight",
            "l0.aln.w": "encoder.layer.0.attention.output.LayerNorm.weight",
            "l1.oln.b": "encoder.layer.1.output.LayerNorm.bias",
        }
        for name, full_name in names.items():
            np.testing.assert_array_equal(model.tensors[full_name], tensors[name])
        assert sorted(map(float, np.concatenate([t.ravel() for t in tensors.values()]))) == sorted(
            map(float, np.concatenate([t.ravel() for t in model.tensors.values()]))
        )
        assert model.layer_norm_eps == 1e-12


def test_low_nibbles_are_the_first_sixteen_weights() -> None:
    rng = np.random.default_rng(3)
    blocks = rng.integers(0, 256, size=(40, 18), dtype=np.uint8)
    blocks[:, 1] &= 0x3F  # keeps the float16 scale finite
    expected = []
    for block in blocks:
        scale = np.float32(block[:2].view("<f2")[0])
        expected += [scale * np.float32(int(byte & 15) - 8) for byte in block[2:]]
        expected += [scale * np.float32(int(byte >> 4) - 8) for byte in block[2:]]
    found = dequantise(blocks.tobytes())
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float32))


def test_a_file_cut_at_any_byte_is_refused() -> None:
    data = tiny_e5_q4.pack(tiny_e5_q4.random_tensors(0))
    table_end = 1400
    for size in {*range(table_end), *range(table_end, len(data), 37), len(data) - 1}:
        with pytest.raises(PipelineError, match=r"tiny\.bin is not a whole E5S1 model"):
            parse_model(data[:size], "tiny.bin")


def test_a_file_with_a_flipped_bit_is_read_or_refused_but_never_crashes() -> None:
    data = tiny_e5_q4.pack(tiny_e5_q4.random_tensors(0))
    rng = np.random.default_rng(11)
    refused = 0
    for position in rng.integers(0, 1340, size=600):
        broken = bytearray(data)
        broken[position] ^= 1 << rng.integers(8)
        try:
            parse_model(bytes(broken), "tiny.bin")
        except PipelineError:
            refused += 1
    assert refused > 300


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda tensors: tensors | {"extra": np.zeros(1, np.float32)}, "38 tensors, expected 37"),
        (lambda tensors: dict(list(tensors.items())[1:]), "36 tensors, expected 37"),
        (
            lambda tensors: {name.replace("pos", "nope"): tensors[name] for name in tensors},
            r"the tensor 'emb\.nope' is unknown",
        ),
        (lambda tensors: tensors | {"emb.pos": tensors["emb.pos"][1:]}, "emb.pos has 480 elements"),
        (lambda tensors: tensors | {"emb.pos": tensors["emb.pos"] * np.nan}, "emb.pos holds NaN"),
    ],
)
def test_tensors_must_be_exactly_those_of_the_sizes(edit, message) -> None:  # type: ignore[no-untyped-def]
    tensors = edit(tiny_e5_q4.random_tensors(0))
    with pytest.raises(PipelineError, match=message):
        parse_model(tiny_e5_q4.pack(tensors), "tiny.bin")


def test_another_format_version_or_trailing_bytes_are_refused() -> None:
    tensors = tiny_e5_q4.random_tensors(0)
    with pytest.raises(PipelineError, match="version 2, expected 1"):
        parse_model(tiny_e5_q4.pack(tensors, version=2), "tiny.bin")
    with pytest.raises(PipelineError, match="begins with b'GGUF'"):
        parse_model(tiny_e5_q4.pack(tensors, magic=b"GGUF"), "tiny.bin")
    with pytest.raises(PipelineError, match="3 bytes follow its last tensor"):
        parse_model(tiny_e5_q4.pack(tensors) + b"\0\0\0", "tiny.bin")


def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    model = parse_model(tiny_e5_q4.pack(tiny_e5_q4.random_tensors(1)), "tiny.bin")
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        write_model_folder(model, tiny_e5_q4.tokenizer_json(), folder, "tokenizer.json")
    first, second = (
        {
            path.relative_to(folder): path.read_bytes()
            for path in folder.rglob("*")
            if path.is_file()
        }
        for folder in folders
    )
    assert first == second
    assert set(load_file(folders[0] / "model.safetensors")) == set(model.tensors)


def test_a_tokenizer_with_other_pieces_or_scores_is_refused(tmp_path: Path) -> None:
    model = parse_model(tiny_e5_q4.pack(tiny_e5_q4.random_tensors(1)), "tiny.bin")
    for edit in (0, 1):
        other = json.loads(tiny_e5_q4.tokenizer_json())
        other["model"]["vocab"][5][edit] = ["x", -9.0][edit]
        with pytest.raises(PipelineError, match="not the tokenizer of these weights"):
            write_model_folder(model, json.dumps(other).encode(), tmp_path, "tokenizer.json")
    with pytest.raises(PipelineError, match="not a unigram tokenizer"):
        write_model_folder(model, b"{}", tmp_path, "tokenizer.json")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def real() -> tuple[TextEncoder, list[dict[str, object]], np.ndarray]:
    name = "e5-small-q4"
    spec = load_params().encoders[name]
    spec = Encoder.model_validate(spec.model_copy(update={"max_tokens": 512}))
    encoder = load_encoder(spec, resolve_weights(spec, name), RUNTIME)
    rows = json.loads((FIXTURE / "texts.json").read_text(encoding="utf-8"))
    return encoder, rows, np.load(FIXTURE / "vectors.npy", allow_pickle=False)


@pytest.mark.weights
def test_the_rebuilt_model_gives_the_vectors_of_the_weights_own_engine(real) -> None:  # type: ignore[no-untyped-def]
    encoder, rows, expected = real
    is_query = np.array([row["kind"] == "query" for row in rows])
    texts = np.array([row["text"] for row in rows], dtype=object)
    found = np.empty_like(expected)
    found[is_query] = encoder.encode_queries(texts[is_query].tolist())
    found[~is_query] = encoder.encode_passages(texts[~is_query].tolist())
    cosines = (found * expected).sum(axis=1)
    # The engine rounds activations to 8 bits: that alone, put into the model here, moves a vector
    # by as much when it computes in float64 instead of float32.
    assert np.median(cosines) >= 0.9999
    assert cosines.min() >= 0.9998


@pytest.mark.weights
def test_the_rebuilt_tokenizer_counts_the_tokens_of_the_weights_own_engine(real) -> None:  # type: ignore[no-untyped-def]
    encoder, rows, _ = real
    for role in ("query", "passage"):
        own = [row for row in rows if row["kind"] == role]
        tokens = encoder.tokenizer(role)([row["text"] for row in own])
        assert [len(text.ids) for text in tokens] == [row["tokens"] for row in own]
