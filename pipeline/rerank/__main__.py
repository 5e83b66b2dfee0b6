"""`python -m pipeline.rerank`."""

import sys

from pipeline.core import stage
from pipeline.rerank.stage import rerank

sys.exit(stage.run_locales("rerank", rerank))
