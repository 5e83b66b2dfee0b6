"""Benchmarks, slow proofs, and the generator of full-size catalogues. No stage imports them."""
