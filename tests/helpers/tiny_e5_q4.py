"""A writer of tiny `E5S1` files, the inverse of what `pipeline.encoders.e5_q4` reads."""

import json
import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

PIECES = ("<s>", "<pad>", "</s>", "<unk>", "▁", "a", "b", "▁query", "▁passage", ":", "é", "靴")
SCORES = tuple(-float(rank) / 2 for rank in range(len(PIECES)))
HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS, TYPES = 32, 2, 2, 64, 16, 2
VOCABULARY = len(PIECES) + 3  # the real file, too, has more rows than pieces

Array = NDArray[np.float32]


def random_tensors(seed: int) -> dict[str, Array]:
    """Return every tensor of a tiny model, each row of a matrix as 4 bits can hold it."""
    rng = np.random.default_rng(seed)
    matrices: dict[str, tuple[int, int]] = {"emb.word": (VOCABULARY, HIDDEN)}
    plain: dict[str, tuple[int, ...]] = {
        "emb.pos": (POSITIONS, HIDDEN),
        "emb.type": (TYPES, HIDDEN),
    }
    plain |= {"emb.ln.w": (HIDDEN,), "emb.ln.b": (HIDDEN,)}
    for layer in range(LAYERS):
        for name in ("q", "k", "v", "ao"):
            matrices[f"l{layer}.{name}.w"] = (HIDDEN, HIDDEN)
            plain[f"l{layer}.{name}.b"] = (HIDDEN,)
        matrices[f"l{layer}.fi.w"] = (INTERMEDIATE, HIDDEN)
        plain[f"l{layer}.fi.b"] = (INTERMEDIATE,)
        matrices[f"l{layer}.fo.w"] = (HIDDEN, INTERMEDIATE)
        plain[f"l{layer}.fo.b"] = (HIDDEN,)
        for name in ("aln", "oln"):
            plain |= {f"l{layer}.{name}.w": (HIDDEN,), f"l{layer}.{name}.b": (HIDDEN,)}
    tensors: dict[str, Array] = {}
    for name, shape in matrices.items():
        nibbles = rng.integers(0, 16, size=(shape[0], shape[1] // 32, 32))
        scales = rng.uniform(0.01, 0.1, size=(shape[0], shape[1] // 32, 1)).astype(np.float16)
        weights = (nibbles - 8).astype(np.float32) * scales.astype(np.float32)
        weights[..., 0] = -8 * scales[..., 0].astype(np.float32)  # so that the scale can be found
        tensors[name] = weights.reshape(shape)
    for name, size in plain.items():
        tensors[name] = rng.normal(size=size).astype(np.float32)
    return tensors


def quantise(matrix: Array) -> bytes:
    """Write a matrix of `random_tensors` as Q4_0, one weight at a time."""
    data = b""
    for block in matrix.reshape(-1, 32):
        scale = np.float16(block[0] / -8)
        nibbles = [round(float(weight) / float(scale)) + 8 for weight in block]
        packed = bytes(
            low | high << 4 for low, high in zip(nibbles[:16], nibbles[16:], strict=True)
        )
        data += struct.pack("<e", scale) + packed
    return data


def pack(tensors: Mapping[str, Array], *, version: int = 1, magic: bytes = b"E5S1") -> bytes:
    """Write a whole file; matrices of the layers and the word embeddings in 4 bits."""
    head = magic + struct.pack(
        "<I7ifi",
        version,
        HIDDEN,
        LAYERS,
        HEADS,
        INTERMEDIATE,
        VOCABULARY,
        POSITIONS,
        TYPES,
        1e-12,
        32,
    )
    blobs = [piece.encode() for piece in PIECES]
    ends = np.cumsum([0, *map(len, blobs)])
    head += struct.pack("<5iQ", len(PIECES), 0, 2, 1, 3, int(ends[-1]))
    head += ends.astype("<u4").tobytes() + np.array(SCORES, dtype="<f4").tobytes() + b"".join(blobs)
    head += struct.pack("<iI", 1, 5) + struct.pack("<IB", 9, 0)
    head += struct.pack("<i", len(tensors))
    contents = []
    for name, values in tensors.items():
        is_matrix = (name.endswith(".w") and values.ndim == 2) or name == "emb.word"
        data = quantise(values) if is_matrix else values.astype("<f4").tobytes()
        contents.append((name.encode(), int(is_matrix), values.size, data))
    offset = len(head) + sum(2 + len(label) + 21 for label, *_ in contents)
    table = b""
    for label, kind, elements, data in contents:
        table += struct.pack("<H", len(label)) + label
        table += struct.pack("<BIQQ", kind, elements, offset, len(data))
        offset += len(data)
    return head + table + b"".join(data for *_, data in contents)


def tokenizer_json() -> bytes:
    """Return a unigram tokenizer.json of the same pieces and scores."""
    special = [
        {
            "id": idx, "content": PIECES[idx], "special": True, "single_word": False,
            "lstrip": False, "rstrip": False, "normalized": False,
        }
        for idx in range(4)
    ]  # fmt: skip
    frame = [{"SpecialToken": {"id": piece, "type_id": 0}} for piece in ("<s>", "</s>")]
    single = [frame[0], {"Sequence": {"id": "A", "type_id": 0}}, frame[1]]
    metaspace = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    vocabulary = [list(pair) for pair in zip(PIECES, SCORES, strict=True)]
    return json.dumps(
        {
            "version": "1.0", "truncation": None, "padding": None, "added_tokens": special,
            "normalizer": None, "pre_tokenizer": metaspace, "decoder": metaspace,
            "post_processor": {
                "type": "TemplateProcessing", "single": single, "pair": single,
                "special_tokens": {
                    piece: {"id": piece, "ids": [idx], "tokens": [piece]}
                    for piece, idx in (("<s>", 0), ("</s>", 2))
                },
            },
            "model": {"type": "Unigram", "unk_id": 3, "vocab": vocabulary},
        }
    ).encode()  # fmt: skip
