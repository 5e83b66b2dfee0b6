"""A project in which a tiny model learns from made-up pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from pipeline.core import layout
from pipeline.core.contract import write_contract
from pipeline.core.files import write_json
from pipeline.core.params import Params
from pipeline.core.tables import LABELS, PAIRS, write_table
from pipeline.encoders.model_folder import folder_sha256
from tests.helpers import artefacts
from tests.helpers.tiny_models import build_model, entry

NAME = "tiny-tuned"
WORDS = ("red", "blue", "shoe", "shirt", "lamp", "running", "cotton", "desk", "small", "large")

SETTINGS: dict[str, Any] = {
    "kind": "encoder", "base": "tiny", "teacher": "none", "locales": ["us"], "loss": "mnrl",
    "positives": ["E"], "negatives": ["S", "C", "I"], "epochs": 2, "batch": 8, "lr": 2e-3,
    "warm_up": 0.1, "max_tokens": 32, "seed": 3, "threads": 1,
}  # fmt: skip
RERANKER = {key: SETTINGS[key] for key in (
    "base", "teacher", "locales", "epochs", "batch", "lr", "warm_up", "max_tokens", "seed",
    "threads",
)} | {"kind": "reranker"}  # fmt: skip


def pair_table(queries: int, seed: int, per_query: int = 5, first: int = 0) -> pa.Table:
    """Return pairs of made-up queries in two locales; a product repeats its query's words if E."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(first, first + queries):
        locale = "us" if number % 3 else "es"
        words = rng.choice(WORDS, 2, replace=False).tolist()
        for at in range(per_query):
            label = LABELS[at % 4]
            kept = {"E": words, "S": words[:1], "C": words[1:], "I": []}[label]
            text = " ".join([*kept, *rng.choice(WORDS, 2).tolist(), f"n{rng.integers(50)}"])
            rows.append((number, locale, f"{' '.join(words)} q{number}", f"p{number:03d}{at}",
                         label, text))  # fmt: skip
    rows.sort(key=lambda row: (row[1], row[0], row[3]))
    columns = [list(column) for column in zip(*rows, strict=True)]
    return pa.table(columns, schema=PAIRS)


def write_project(
    folder: Path, settings: Mapping[str, Any] | None = None, **contract: Any
) -> dict[str, Any]:
    """Write params.yaml, pairs and a base in a folder, the working one; return the parameters."""
    build_model(folder / "tiny", tokenizer="wordpiece", seed=1)
    spec = entry(folder / "tiny", **contract).model_dump(mode="json")
    data: dict[str, Any] = artefacts.shipped()
    data["encoders"]["tiny"] = spec
    data["trained"] = {NAME: dict(settings or SETTINGS)}
    data["runtime"] |= {"checkpoint_minutes": 0.0, "device": "cpu"}
    (folder / "params.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    files = layout.pairs(NAME)
    for path, table in ((files.train, pair_table(20, 5)), (files.dev, pair_table(6, 7, first=50))):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        write_table(target, table, PAIRS)
    return data


def write_model_card(params: Params, name: str, **changes: Any) -> None:
    """Write card and contract of weights that are in a trained model's folder.

    Args:
        params: what the model is of.
        name: the model.
        changes: keys of the card that are others.
    """
    trained = params.trained[name]
    files = layout.model(trained.kind, name)
    card = {
        "settings": trained.of_weights(),
        "base_sha256": "0" * 64,
        "weights_sha256": folder_sha256(files.weights),
        "pairs": {},
    }
    write_json(files.card, card | changes)
    entry = params.encoder_named if trained.kind == "encoder" else params.reranker_named
    write_contract(files.contract, entry(name))
