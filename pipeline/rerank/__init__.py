"""The rerank stage: a cross-encoder orders the first products of each query of a run again."""
