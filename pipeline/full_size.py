"""A stand-in for all of ESCI: its size, its files, its schema, its shape; made-up words.

python -m pipeline.full_size [--products N] [--out DIR]
"""

from pathlib import Path

PRODUCTS = 1_814_924
"""The rows of ESCI's products file."""


def write(folder: Path, products: int = PRODUCTS) -> None:
    """Write a catalogue of `products` products, and queries and judgements in proportion."""
    raise NotImplementedError
