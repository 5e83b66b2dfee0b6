"""The names on the map: as many as fit without covering each other."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.catalogue.raster import Frame
from pipeline.core.arrays import Ints, Matrix

WIDE_SIZE, NARROW_SIZE = 15, 36
"""Height of the letters on a wide and a narrow screen, in pixels of the picture."""


@dataclass(frozen=True)
class Label:
    """A text in the picture: its middle, in pixels."""

    text: str
    x: float
    y: float


def middles(places: Matrix, cluster: Ints, frame: Frame) -> list[tuple[float, float]]:
    """Return the median pixel of each cluster's products."""
    pixels = frame.pixels(places)
    order = np.argsort(cluster, kind="stable")
    parts = np.split(pixels[order], np.flatnonzero(np.diff(cluster[order])) + 1)
    return [(float(x), float(y)) for x, y in (np.median(part, axis=0) for part in parts)]


def fit_labels(
    names: Sequence[Sequence[str]], at: Sequence[tuple[float, float]], frame: Frame, size: int
) -> list[Label]:
    """Return the labels that fit, those of the first names first; one of two words each.

    Args:
        names: the words of each cluster, the largest first; a cluster without any has no label.
        at: where each should be.
        frame: the picture.
        size: of the letters, in pixels.
    """
    taken: list[tuple[float, float, float]] = []
    labels = []
    for words, (x, y) in zip(names, at, strict=True):
        text = " · ".join(words[:2])
        half = size * text_width(text) / 2
        if not text or 2 * half > frame.width:
            continue
        x = min(max(x, half), frame.width - half)
        y = min(max(y, size), frame.height - size)
        if any(
            abs(x - other_x) < half + other_half + size / 2 and abs(y - other_y) < 1.3 * size
            for other_x, other_y, other_half in taken
        ):
            continue
        taken.append((x, y, half))
        labels.append(Label(text, round(x, 1), round(y, 1)))
    return labels


def text_width(text: str) -> float:
    """Return about how wide a text is, in heights of its letters."""
    return sum(1.0 if unicodedata.east_asian_width(sign) in "WF" else 0.56 for sign in text)
