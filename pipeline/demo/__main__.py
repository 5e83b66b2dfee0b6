"""`python -m pipeline.demo`."""

import sys

from pipeline.core import stage
from pipeline.demo.stage import demo

sys.exit(stage.run("demo", demo))
