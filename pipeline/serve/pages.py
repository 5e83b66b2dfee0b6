"""The pages: HTML from templates that escape every text."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from pipeline.core import tables
from pipeline.core.systems import System
from pipeline.report.parts import join_styles, open_templates
from pipeline.report.wording import LABEL_WORDS
from pipeline.search.answer import Answer, Similar
from pipeline.search.display import say_variants
from pipeline.search.facets import FACETS
from pipeline.search.question import FIRST_PLACES
from pipeline.serve.requests import Asked

ASSETS = Path(__file__).parent / "assets"
STYLE = join_styles(ASSETS / "style.css")

MORE_PLACES = 3
"""How many times as many products the link for more shows."""

FLAGS = ("collapse", "typed")
"""What an address asks for by 1."""

FACET_NAMES = {name: "colour" if name == "color" else name for name in FACETS}
"""What a facet is called on a page."""

LABELS = {label: LABEL_WORDS[label].lower() for label in tables.LABELS}
LANGUAGES = {"any": "und"}

_TEMPLATES = open_templates(ASSETS, count="{:,}".format, variants=say_variants)


def search_page(
    asked: Asked,
    locales: list[str],
    systems: Sequence[System],
    language: str,
    *,
    answer: Answer | None = None,
    examples: list[str] | None = None,
    depth: int = 0,
    problem: str = "",
) -> str:
    """Return the page of a search, of an empty box with examples, or of a problem."""
    return _render(
        "search.html.j2", asked, locales, systems, language, problem,
        answer=answer,
        columns=[asked.left, asked.right] if asked.left != asked.right else [asked.left],
        examples=examples or [],
        more=min(asked.k * MORE_PLACES, depth) if asked.k < depth else 0,
    )  # fmt: skip


def similar_page(
    asked: Asked,
    locales: list[str],
    systems: Sequence[System],
    language: str,
    *,
    similar: Similar | None = None,
    problem: str = "",
) -> str:
    """Return the page of what is similar to a product, or of a problem."""
    return _render("similar.html.j2", asked, locales, systems, language, problem, similar=similar)


def _render(
    template: str,
    asked: Asked,
    locales: list[str],
    systems: Sequence[System],
    language: str,
    problem: str,
    **own: Any,
) -> str:
    """Return a page: what every page shows, and what is its own."""
    return _TEMPLATES.get_template(template).render(
        asked=asked,
        locales=locales,
        systems=systems,
        language=LANGUAGES.get(language, language),
        usual_k=FIRST_PLACES,
        problem=problem,
        facets=FACET_NAMES,
        labels=LABELS,
        link=lambda **changes: _link(asked, changes),
        similar_link=lambda product_id: _similar_link(asked, product_id),
        **own,
    )


def _link(asked: Asked, changes: dict[str, Any]) -> str:
    """Return the address of a search like this one with some values changed; usual ones go."""
    values = {**vars(asked), **changes}
    usual = vars(Asked())
    shown = {name: value for name, value in values.items() if value != usual[name]}
    shown |= {name: "1" for name in FLAGS if values[name]}
    return "/?" + urlencode({"q": values["q"], **shown})


def _similar_link(asked: Asked, product_id: str) -> str:
    """Return the address of what is similar to a product; it has all that leads back."""
    return f"/similar/{quote(product_id, safe='')}{_link(asked, {}).removeprefix('/')}"
