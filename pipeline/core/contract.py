"""The contract of a model as a file: what the graph compares, so that only its users run again."""

from pathlib import Path

from pipeline.core.files import write_json
from pipeline.core.param_types import Strict


def write_contract(path: Path, entry: Strict | None) -> None:
    """Write all that an entry of params.yaml means.

    Keys that have their default are left out: a key that is added to entries later changes no file.
    None, which `rerankers.none` is, has no key.
    """
    write_json(path, entry.model_dump(mode="json", exclude_defaults=True) if entry else {})
