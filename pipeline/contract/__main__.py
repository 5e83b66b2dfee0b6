"""`python -m pipeline.contract`."""

import sys

from pipeline.contract.stage import contract
from pipeline.core import stage

sys.exit(stage.run_names("contract", contract, "encoders", "rerankers"))
