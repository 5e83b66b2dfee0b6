"""Matplotlib figures as SVG for a page: its colours, its font, a title."""

import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from pipeline.core.tables import LABELS
from pipeline.report.inputs import SHOWN, UNJUDGED

_ROLES = (
    "ink", "muted", "grid", "surface", *SHOWN,
    *LABELS, UNJUDGED, *(f"on-{label}" for label in LABELS), "other",
)  # fmt: skip

COLOURS = {role: f"#0000{number:02x}" for number, role in enumerate(_ROLES, start=1)}
"""The colour that a chart draws a role with. `to_markup` replaces it by the page's CSS property of
that name, so that one drawing serves the light and the dark theme."""

# What XML 1.0 does not allow in any form, and other controls: a text of the data may have them.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

_VARIABLES = {colour: f"var(--{role})" for role, colour in COLOURS.items()}

_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, in the page's font
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "font.size": 11.0,
    "figure.dpi": 72,  # a pixel of the page is a unit of the drawing
    "hatch.linewidth": 0.6,
    "path.simplify": False,
}


@contextmanager
def style() -> Iterator[None]:
    """Draw with matplotlib's defaults and our settings, not with this machine's."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


def drawing(width: float, height: float) -> Figure:
    """Return an empty figure of this size, in pixels."""
    return Figure(figsize=(width / 72, height / 72), dpi=72, facecolor="none")


def to_markup(figure: Figure, name: str, title: str, description: str) -> str:
    """Return a figure as an SVG element of a page; unprintable characters become blanks.

    Args:
        figure: drawn with `COLOURS` alone.
        name: unique on the page; all ids start with it.
        title: what it is, in some words.
        description: what it shows, for those who do not see it.
    """
    source = _save(figure, name)
    root = ET.fromstring(source)  # noqa: S314 - matplotlib's own output
    _restyle(root, set(re.findall(r"#([A-Za-z]\w*)[)\"]", source)), name)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib = {
        "class": "chart",
        "role": "img",
        "aria-labelledby": f"{name}-title",
        "aria-describedby": f"{name}-desc",
        "viewBox": root.attrib["viewBox"],
        "width": width,
        "height": height,
    }
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(tag, {"id": f"{name}-{tag}"})
        element.text = _UNPRINTABLE.sub(" ", words)
        root.insert(place, element)
    return ET.tostring(root, encoding="unicode")


def _save(figure: Figure, name: str) -> str:
    """Return a figure as matplotlib's SVG, the same text each time."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    # The salt gives the same ids each time.
    with mpl.rc_context({"svg.hashsalt": name}), warnings.catch_warnings():
        # The page's font draws the text, so the glyphs of matplotlib's own do not matter.
        warnings.filterwarnings("ignore", r"(?s)Glyph \d+ .* missing from font", UserWarning)
        figure.savefig(text, format="svg", metadata=nothing)
    return _UNPRINTABLE.sub(" ", text.getvalue())


def _restyle(root: ET.Element, referenced: Collection[str], name: str) -> None:
    """Leave out matplotlib's style, metadata and unused ids; take the page's colours and font."""
    for element in [root, *root.iter()]:
        for child in list(element):
            # The style would apply to the whole page, which has its own; the metadata are empty.
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        attributes = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        if attributes.get("id") not in referenced:
            attributes.pop("id", None)
        if attributes.get("transform", "").startswith("rotate(-0"):
            del attributes["transform"]
        element.attrib.clear()
        for key, value in attributes.items():
            element.set(key, _themed(key, value, name))


def _themed(key: str, value: str, name: str) -> str:
    """Return an attribute with the page's colours and font, and ids that start with `name`."""
    if key == "id":
        return f"{name}-{value}"
    if key == "href":
        return f"#{name}-{value.removeprefix('#')}"
    if key in ("d", "x", "y", "transform", "width", "height"):
        return re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.2f}", value).strip()
    value = value.replace("url(#", f"url(#{name}-")
    value = re.sub(r"#[0-9a-f]{6}\b", lambda found: _VARIABLES[found[0]], value)
    value = re.sub(r"font-family: [^;]+;? ?", "", value)
    return re.sub(r"font: (?:(\w+) )?([\d.]+)px [^;]+", _font, value)


def _font(found: re.Match[str]) -> str:
    weight = f"; font-weight: {found[1]}" if found[1] else ""
    return f"font-size: {found[2]}px{weight}"
