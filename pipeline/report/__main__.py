"""`python -m pipeline.report`."""

import sys

from pipeline.core import stage
from pipeline.report.stage import report

sys.exit(stage.run("report", report))
