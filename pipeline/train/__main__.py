"""`python -m pipeline.train --name NAME`."""

import sys

from pipeline.core import stage
from pipeline.train.stage import train

sys.exit(stage.run_names("train", train, "trained"))
