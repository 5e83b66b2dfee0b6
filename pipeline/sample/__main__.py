"""`python -m pipeline.sample`."""

import sys

from pipeline.core import stage
from pipeline.sample.stage import sample

sys.exit(stage.run("sample", sample))
