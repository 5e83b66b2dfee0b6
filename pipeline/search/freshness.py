"""Whether artefacts belong together: by dvc.lock, and by what the file system says of them."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.core import layout
from pipeline.core.errors import PipelineError

Signed = tuple[str, int, int, int]
"""A file's path, inode, size and time."""

Link = tuple[str, str, str | None, str | None]
"""A stage, what it read of another stage, the hash of that then, and the hash of it now."""

Signature = tuple[Signed | Link, ...]
"""What is there of each file, and of the links between stages."""


def check_lock(locale: str) -> None:
    """Check that the stages of a locale ran on what is there now, by the hashes in dvc.lock.

    A project without dvc.lock passes: its stages ran by hand.

    Raises:
        PipelineError: a stage's input has been made again since; or dvc.lock is not readable.
    """
    for name, path, used, made in _links(locale):
        if made != used:
            raise PipelineError(
                f"{layout.LOCK}: {name}@{locale} was made from another {path} (found "
                f"{str(used)[:12]}, now {str(made)[:12]}). {layout.rerun_hint(name, locale)}"
            )


def signature(locale: str) -> Signature:
    """Return what changes when a stage or DVC writes an artefact that a search reads.

    Of dvc.lock only the locale's links count: DVC writes it after every stage of every locale.
    """
    clean, index = layout.clean(locale), layout.index(locale)
    paths = (
        layout.PARAMS, clean.products, clean.queries, clean.judgements, clean.counts,
        layout.embeddings(locale).manifest, index.card, index.index,
    )  # fmt: skip
    links: Signature
    try:
        links = tuple(_links(locale))
    except PipelineError:  # DVC may be writing it
        links = tuple(map(_signed, layout.LOCKS))
    return (*map(_signed, paths), *links)


def _links(locale: str) -> list[Link]:
    """Return the links that `check_lock` compares; none where there is no dvc.lock."""
    if not layout.LOCK.is_file():
        return []
    stages = _stages(_signed(layout.LOCK))
    models = _stages(_signed(layout.MODELS_LOCK)) if layout.MODELS_LOCK.is_file() else {}
    made = {
        out["path"]: out.get("md5")
        for one in (*models.values(), *stages.values())
        for out in one.get("outs", [])
    }
    return [
        (name, dep["path"], dep.get("md5"), made[dep["path"]])
        for name in ("embed", "index")
        for dep in stages.get(f"{name}@{locale}", {}).get("deps", [])
        if dep["path"] in made
    ]


@lru_cache(maxsize=2)
def _stages(signed: Signed) -> dict[str, Any]:
    """Return the stages of a dvc.lock, which is read again when it is another file than before."""
    lock = Path(signed[0])
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        data = yaml.load(lock.read_bytes(), loader)  # noqa: S506 (a safe loader)
        stages: dict[str, Any] = dict(data["stages"])
        for one in stages.values():
            for entry in [*one.get("deps", []), *one.get("outs", [])]:
                str(entry["path"])
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as err:
        raise PipelineError(f"{lock} is not readable. Run `git checkout {lock}`.") from err
    return stages


def _signed(path: Path) -> Signed:
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
