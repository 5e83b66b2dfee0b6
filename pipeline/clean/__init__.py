"""The clean stage: one normalised text per query and product; what is dropped is counted."""
