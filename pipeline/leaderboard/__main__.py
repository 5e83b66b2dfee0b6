"""`python -m pipeline.leaderboard`."""

import sys

from pipeline.leaderboard.command import main

if __name__ == "__main__":
    sys.exit(main())
