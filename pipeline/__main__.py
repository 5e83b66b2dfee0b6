"""One command for all: `esci-retrieval NAME …` is `python -m pipeline.NAME …`."""

import ast
import runpy
import sys
from pathlib import Path

from pipeline.core import start
from pipeline.core.light import explain_missing_packages

HERE = Path(__file__).parent


def find_commands() -> dict[str, str]:
    """Return every command with the first line of its docstring, by name."""
    folders = {
        path.parent.name: path.with_name("__init__.py") for path in HERE.glob("*/__main__.py")
    }
    modules = {path.stem: path for path in HERE.glob("[!_]*.py")}
    found = {}
    for name, path in sorted({**folders, **modules}.items()):
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        found[name] = about.partition("\n")[0].partition(": `")[0]
    return found


def main() -> int:
    """Run the named command, or list all; return the exit status."""
    commands = find_commands()
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help"):
        width = max(map(len, commands))
        listed = [f"  {each.ljust(width)}  {about}" for each, about in commands.items()]
        sys.stdout.write("\n".join(["usage: esci-retrieval COMMAND …", "", *listed, ""]))
        return 0 if name else 2
    if name not in commands:
        known = ", ".join(commands)
        sys.stderr.write(f"error: there is no command {name!r}. Use one of: {known}.\n")
        return 2
    sys.argv[:2] = [f"esci-retrieval {name}"]
    start.begin(name)
    explain_missing_packages(name)
    runpy.run_module(f"pipeline.{name}", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
