"""The two sides of a comparison: what a revision says of a locale, and whether two of them fit."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.types as pt

from pipeline.core.errors import PipelineError, did_you_mean
from pipeline.core.params import ENCODER
from pipeline.evaluate.per_query import Card

Names = tuple[str, str]

Hit = tuple[str | None, str]
"""Label (None: unjudged) and title of a product."""

Top = dict[tuple[int, str], list[Hit]]
"""The first products for each query_id and system, in rank order."""

RERANK = "rerank"
"""The system that orders the run of another one again."""


@dataclass(frozen=True)
class Side:
    """One locale at one revision: its per-query table, and the card that says what it is of."""

    table: pa.Table
    card: Card

    @property
    def chosen(self) -> dict[str, str]:
        """The encoder and the index."""
        return {"encoder": self.card.encoder, "index": self.card.index}

    @property
    def reranked(self) -> bool:
        """Whether the locale has a reranker."""
        return any(name.startswith(f"{RERANK}.") for name in self.table.column_names)

    def with_rerank(self, reordered: str) -> "Side":
        """Return this side with a system `rerank`: that of the run `reordered` if it has none."""
        if self.reranked:
            return self
        names = [name for name in self.table.column_names if name.startswith(f"{reordered}.")]
        called = [f"{RERANK}.{name.partition('.')[2]}" for name in names]
        return self.beside(self.table.select(names).rename_columns(called))

    def beside(self, more: pa.Table) -> "Side":
        """Return this side with more columns, of the same queries in the same order."""
        table = self.table
        for name, column in zip(more.column_names, more.columns, strict=True):
            table = table.append_column(name, column)
        return Side(table, self.card)


def metrics(table: pa.Table) -> list[str]:
    """Return the columns of a per-query table that hold measures, such as dense.ndcg@10."""
    return [field.name for field in table.schema if pt.is_floating(field.type)]


def check_metric(new: Side, metric: str, where: str) -> None:
    """Raise a `PipelineError` if the new side lacks a metric: its fall would go unnoticed."""
    known = metrics(new.table)
    if metric not in known:
        raise PipelineError(
            f"compare.metrics: {where} has no {metric!r} (it has: {', '.join(known)})"
            f"{did_you_mean(metric, known) or '.'} Name one of these."
        )


def in_one_alone(a: Mapping[str, Side], b: Mapping[str, Side], names: Names) -> Iterator[str]:
    """Say which locales are on one side only."""
    for one, other, name in ((a, b, names[0]), (b, a, names[1])):
        for locale in one:
            if locale not in other:
                yield f"{locale} is only in {name}: not compared"


def comparable(
    a: Mapping[str, Side], b: Mapping[str, Side], names: Names, metrics: Sequence[str]
) -> list[str]:
    """Return the locales that both sides have.

    The depth of the runs may differ where all metrics are of the encoder by itself, which has none.

    Raises:
        PipelineError: there are none, or the sides are of different samples in one of them.
    """
    shared = [locale for locale in a if locale in b]
    if not shared:
        raise PipelineError(
            f"{names[0]} has the locales {', '.join(a) or 'none'}, {names[1]} has "
            f"{', '.join(b) or 'none'}: none is on both sides. Compare revisions that share one."
        )
    of_runs = any(metric.partition(".")[0] != ENCODER for metric in metrics)
    ignored = () if of_runs else ("depth",)
    unlike = [
        f"{locale}: {'; '.join(found)}"
        for locale in shared
        if (found := list(_differences(a[locale], b[locale], names, ignored)))
    ]
    if unlike:
        raise PipelineError(
            f"{names[0]} and {names[1]} are of different samples, so their numbers cannot be "
            "compared:\n" + "\n".join(f"  {line}" for line in unlike)
        )
    return shared


def _differences(a: Side, b: Side, names: Names, ignored: Collection[str]) -> Iterator[str]:
    """Say in what two samples differ, except in `ignored`; the value of each side in turn."""
    other = b.card.sample.model_dump()
    for key, value in a.card.sample.model_dump().items():
        if value != other[key] and key not in ignored:
            name = key.removesuffix("_sha256").replace("_", " ")
            yield f"{name} {_brief(value)} and {_brief(other[key])}"
    ids = [set(each.table["query_id"].to_pylist()) for each in (a, b)]
    for only, side in ((ids[0] - ids[1], names[0]), (ids[1] - ids[0], names[1])):
        if only:
            yield f"{len(only):,} queries only in {side}, such as {min(only)}"


def _brief(value: str | int) -> str:
    return f"{value:,}" if isinstance(value, int) else value[:12]
