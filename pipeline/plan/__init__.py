"""Estimate what a run of the pipeline will take, and compare that with what it took."""
