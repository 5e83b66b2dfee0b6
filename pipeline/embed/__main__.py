"""`python -m pipeline.embed [--locale L] [--plan]`."""

import sys

from pipeline.core import stage
from pipeline.embed.stage import embed, plan

parser = stage.locale_parser("embed")
parser.add_argument(
    "--plan",
    action="store_true",
    help="only say what would be encoded, what the store holds already, and how long it would take",
)
arguments = parser.parse_args()
sys.exit(stage.run_locales("embed", plan if arguments.plan else embed, arguments))
