"""`python -m pipeline.embed`."""

import sys

from pipeline.core import stage
from pipeline.embed.stage import embed, plan

about = "say what would be encoded, what is in the store, and how long it would take"
sys.exit(stage.run_locales("embed", embed, instead={"plan": (plan, about)}))
