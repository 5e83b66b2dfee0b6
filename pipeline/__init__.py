"""Multilingual product search on ESCI: one folder per stage.

sample → clean → embed → index → retrieve → evaluate → report; `demo` makes the default source.
"""

import sys

# `python -m pipeline.NAME`: Python puts the module's path into sys.argv only after this. Another
# program may import us while it is in that state itself.
_MODULE = sys.orig_argv[-len(sys.argv)].removeprefix("-m") if sys.argv[:1] == ["-m"] else ""
if _MODULE.split(".")[0] == __name__:
    from pipeline.core import start

    start.begin(
        _MODULE.removeprefix(f"{__name__}.")
    )  # before the largest imports; `report_errors` ends it

    from pipeline.core.light import explain_missing_packages

    explain_missing_packages()
