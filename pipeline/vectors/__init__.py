"""Vectors on disk: a manifest and `.npy` shards per locale, checked when they are read."""
