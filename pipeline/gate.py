"""Refuse an index that loses too much of the exact top 100: `python -m pipeline.gate`.

It reads params.yaml and reports/metrics/, which are in Git, so it needs no data. It is not a stage:
a stage that failed would keep DVC from recording the numbers of an experiment.
"""

import sys
from typing import Any

from pipeline.core import files, layout, stage
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.log import log
from pipeline.core.params import Index, Params
from pipeline.runs import card as run_card

LOOSENING = ("ef_search", "m", "probes", "subvectors", "bits", "rescore")
"""The settings that let an index find more when they are raised, in the order of messages."""


def refusal(params: Params, locale: str, metrics: Any) -> str | None:
    """Return what is wrong with a locale's index by its metrics, or with the metrics, or None."""
    where, remedy = layout.metrics(locale), layout.rerun_hint("evaluate", locale)
    known = metrics if isinstance(metrics, dict) else {}
    for section, chosen in (("encoder", params.encoder[locale]), ("index", params.index[locale])):
        if (found := known.get(section)) != chosen:
            return f"{where}: {section} must be {chosen!r} (found {shorten(found)}). {remedy}"
    name = params.index[locale]
    settings = run_card.index_settings(run_card.of_index(name, params.indexes[name]))
    measured = known.get(run_card.INDEX_SETTINGS)
    if not isinstance(measured, dict):
        return f"{where} does not say of which settings of {name} it is. {remedy}"
    if differs := run_card.other_setting(measured, settings):
        return f"{where}: {differs}: the overlap is that of indexes.{name} as it was. {remedy}"
    if run_card.NOT_MEASURED in known:
        return (
            f"{where}: nothing is measured ({shorten(known[run_card.NOT_MEASURED])}), so what the "
            "index misses is not known. Empty index_gate, or use a sample with judgements."
        )
    dense = known.get("dense")
    overlap = dense.get(run_card.INDEX_OVERLAP) if isinstance(dense, dict) else None
    if not isinstance(overlap, float) or not 0 <= overlap <= 1:
        return (
            f"{where}: dense.{run_card.INDEX_OVERLAP} must be from 0 to 1 (found "
            f"{shorten(overlap)}). {remedy}"
        )
    lost = round(1 - overlap, run_card.OVERLAP_DECIMALS)
    if params.index_gate is not None and lost > params.index_gate:
        return (
            f"index.{locale}: {name} finds {overlap:g} of the exact top 100 and loses {lost:g}, "
            f"but index_gate allows {params.index_gate:g}. {_way_out(name, params.indexes[name])}"
        )
    return None


def gate(params: Params) -> None:
    """Check every locale.

    Raises:
        PipelineError: an index loses more than `index_gate`, or metrics are missing, damaged or of
            another choice; the message names all such locales.
    """
    if params.index_gate is None:
        log.info("gate: index_gate is empty: any index passes")
        return
    wrong: list[str] = []
    for locale in params.locales:
        try:
            read = files.read_json(layout.metrics(locale), layout.rerun_hint("evaluate", locale))
        except PipelineError as err:
            wrong.append(str(err))
            continue
        if (found := refusal(params, locale, read)) is not None:
            wrong.append(found)
        else:
            log.info(
                "gate locale=%s index=%s %s=%s allowed_to_lose=%s",
                locale, params.index[locale], run_card.INDEX_OVERLAP,
                read["dense"][run_card.INDEX_OVERLAP], params.index_gate,
            )  # fmt: skip
    if wrong:
        raise PipelineError("\n  ".join(wrong))


def _way_out(name: str, index: Index) -> str:
    keys = [key for key in LOOSENING if key in type(index).model_fields]
    if not keys:
        return "Choose another index, or allow more."
    named = " or ".join(filter(None, (", ".join(keys[:-1]), keys[-1])))
    return f"Raise indexes.{name}.{named}, choose another index, or allow more."


if __name__ == "__main__":
    sys.exit(stage.run("gate", gate))
