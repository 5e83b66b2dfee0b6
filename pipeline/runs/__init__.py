"""Runs, the rankings that a system gives: one folder per system and locale.

Every system writes the same three files: `catalogue.parquet` ranks products of the whole catalogue,
`pool.parquet` ranks each query's judged products, and `run.json`, the card, says what the runs are.
"""
