"""The catalogue stage: a page of each explored locale, with its map, clusters and duplicates."""
