"""A plan held to what the stages then took: one row a stage and locale that ran since."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from pipeline.core.params import Strict
from pipeline.core.timings import Kept, Record
from pipeline.plan.sheet import Amount, Row, Totals


class Plan(Strict):
    """A cost sheet as it is kept in the cache; `made` in Unix seconds."""

    plan_schema: Annotated[int, Field(ge=1, le=1)] = 1
    made: Amount
    rows: tuple[Row, ...]
    totals: Totals


class Held(Strict):
    """A row of the plan and what its stage then took; None where it did not run since."""

    planned: Row
    actual: Record | None


def hold(plan: Plan, kept: Sequence[Kept]) -> list[Held]:
    """Return each row of a plan with the run of its stage that ended after the plan was made."""
    runs = {
        (one.last.stage, one.last.locale, one.last.kind): one.last
        for one in kept
        if one.last.ended >= plan.made
    }
    return [Held(planned=row, actual=runs.get((row.stage, row.locale, row.kind)))
            for row in plan.rows]  # fmt: skip


def cells(held: Sequence[Held]) -> list[list[str]]:
    """Return the table of predicted against actual, its head first."""
    head = [
        "stage", "locale", "units", "seconds planned", "actual", "MB planned", "actual", "known by",
    ]  # fmt: skip
    lines = [head]
    for each in held:
        planned, actual = each.planned, each.actual
        if actual is None:
            continue
        shown = {key: actual.units[key] for key in planned.units if key in actual.units}
        same = shown == planned.units
        units = planned.shown()
        if not same:
            units += f" (then: {planned.model_copy(update={'units': shown}).shown()})"
        lines.append([
            planned.stage, planned.locale or "", units,
            f"{planned.seconds:,.1f}", f"{actual.seconds:,.1f}",
            f"{planned.peak_bytes / 1e6:,.0f}", f"{actual.peak_bytes / 1e6:,.0f}", planned.known,
        ])  # fmt: skip
    ran = [(each.planned, each.actual) for each in held if each.actual]
    seconds = sum(planned.seconds for planned, _ in ran), sum(actual.seconds for _, actual in ran)
    peaks = (
        max((planned.peak_bytes for planned, _ in ran), default=0.0),
        max((actual.peak_bytes for _, actual in ran), default=0),
    )
    lines.append([
        "total", "", f"{len(ran)} of {len(held)} rows ran since",
        *(f"{each:,.1f}" for each in seconds), *(f"{each / 1e6:,.0f}" for each in peaks), "",
    ])  # fmt: skip
    return lines
