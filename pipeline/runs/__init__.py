"""Runs, the rankings of a system: their files, what they are over, and the order of products."""
