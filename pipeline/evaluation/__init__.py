"""Runs against judgements: the measures, query by query, their uncertainty and their slices."""
