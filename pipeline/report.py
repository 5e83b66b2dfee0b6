"""Put the locales side by side: reports/metrics/ -> reports/summary.json and reports/report.md."""

import sys
from collections.abc import Mapping
from typing import Any

from pipeline import files, layout, stage
from pipeline.params import Params

HEADLINE = (
    "ndcg@10",
    "mrr@10",
    "recall@10",
    "recall@100",
    "judged@10",
    "pool_ndcg",
    "pool_ndcg_floor",
)
"""The measures in the summary and in the table, of those that were computed."""

COUNTS = ("queries", "products")

Metrics = Mapping[str, Any]


def summarise(metrics: Mapping[str, Metrics]) -> dict[str, dict[str, float | int]]:
    """Return the headline of each locale and, under `mean`, the mean over the locales.

    Each locale counts the same, however many queries it has; a measure that some locale lacks has
    no mean.
    """
    summary: dict[str, dict[str, float | int]] = {
        locale: {
            **{name: of["dense"][name] for name in HEADLINE if name in of["dense"]},
            **{name: of[name] for name in COUNTS},
        }
        for locale, of in metrics.items()
    }
    shared = [name for name in HEADLINE if all(name in row for row in summary.values())]
    mean = {
        name: round(sum(row[name] for row in summary.values()) / len(summary), 5) for name in shared
    }
    return {**summary, "mean": mean}


def table(summary: Mapping[str, Mapping[str, float | int]], params: Params) -> str:
    """Return the summary as a markdown table, a row a locale."""
    columns = [name for name in HEADLINE if any(name in row for row in summary.values())]
    header = ["locale", "encoder", "index", *COUNTS, *columns]
    lines = [_row(header), _row(["---"] * 3 + ["---:"] * (len(header) - 3))]
    for locale, row in summary.items():
        names = ["", ""] if locale == "mean" else [params.encoder[locale], params.index[locale]]
        counts = [f"{row[name]:,}" if name in row else "" for name in COUNTS]
        values = [f"{row[name]:.4f}" if name in row else "" for name in columns]
        lines.append(_row([locale, *names, *counts, *values]))
    return "\n".join(lines) + "\n"


def report(params: Params) -> None:
    """Read every locale's metrics and write the summary and the table."""
    metrics = {
        locale: files.read_json(layout.metrics(locale), f"run `dvc repro evaluate@{locale}`")
        for locale in params.locales
    }
    summary = summarise(metrics)
    files.write_json(layout.SUMMARY, summary)
    with files.atomic_file(layout.REPORT) as partial:
        partial.write_text(table(summary, params), encoding="utf-8", newline="\n")


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(stage.run("report", report))
