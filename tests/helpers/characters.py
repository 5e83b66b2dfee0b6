"""The characters of Unicode."""

import sys

CHARACTERS = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
"""All code points but halves of pairs."""


def _is_tried(code: int) -> bool:
    assigned = code < 0x34000 or 0xE0000 <= code < 0xE1000
    return assigned or code % 0xFFF == 0 or code & 0xFFFF >= 0xFFFE


TRIED = [char for char in CHARACTERS if _is_tried(ord(char))]
"""Every character of the planes that have some, and a few code points of the others."""
