"""Multilingual product search on ESCI: one folder per stage.

sample → clean → embed → index → retrieve → evaluate → report; `demo` makes the default source.
"""

import sys

if sys.argv[:1] == ["-m"]:  # `python -m pipeline.NAME`; Python names the module only after this
    from pipeline.core import start

    start.begin()  # before the largest imports; `report_errors` ends it

    from pipeline.core.light import explain_missing_packages

    explain_missing_packages()
