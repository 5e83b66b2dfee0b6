"""Take the runs of other engines: data/systems -> data/runs/systems/<locale>.

A run is of the whole catalogue, so the pool run of an engine is empty. A locale without other
engines has a card alone: DVC has no optional stages.
"""

from pipeline.core import files, layout, stage, start
from pipeline.core.params import Params
from pipeline.runs.others import OTHERS_SCHEMA, OtherRun, OtherRuns


def systems(params: Params, locale: str) -> stage.Done | None:
    """Write the runs of a locale's other engines, and the card of what was counted in them."""
    counts: dict[str, OtherRun] = {}
    done = None
    with files.atomic_directory(layout.other_runs(locale).folder) as partial:
        out = layout.OtherRunsFiles(partial)
        if params.systems[locale]:
            # Here, because most locales have no other engine, and numpy and Arrow take longer to
            # import than all else in this stage.
            from pipeline.systems.take import take_runs

            start.spare_pandas()
            counts, done = take_runs(params, locale, out)
        card = OtherRuns(systems_schema=OTHERS_SCHEMA, runs=counts)
        files.write_json(out.card, card.model_dump(mode="json"))
    return done
