"""The contract of a model: as a file, which the graph compares, and as other cards have it."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.files import write_json
from pipeline.core.param_types import Strict
from pipeline.core.params import Entry


def write_contract(path: Path, entry: Strict | None) -> None:
    """Write all that an entry of params.yaml means.

    Keys that have their default are left out: a key that is added to entries later changes no file.
    None, which `rerankers.none` is, has no key.
    """
    write_json(path, _written(entry))


def refuse_other_contract(
    path: Path, entry: Strict | None, unread: Collection[str], why: str, remedy: str
) -> None:
    """Check that a file of `write_contract` is of this entry.

    Args:
        path: the file.
        entry: what its name means now.
        unread: keys that may differ.
        why: what a difference means.
        remedy: a sentence that says what to do.

    Raises:
        PipelineError: the file is missing or damaged, or a key differs.
    """
    found, expected = (
        {key: value for key, value in of.items() if key not in unread}
        for of in (read_model(path, dict[str, Any], remedy), _written(entry))
    )
    refuse_differences(path, found, expected, why, remedy)


def _written(entry: Strict | None) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude_defaults=True) if entry else {}


def contract_of(entry: Entry) -> dict[str, Any]:
    """Return the entry of a model as the card of its vectors or scores has it, JSON.

    The path of a local folder is left out: the hash of the weights says the same on any machine.
    """
    contract = entry.model_dump(mode="json")
    contract["weights"].pop("path", None)
    return contract
