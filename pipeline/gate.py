"""Refuse an index that loses too much of the exact top 100: `python -m pipeline.gate`.

It reads params.yaml and reports/metrics/, which are in Git, so it needs no data. It is no stage of
the graph: one that failed there would keep the numbers of an experiment from being recorded.
"""

import sys
from collections.abc import Iterator
from typing import Any

from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError
from pipeline.core.params import HnswIndex, Index, IvfFlatIndex, IvfPqIndex, Params
from pipeline.runs import card as run_card

OVERLAP_DECIMALS = 5
"""Overlaps are recorded with so many; their differences from 1 have no more."""


def refusals(params: Params, locale: str, metrics: Any) -> Iterator[str]:
    """Say what is wrong with a locale's index, as the metrics tell it, or with the metrics."""
    where, remedy = layout.metrics(locale), layout.rerun_hint("evaluate", locale)
    told = metrics if isinstance(metrics, dict) else {}
    for section, chosen in (("encoder", params.encoder[locale]), ("index", params.index[locale])):
        if (found := told.get(section)) != chosen:
            yield f"{where}: {section} is {found!r}, but params.yaml says {chosen!r}. {remedy}"
            return
    dense = told.get("dense")
    overlap = dense.get(run_card.INDEX_OVERLAP) if isinstance(dense, dict) else None
    if not isinstance(overlap, float) or not 0 <= overlap <= 1:
        yield f"{where}: dense.{run_card.INDEX_OVERLAP} is {overlap!r}, not from 0 to 1. {remedy}"
        return
    lost, name = round(1 - overlap, OVERLAP_DECIMALS), params.index[locale]
    if params.index_gate is not None and lost > params.index_gate:
        yield (
            f"index.{locale}: {name} finds {overlap:g} of the exact top 100 and loses {lost:g}, "
            f"but index_gate allows {params.index_gate:g}; {_way_out(name, params.indexes[name])}"
        )


def gate(params: Params) -> None:
    """Check every locale.

    Raises:
        PipelineError: an index loses more than `index_gate`, or metrics are missing, damaged or of
            another choice; the message tells of all locales.
    """
    if params.index_gate is None:
        stage.log.info("gate: index_gate is empty: nothing is asked of the indexes")
        return
    wrong: list[str] = []
    for locale in params.locales:
        try:
            read = files.read_json(layout.metrics(locale), layout.rerun_hint("evaluate", locale))
        except PipelineError as err:
            wrong.append(str(err))
            continue
        told = list(refusals(params, locale, read))
        wrong.extend(told)
        if not told:
            stage.log.info(
                "gate locale=%s index=%s %s=%s allowed_to_lose=%s",
                locale, params.index[locale], run_card.INDEX_OVERLAP,
                read["dense"][run_card.INDEX_OVERLAP], params.index_gate,
            )  # fmt: skip
    if wrong:
        raise PipelineError("\n  ".join(wrong))


def _way_out(name: str, index: Index) -> str:
    match index:
        case HnswIndex():
            keys = "ef_search or m"
        case IvfFlatIndex():
            keys = "probes"
        case IvfPqIndex():
            keys = "probes, subvectors or bits"
        case _:
            return "choose another index, or allow more"
    return f"raise indexes.{name}.{keys}, choose another index, or allow more"


if __name__ == "__main__":
    sys.exit(stage.run("gate", gate))
