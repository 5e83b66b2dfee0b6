"""Put a generated file between its markers in README.md: `python -m bench.readme NAME FILE`."""

import argparse
import sys
from pathlib import Path

from pipeline.core import files
from pipeline.core.errors import PipelineError

README = Path("README.md")


def put_between_markers(text: str, name: str, block: str) -> str:
    """Return `text` with `block` between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.

    Raises:
        PipelineError: the markers are not there, once each and in order.
    """
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found_begin, rest = text.partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found_begin or not found_end or begin in tail or end in tail:
        raise PipelineError(f"{README} needs one line {begin!r} and, after it, one {end!r}")
    return f"{head}{begin}\n{block.strip()}\n{end}{tail}"


def main() -> int:
    """Read the arguments, change the file, return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.readme")
    parser.add_argument("name", help="the name in the markers")
    parser.add_argument("file", type=Path, help="what to put between them")
    arguments = parser.parse_args()
    try:
        block = arguments.file.read_text(encoding="utf-8")
        text = put_between_markers(README.read_text(encoding="utf-8"), arguments.name, block)
    except (PipelineError, FileNotFoundError) as err:
        sys.stderr.write(f"error: {err}\n")
        return 1
    with files.atomic_file(README) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
