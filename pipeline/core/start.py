"""The start of a process: what only takes time then is put off, or left out.

A stage of a small catalogue takes longer to start than to work, and DVC starts each one anew.
"""

import gc
import os
import sys

from pipeline.core import interrupts


def begin(command: str) -> None:
    """Put off the search for garbage until `end`, and leave out pydantic's search for plugins.

    Until `end`, Ctrl-C ends the process with one line.

    Modules are no garbage, but so many objects that looking through them again and again takes as
    long as the largest of them. pydantic would read a file of every package that is installed.

    Args:
        command: its name, for that line.
    """
    interrupts.quit_at_once(command)
    gc.disable()
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")


def end() -> None:
    """Search for garbage from here on, but never among what is there by now; Ctrl-C raises.

    So neither the work nor Python's exit looks through the modules again. Where nothing was put
    off, this changes nothing.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()
    interrupts.raise_again()


def spare_pandas() -> None:
    """Keep pyarrow from importing pandas, unless pandas is imported already, or pyarrow is not.

    Its first conversion does, only to know pandas' types: a quarter of the time that a small stage
    takes. Afterwards `import pandas` and `to_pandas` work as ever.
    """
    if "pandas" in sys.modules or "pyarrow" not in sys.modules:
        return
    import pyarrow as pa  # here, because stages without tables have no need of it

    sys.meta_path.insert(0, _Absent)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(_Absent)


class _Absent:
    """An import hook that finds no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ImportError(name)
