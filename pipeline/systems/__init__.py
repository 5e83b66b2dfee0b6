"""Stage systems: runs of other engines -> data/runs/systems, in the form of the pipeline's own."""
