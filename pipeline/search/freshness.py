"""Whether artefacts belong together: by dvc.lock, and by what the file system says of them."""

from pathlib import Path
from typing import Any

import yaml

from pipeline.core import layout
from pipeline.core.errors import PipelineError

Signature = tuple[tuple[str, int, int, int], ...]
"""Of each file its path, inode, size and time."""


def check_lock(locale: str) -> None:
    """Check that the stages of a locale ran on what is there now, by the hashes in dvc.lock.

    A project without dvc.lock passes: its stages ran by hand.

    Raises:
        PipelineError: a stage's input has been made again since; or dvc.lock is not readable.
    """
    if not layout.LOCK.is_file():
        return
    stages = _stages()
    made = {out["path"]: out.get("md5") for one in stages.values() for out in one.get("outs", [])}
    for name in ("embed", "index"):
        for dep in stages.get(f"{name}@{locale}", {}).get("deps", []):
            path, used = dep["path"], dep.get("md5")
            if path in made and made[path] != used:
                raise PipelineError(
                    f"{layout.LOCK}: {name}@{locale} was made from another {path} (found "
                    f"{str(used)[:12]}, now {str(made[path])[:12]}). "
                    f"{layout.rerun_hint(name, locale)}"
                )


def signature(locale: str) -> Signature:
    """Return what changes when a stage or DVC writes an artefact that a search reads."""
    clean, index = layout.clean(locale), layout.index(locale)
    paths = (
        layout.PARAMS, layout.LOCK, clean.products, clean.queries, clean.judgements, clean.counts,
        layout.embeddings(locale).manifest, index.card, index.index,
    )  # fmt: skip
    return tuple(map(_signed, paths))


def _stages() -> dict[str, Any]:
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        data = yaml.load(layout.LOCK.read_bytes(), loader)  # noqa: S506 (a safe loader)
        stages: dict[str, Any] = dict(data["stages"])
        for one in stages.values():
            for entry in [*one.get("deps", []), *one.get("outs", [])]:
                str(entry["path"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as err:
        raise PipelineError(f"{layout.LOCK} is not readable. Run `git checkout dvc.lock`.") from err
    return stages


def _signed(path: Path) -> tuple[str, int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
