"""Whether the artefacts were made from the tables that the command `shop` wrote last.

A search answers from what the stages made. After `shop` has taken new tables, that is the old shop
until they run. Only folders of `shop` are looked at: others may have gigabytes.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Params

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def check_source(params: Params) -> None:
    """Check that dvc.lock says that `sample` read these tables, with these settings.

    Without a dvc.lock that names the stage, nothing is known and nothing is checked.

    Raises:
        PipelineError: it read others.
    """
    source = Path(params.sample.source)
    if not (source / layout.SHOP_MARK).is_file() or (made := _sample_stage()) is None:
        return
    read = {each.get("path"): each.get("md5") for each in made.get("deps", [])}
    settings = made.get("params", {}).get(str(layout.PARAMS), {}).get("sample")
    asked = params.sample.model_dump(mode="json")
    if read.get(source.as_posix()) != hash_folder(source) or settings != asked:
        raise PipelineError(
            f"{source}: its tables, or what params.yaml says of them, are newer than the artefacts "
            "that answer. Run `make repro`."
        )


def hash_folder(folder: Path) -> str:
    """Return the hash that DVC gives a folder: the MD5 of the list of its files and their MD5."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = []
    for path in files:
        with path.open("rb") as handle:
            digest = hashlib.file_digest(handle, lambda: hashlib.md5(usedforsecurity=False))
        listed.append({"md5": digest.hexdigest(), "relpath": path.relative_to(folder).as_posix()})
    listed.sort(key=lambda each: each["relpath"])
    text = json.dumps(listed, sort_keys=True).encode()
    return f"{hashlib.md5(text, usedforsecurity=False).hexdigest()}.dir"


def _sample_stage() -> dict[str, Any] | None:
    """Return what dvc.lock says of the stage, None where it says nothing that can be read."""
    try:
        found = yaml.load(layout.LOCK.read_bytes(), _LOADER)["stages"]["sample"]  # noqa: S506
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None
