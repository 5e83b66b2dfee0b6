"""A colour for each cluster, on white and on black alike."""

import numpy as np
from numpy.typing import NDArray

LIGHTNESS, CHROMA = 0.66, 0.13
_GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))
_HUES = 8
"""After this many colours, the next ones are lighter or darker: so near hues differ."""

# Björn Ottosson, "A perceptual color space for image processing" (2020): OKLab to linear sRGB.
_TO_LMS = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)

Colours = NDArray[np.uint8]


def cluster_colours(clusters: int) -> Colours:
    """Return as many colours of about equal lightness, uint8 [clusters, 3]; red, green, blue.

    Neighbours in size get hues that are the golden angle apart, which repeats none.
    """
    number = np.arange(clusters)
    lightness = LIGHTNESS + 0.06 * (number // _HUES % 3 - 1)
    hue = number * _GOLDEN_ANGLE
    lab = np.column_stack([lightness, CHROMA * np.cos(hue), CHROMA * np.sin(hue)])
    linear = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0, 1)
    curved = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.asarray(np.rint(255 * curved), dtype=np.uint8)


def as_css(colours: Colours) -> list[str]:
    """Return colours as CSS writes them: "#1e90ff"."""
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in colours.tolist()]
