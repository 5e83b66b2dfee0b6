"""The contract of a model: as a file, which the graph compares, and as other cards have it."""

from pathlib import Path
from typing import Any

from pipeline.core.files import write_json
from pipeline.core.param_types import Strict
from pipeline.core.params import Entry


def write_contract(path: Path, entry: Strict | None) -> None:
    """Write all that an entry of params.yaml means.

    Keys that have their default are left out: a key that is added to entries later changes no file.
    None, which `rerankers.none` is, has no key.
    """
    write_json(path, entry.model_dump(mode="json", exclude_defaults=True) if entry else {})


def contract_of(entry: Entry) -> dict[str, Any]:
    """Return the entry of a model as the card of its vectors or scores has it, JSON.

    The path of a local folder is left out: the hash of the weights says the same on any machine.
    """
    contract = entry.model_dump(mode="json")
    contract["weights"].pop("path", None)
    return contract
