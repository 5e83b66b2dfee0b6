"""Measurements: how fast encoding is, and slow proofs of what it promises; in no stage."""
