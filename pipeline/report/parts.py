"""What the pages share: how templates are filled, the palette, the script of the theme button."""

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

ASSETS = Path(__file__).parent / "assets"


def open_templates(folder: Path, **filters: Callable[..., str]) -> Environment:
    """Return what finds the templates of a folder, and escapes all that is put into them."""
    found = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= filters
    return found


def join_styles(*paths: Path) -> str:
    """Return the palette and style sheets as one."""
    return _join(ASSETS / "palette.css", *paths)


def join_scripts(*paths: Path) -> str:
    """Return the script of the theme button and other scripts as one."""
    return _join(ASSETS / "theme.js", *paths)


def trusted_markup(markup: str) -> Markup:
    """Mark text that this package made as markup; texts of the data must be escaped before."""
    return Markup(markup)  # noqa: S704


def integrity(script: str) -> str:
    """Return the hash of a script as a Content-Security-Policy names it, without "sha256-"."""
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _join(*paths: Path) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)
