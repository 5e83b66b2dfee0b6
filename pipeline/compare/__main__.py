"""`python -m pipeline.compare`."""

import os
import sys

from pipeline.compare.command import main

status = main()
sys.stdout.flush()
sys.stderr.flush()
# Threads of the libraries that read DVC's file systems may abort Python's own way out, and with
# it the status, which is what this program is asked for.
os._exit(status)
