"""multilingual-e5-small in 4 bits: the file read strictly, its weights as float32.

The format, little-endian: magic `E5S1`, version, the sizes of a BERT model, the pieces of a unigram
tokenizer with their scores, a normaliser, then a table of tensors at absolute offsets,
either as float32 or as Q4_0. Q4_0 (as in llama.cpp) holds 32 weights of a row in 18 bytes: a
float16 scale and 16 bytes whose low nibbles are weights 0 to 15 and high nibbles 16 to 31;
weight = scale * (nibble - 8). That product has up to 14 significant bits, so float32 holds it
exactly and float16 would not.
"""

import itertools
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError

_MAGIC = b"E5S1"
_VERSION = 1
_BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("nibbles", "u1", (_BLOCK // 2,))])
_FLOAT32, _Q4_0 = 0, 1

_EMBEDDINGS = {
    "emb.word": "embeddings.word_embeddings.weight",
    "emb.pos": "embeddings.position_embeddings.weight",
    "emb.type": "embeddings.token_type_embeddings.weight",
    "emb.ln.w": "embeddings.LayerNorm.weight",
    "emb.ln.b": "embeddings.LayerNorm.bias",
}
_LAYER = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}


@dataclass(frozen=True)
class Sizes:
    """The sizes of the BERT model."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int
    positions: int
    token_types: int


@dataclass(frozen=True)
class Special:
    """The ids of the tokenizer's special pieces."""

    bos: int
    eos: int
    pad: int
    unk: int


@dataclass(frozen=True)
class Model:
    """What the file holds: `tensors` are float32, under the names that transformers gives them."""

    sizes: Sizes
    layer_norm_eps: float
    special: Special
    pieces: list[str]
    scores: NDArray[np.float32]
    tensors: dict[str, NDArray[np.float32]]


def parse_model(data: bytes, file: str) -> Model:
    """Read a whole model.

    Args:
        data: the file's bytes.
        file: its name, for messages.

    Raises:
        PipelineError: the bytes are not this format, end early, or hold too much.
    """
    reader = _Reader(data, file)
    if reader.take(4) != _MAGIC:
        raise reader.error(f"it begins with {data[:4]!r}, expected {_MAGIC!r}")
    (version,) = reader.unpack("<I")
    if version != _VERSION:
        raise reader.error(f"its format has version {version}, expected {_VERSION}")
    sizes = Sizes(*reader.unpack("<7i"))
    eps, block = reader.unpack("<fi")
    if min(vars(sizes).values()) < 1 or sizes.hidden % sizes.heads or block != _BLOCK:
        raise reader.error(f"its sizes are impossible: {sizes}, blocks of {block}")
    if not 0 < eps < 1:
        raise reader.error(f"its layer-norm epsilon is {eps}")
    count, *ids = reader.unpack("<5i")
    special = Special(*ids)
    if not 0 <= min(ids) <= max(ids) < count <= sizes.vocabulary:
        raise reader.error(f"its tokenizer has {count} pieces, but {special}")
    pieces, scores = _read_pieces(reader, count)
    _, normaliser_bytes = reader.unpack("<iI")
    reader.take(normaliser_bytes)
    tensors = _read_tensors(reader, sizes)
    shortest = float(np.format_float_scientific(np.float32(eps)))  # 1e-12, not 9.99999996e-13
    return Model(sizes, shortest, special, pieces, scores, tensors)


def dequantise(data: bytes) -> NDArray[np.float32]:
    """Return the weights of Q4_0 blocks, 32 for every 18 bytes, exactly."""
    blocks = np.frombuffer(data, dtype=_BLOCK_TYPE)
    weights = np.empty((len(blocks), 2, _BLOCK // 2), dtype=np.float32)
    weights[:, 0] = blocks["nibbles"] & 0x0F
    weights[:, 1] = blocks["nibbles"] >> 4
    weights -= 8
    with np.errstate(invalid="ignore"):  # an infinite scale makes NaN, which the reader refuses
        weights *= blocks["scale"].astype(np.float32)[:, None, None]
    return weights.reshape(-1)


class _Reader:
    """A cursor over the bytes that never reads past their end."""

    def __init__(self, data: bytes, file: str) -> None:
        self.data = data
        self.file = file
        self.position = 0

    def take(self, size: int) -> bytes:
        return self.at(self._advance(size), size)

    def unpack(self, form: str) -> tuple[int, ...]:
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def at(self, offset: int, size: int) -> bytes:
        if offset + size > len(self.data):
            raise self.error(
                f"it ends at byte {len(self.data)}, but {size} bytes at {offset} are needed"
            )
        return self.data[offset : offset + size]

    def error(self, what: str) -> PipelineError:
        return PipelineError(
            f"{self.file} is not a whole E5S1 model: {what}. Pin a wheel that holds one."
        )

    def _advance(self, size: int) -> int:
        start = self.position
        self.position += size
        return start


def _read_pieces(reader: _Reader, count: int) -> tuple[list[str], NDArray[np.float32]]:
    (size,) = reader.unpack("<Q")
    offsets = np.frombuffer(reader.take(4 * (count + 1)), dtype="<u4").astype(np.int64)
    scores = np.frombuffer(reader.take(4 * count), dtype="<f4")
    blob = reader.take(size)
    if offsets[0] != 0 or offsets[-1] != size or (np.diff(offsets) < 0).any():
        raise reader.error("the offsets of its pieces are out of order")
    bounds = offsets.tolist()
    try:
        pieces = [blob[start:end].decode() for start, end in itertools.pairwise(bounds)]
    except UnicodeDecodeError as err:
        raise reader.error(f"a piece is not UTF-8 ({err})") from err
    return pieces, scores


def _read_tensors(reader: _Reader, sizes: Sizes) -> dict[str, NDArray[np.float32]]:
    """Read every tensor that the sizes ask for, and refuse any other."""
    (count,) = reader.unpack("<i")
    expected = len(_EMBEDDINGS) + 2 * len(_LAYER) * sizes.layers
    if count != expected:
        raise reader.error(f"it has {count} tensors, expected {expected}")
    shapes = _shapes(sizes)
    tensors: dict[str, NDArray[np.float32]] = {}
    end = 0
    for _ in range(count):
        (length,) = reader.unpack("<H")
        name = reader.take(length).decode("ascii", "replace")
        kind, elements, offset, size = reader.unpack("<BIQQ")
        if name not in shapes:
            raise reader.error(f"the tensor {name!r} is unknown or repeated")
        full_name, shape = shapes.pop(name)
        if elements != np.prod(shape):
            raise reader.error(f"the tensor {name} has {elements} elements, expected {shape}")
        if kind == _FLOAT32 and size == 4 * elements:
            values = np.frombuffer(reader.at(offset, size), dtype="<f4")
        elif (
            kind == _Q4_0
            and shape[-1] % _BLOCK == 0
            and size * _BLOCK == elements * _BLOCK_TYPE.itemsize
        ):
            values = dequantise(reader.at(offset, size))
        else:
            raise reader.error(f"the tensor {name} of type {kind} has {size} bytes for {shape}")
        if not np.isfinite(values).all():
            raise reader.error(f"the tensor {name} holds NaN or infinity")
        tensors[full_name] = values.reshape(shape)
        end = max(end, offset + size)
    if end != len(reader.data):
        raise reader.error(f"{len(reader.data) - end} bytes follow its last tensor")
    return tensors


def _shapes(sizes: Sizes) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return, by the file's own names, each tensor's name in transformers and its shape."""
    hidden, inner = sizes.hidden, sizes.intermediate
    embeddings: list[tuple[int, ...]] = [
        (sizes.vocabulary, hidden), (sizes.positions, hidden), (sizes.token_types, hidden),
        (hidden,), (hidden,),
    ]  # fmt: skip
    shapes = {
        name: (full_name, shape)
        for (name, full_name), shape in zip(_EMBEDDINGS.items(), embeddings, strict=True)
    }
    weights: dict[str, tuple[int, ...]] = dict.fromkeys(("q", "k", "v", "ao"), (hidden, hidden))
    weights |= {"fi": (inner, hidden), "fo": (hidden, inner), "aln": (hidden,), "oln": (hidden,)}
    for layer in range(sizes.layers):
        for name, full_name in _LAYER.items():
            stem = f"encoder.layer.{layer}.{full_name}"
            shapes[f"l{layer}.{name}.w"] = (f"{stem}.weight", weights[name])
            shapes[f"l{layer}.{name}.b"] = (f"{stem}.bias", weights[name][:1])
    return shapes
