"""`python -m pipeline.clusters`."""

import sys

from pipeline.clusters.stage import clusters
from pipeline.core import stage

sys.exit(stage.run_locales("clusters", clusters))
