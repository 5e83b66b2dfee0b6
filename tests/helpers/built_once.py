"""Folders that are built once for each set of arguments, and written again from memory."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Concatenate, ParamSpec

P = ParamSpec("P")


def built_once(
    build: Callable[Concatenate[Path, P], Path],
) -> Callable[Concatenate[Path, P], Path]:
    """Let a function that fills a folder do its work once for equal arguments.

    Making a tiny model takes about as long as loading it, and hundreds of tests want the same few.
    """
    built: dict[str, dict[Path, bytes]] = {}

    @wraps(build)
    def written(folder: Path, /, *args: P.args, **kwargs: P.kwargs) -> Path:
        key = repr((args, kwargs))
        if key not in built:
            with TemporaryDirectory() as scratch:
                made = build(Path(scratch) / "made", *args, **kwargs)
                files = (path for path in made.rglob("*") if path.is_file())
                built[key] = {path.relative_to(made): path.read_bytes() for path in files}
        for name, content in built[key].items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder

    return written
