"""Put the locales side by side: reports/metrics/ -> reports/summary.json and reports/report.md."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import files, layout, stage
from pipeline.errors import PipelineError
from pipeline.metrics import headline
from pipeline.params import MEAN, Params

CHOICES = ("encoder", "index")
COUNTS = ("queries", "products")

Metrics = Mapping[str, Any]
Summary = dict[str, dict[str, float | int | str]]


def summarise(metrics: Mapping[str, Metrics], measures: Sequence[str]) -> Summary:
    """Return the given measures of each locale and, under `mean`, the mean over the locales.

    Each locale counts the same, however many queries it has; a measure that some locale lacks has
    no mean.
    """
    summary: Summary = {
        locale: {
            **{name: of[name] for name in (*CHOICES, *COUNTS)},
            **{name: of["dense"][name] for name in measures if name in of["dense"]},
        }
        for locale, of in metrics.items()
    }
    values = {name: [of["dense"].get(name) for of in metrics.values()] for name in measures}
    mean = {
        name: round(sum(of_all) / len(of_all), 5)
        for name, of_all in values.items()
        if None not in of_all
    }
    return {**summary, MEAN: mean}


def table(summary: Summary, measures: Sequence[str]) -> str:
    """Return the summary as a markdown table, a row a locale."""
    columns = ["locale", *CHOICES, *COUNTS, *measures]
    left = 1 + len(CHOICES)
    lines = [_row(columns), _row(["---"] * left + ["---:"] * (len(columns) - left))]
    for locale, row in summary.items():
        lines.append(_row([locale, *(_cell(row.get(name, "")) for name in columns[1:])]))
    return "\n".join(lines) + "\n"


def report(params: Params) -> None:
    """Read every locale's metrics and write the summary and the table."""
    metrics = {
        locale: files.read_json(layout.metrics(locale), f"run `dvc repro evaluate@{locale}`")
        for locale in params.locales
    }
    measures = headline(params.evaluate)
    try:
        summary = summarise(metrics, measures)
    except (KeyError, TypeError) as err:
        raise PipelineError(
            f"{layout.METRICS} holds a file that evaluate did not write ({err!r}); "
            "run `dvc repro evaluate`"
        ) from err
    files.write_json(layout.SUMMARY, summary)
    with files.atomic_file(layout.REPORT) as partial:
        partial.write_text(table(summary, measures), encoding="utf-8", newline="\n")


def _cell(value: float | int | str) -> str:
    match value:
        case float():
            return f"{value:.4f}"
        case int():
            return f"{value:,}"
    return value


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(stage.run("report", report))
