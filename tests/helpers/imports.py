"""Which files of this project a module imports, read from the code and not by running it."""

import ast
from functools import cache
from pathlib import Path

from tests.helpers.artefacts import ROOT


@cache
def _imports(path: Path) -> set[Path]:
    """Return the files of `pipeline` that a file imports, in one step."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "pipeline":
            module = Path(*str(node.module).split("."))
            for alias in node.names:
                for candidate in (
                    module / f"{alias.name}.py",
                    module / alias.name / "__init__.py",
                    module.with_suffix(".py"),
                ):
                    if (ROOT / candidate).is_file():
                        found.add(candidate)
                        break
            packages = [package / "__init__.py" for package in (module, *module.parents)]
            found |= {each for each in packages if (ROOT / each).is_file()}
    return found - {Path("__init__.py"), Path("pipeline/__init__.py")}


def import_closure(path: Path) -> set[Path]:
    """Return every file of `pipeline` that running a module reads, itself included."""
    closure: set[Path] = set()
    waiting = {path}
    while waiting:
        closure |= waiting
        waiting = {each for one in waiting for each in _imports(one)} - closure
    return closure
