"""The map as a picture: as many products as there are, in the same time and space."""

import base64
import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray

from pipeline.catalogue.colours import Colours
from pipeline.core.arrays import Ints, Matrix

WIDTH = 1_000
MARGIN = 24
_FAINTEST = 0.5

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Frame:
    """Where the map's places are in a picture: `pixels = places * scale + shift`.

    Attributes:
        scale, shift: from places to pixels; shift is [2].
        width, height: of the picture, in pixels.
    """

    scale: float
    shift: NDArray[np.float64]
    width: int
    height: int

    @classmethod
    def around(cls, places: Matrix) -> "Frame":
        """Return the frame that holds all places, at least half as high as it is wide."""
        low, high = places.min(axis=0).astype(np.float64), places.max(axis=0).astype(np.float64)
        wide, high_ = (high - low).tolist()
        inner = WIDTH - 2 * MARGIN
        scale = inner / max(wide, high_, 1e-6)
        height = max(WIDTH // 2, round(high_ * scale) + 2 * MARGIN)
        middle = np.array([WIDTH, height]) / 2
        return cls(scale, middle - (low + high) / 2 * scale, WIDTH, height)

    def pixels(self, places: Matrix) -> NDArray[np.float64]:
        """Return where places are in the picture, [places, 2]."""
        return np.asarray(places * self.scale + self.shift)


def dot_radius(products: int) -> int:
    """Return the radius of a product's dot in pixels: 3 for hundreds, 0 for hundred thousands."""
    return int(np.clip(round(3 - np.log10(max(products, 1) / 1_000)), 0, 3))


def draw_raster(places: Matrix, cluster: Ints, colours: Colours, frame: Frame) -> Pixels:
    """Draw all products: the colour of a pixel's most frequent cluster, denser where more are.

    Args:
        places: of the products, [products, 2].
        cluster: of each product.
        colours: of each cluster.
        frame: where places are in the picture.

    Returns:
        Red, green, blue, alpha: uint8 [height, width, 4].
    """
    column, row = np.rint(frame.pixels(places)).astype(np.int64).T
    pixel = row * frame.width + column
    keys, numbers = np.unique(pixel * len(colours) + cluster, return_counts=True)
    of_pixel, of_cluster = np.divmod(keys, len(colours))
    # The most frequent cluster of a pixel is written last.
    order = np.lexsort((-of_cluster, numbers))
    most = np.zeros(frame.width * frame.height, dtype=np.int64)
    most[of_pixel[order]] = of_cluster[order]
    count = np.bincount(pixel, minlength=len(most))
    shape = frame.height, frame.width
    most, count = _spread(most.reshape(shape), count.reshape(shape), dot_radius(len(places)))
    strength = np.log1p(count) / np.log1p(max(1, int(count.max())))
    alpha = np.where(count > 0, _FAINTEST + (1 - _FAINTEST) * strength, 0)
    return np.dstack([colours[most], np.rint(255 * alpha).astype(np.uint8)])


def as_data_url(pixels: Pixels) -> str:
    """Return a picture as a PNG in a data URL."""
    out = io.BytesIO()
    no_version: dict[str, Any] = {"Software": None}
    imsave(out, pixels, format="png", metadata=no_version)
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"


def _spread(most: Ints, count: Ints, radius: int) -> tuple[Ints, Ints]:
    """Make a disc of each pixel; where discs overlap, the larger count is seen."""
    wide_most, wide_count = most.copy(), count.copy()
    height, width = count.shape
    for down in range(-radius, radius + 1):
        for right in range(-radius, radius + 1):
            if down**2 + right**2 > radius**2 + 1:
                continue
            to = np.s_[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)]
            by = np.s_[
                max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)
            ]
            larger = count[by] > wide_count[to]
            wide_most[to][larger] = most[by][larger]
            wide_count[to][larger] = count[by][larger]
    return wide_most, wide_count
