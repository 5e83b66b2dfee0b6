"""The hybrid stage: fuse the dense and the bm25 runs of a locale."""
