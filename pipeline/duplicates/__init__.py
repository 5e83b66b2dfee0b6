"""The duplicates stage: groups of the same or nearly the same product."""
