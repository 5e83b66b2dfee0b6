"""Your own catalogue: two tables become the source that `sample` reads."""
