"""The figures of a locale that are measured already, and figures as a table."""

from collections.abc import Mapping

from pipeline.core import layout, text_tables
from pipeline.core.cards import brief, read_model
from pipeline.core.errors import PipelineError
from pipeline.core.log import log
from pipeline.core.params import Index
from pipeline.report.tradeoff import FIGURES, TRADEOFF_SCHEMA, Basis, Figures, TradeOff


def read_figures(indexes: Mapping[str, Index], basis: Basis) -> dict[str, Figures]:
    """Return the figures in a locale's file that are still valid, by index; log those that are not.

    Valid figures were measured on this basis, with the settings that `indexes` has now. A file that
    is damaged or of another version has none.
    """
    path = layout.tradeoff(basis.locale)
    if not path.exists():
        return {}
    try:
        form = ("tradeoff_schema", TRADEOFF_SCHEMA)
        found = read_model(path, TradeOff, "Its figures are left out.", form)
    except PipelineError as err:
        log.info("ignoring %s", err)
        return {}

    def ignore(why: str) -> None:
        log.info("ignoring %s: %s", path, why)

    for key, value in basis.model_dump().items():
        if (was := getattr(found, key)) != value:
            ignore(f"{key} was {brief(was)} and is now {brief(value)}")
            return {}
    holding = {}
    for each in found.indexes:
        if indexes.get(each.index) == each.settings:
            holding[each.index] = each
        else:
            ignore(f"indexes.{each.index} had other settings")
    return holding


def table(locale: str, measured: Mapping[str, Figures], left_out: Mapping[str, str]) -> str:
    """Return the figures as a Markdown table, best overlap first, and why some are left out."""
    rows = []
    for each in sorted(measured.values(), key=lambda one: -one.overlap):
        cells = each.model_dump(by_alias=True)
        figures = ("" if cells[at] is None else f"{cells[at]:.5g}" for at in FIGURES)
        rows.append([locale, each.index, *figures, "yes" if each.mapped else "no"])
    reasons = "".join(f"{name}: {why}\n" for name, why in left_out.items())
    return text_tables.markdown(("locale", "index", *FIGURES, "mapped"), rows, FIGURES) + reasons
