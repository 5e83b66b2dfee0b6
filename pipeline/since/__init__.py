"""The page of the workspace with what moved since a revision: `python -m pipeline.since`."""
