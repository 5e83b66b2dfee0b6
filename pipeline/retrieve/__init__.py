"""The retrieve stage: search the index for every query, and rank its judged products."""
