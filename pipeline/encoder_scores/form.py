"""The forms of reports/encoder_scores, as the stage writes them and others read them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import numpy as np
import pyarrow as pa
from pydantic import Field

from pipeline.core import layout
from pipeline.core.cards import brief, read_model
from pipeline.core.errors import PipelineError
from pipeline.core.param_types import Count, Name, Number, Sha256, Strict
from pipeline.core.params import ENCODER, ENCODER_MEASURES, Similarity
from pipeline.encoder_scores.measures import Measured
from pipeline.evaluate import per_query
from pipeline.evaluate.metrics import MEAN_DECIMALS
from pipeline.evaluate.per_query import MEASURE, ContentsHash, Sample
from pipeline.evaluate.per_query_reader import impossible_labels, read_sealed
from pipeline.evaluate.uncertainty import Interval

ENCODER_SCORES_SCHEMA = 1
"""Version of both files; others are refused."""

OF_EACH_QUERY = ("query_spearman", "map")
"""The measures that every query has by itself: each value is within `bounds`, and not the mean."""

ROUNDED = 2e-5
"""How far a mean of values that are rounded to 5 digits may be from the rounded measure."""

Figure = Annotated[float, Field(allow_inf_nan=False)]


class JudgedSample(Strict):
    """What the numbers are of, as `per_query.Sample` without the depth of runs."""

    locale: Name
    products: Count
    queries: Number
    product_ids_sha256: Sha256
    query_ids_sha256: Sha256
    judgements_sha256: Sha256

    @classmethod
    def of(cls, sample: Sample) -> Self:
        """Return the sample without the depth."""
        return cls(**sample.model_dump(exclude={"depth"}))


class Basis(Strict):
    """What the numbers are of: judged pairs, the vectors of both sides, and how they compare."""

    encoder_scores_schema: int
    sample: JudgedSample
    encoder: Name
    weights_sha256: Sha256
    product_vectors_sha256: Sha256
    query_vectors_sha256: Sha256
    similarity: Similarity


class ValuesCard(Basis):
    """What a table of values by query is of, and a hash of its contents."""

    contents_sha256: ContentsHash


class Measure(Strict):
    """A measure and its interval, without numbers where it is undefined; see `Measured`.

    `queries` take part, `queries_left_out` do not.
    """

    value: Figure | None = None
    low: Figure | None = None
    high: Figure | None = None
    floor: Figure | None = None
    threshold: Figure | None = None
    pairs: Number
    queries: Number
    queries_left_out: Number


class EncoderScores(Basis):
    """What an encoder is worth by itself: reports/encoder_scores/<locale>.json.

    `judgements_without_text` are of products without a text, which have no vector; `labels` counts
    the `pairs` that are left.
    """

    judgements_without_text: Number
    pairs: Number
    labels: dict[str, Number]
    measures: dict[str, Measure]


def describe(measured: Measured, interval: Interval, name: str) -> Measure:
    """Return a measure as the report has it, its interval cut to what the measure can be."""
    numbers = {}
    if interval.queries:
        _, low, high, _ = cut(interval, name)
        numbers = {"value": measured.value, "low": low, "high": high, "floor": measured.floor}
    rounded = {key: round(value, MEAN_DECIMALS) for key, value in numbers.items()}
    # As it is: it is a score, and scores have a digit more than measures.
    threshold = None if math.isnan(measured.threshold) else measured.threshold
    return Measure(
        **rounded,
        threshold=threshold,
        pairs=measured.pairs,
        queries=interval.queries,
        queries_left_out=len(measured.by_query) - interval.queries,
    )


def cut(interval: Interval, name: str) -> Interval:
    """Return an interval without the part that the measure cannot be.

    The values of a measure over all pairs may be outside, so the ends of its interval may be too.
    """
    low, high = (float(np.clip(end, *bounds(name))) for end in (interval.low, interval.high))
    return interval._replace(low=low, high=high)


def bounds(name: str) -> tuple[float, float]:
    """Return the least and the most that a measure can be."""
    return (-1.0, 1.0) if name.endswith("spearman") else (0.0, 1.0)


def read_scores(locale: str) -> EncoderScores:
    """Read a locale's report.

    Raises:
        PipelineError: it is missing or of another form.
    """
    return read_model(
        layout.encoder_scores(locale), EncoderScores, layout.rerun_hint("encoder_scores", locale),
        ("encoder_scores_schema", ENCODER_SCORES_SCHEMA),
    )  # fmt: skip


def table(
    query_ids: pa.ChunkedArray, measured: Mapping[str, Measured], labels: Sequence[str]
) -> pa.Table:
    """Return the table of values by query without its card.

    Columns: query_id; `encoder.map` and the other measures, float32, rounded to 5 digits, null
    where a query takes no part; `encoder.labels`: those of the first judged products.
    """
    columns = {"query_id": query_ids}
    for name, each in measured.items():
        rounded = np.round(each.by_query, MEAN_DECIMALS).astype(np.float32)
        columns[f"{ENCODER}.{name}"] = pa.array(rounded, MEASURE, from_pandas=True)
    columns[f"{ENCODER}.labels"] = pa.array(labels, pa.string())
    return pa.table(columns)


def write_table(path: Path, rows: pa.Table, card: ValuesCard) -> None:
    """Write the table with its card, small."""
    per_query.write(path, per_query.seal(rows, card))


def read_table(data: bytes, where: str, locale: str, remedy: str) -> tuple[pa.Table, ValuesCard]:
    """Read a table of values by query, and check all that it says.

    Args:
        data: the file.
        where: what messages call it.
        locale: whose table it must be.
        remedy: a sentence that says how to get a good table; messages end with it.

    Raises:
        PipelineError: the file is damaged, was edited, or is of another version or locale.
    """
    schema = ("encoder_scores_schema", ENCODER_SCORES_SCHEMA)
    rows, card = read_sealed(data, where, ValuesCard, schema, remedy)
    for wrong in _impossible(rows, card, locale):
        raise PipelineError(f"{where}: {wrong}: the file was edited. {remedy}")
    return rows, card


def check_fits(scores: Basis, systems: per_query.Card, where: str, remedy: str) -> None:
    """Check that an encoder's measures are of the encoder, vectors and sample of the systems'.

    The vectors count where the systems' card, which may be older, has their hashes.

    Raises:
        PipelineError: they are not.
    """
    vectors = systems.vectors_sha256()
    of = JudgedSample.of(systems.sample).model_dump() | {"encoder": systems.encoder} | vectors
    found = scores.sample.model_dump() | scores.model_dump(include={"encoder", *vectors})
    for key, expected in of.items():
        if found[key] != expected:
            raise PipelineError(
                f"{where}: {key} must be {brief(expected)}, as in the table of the systems "
                f"(found {brief(found[key])}): one of them is older. {remedy}"
            )


def _impossible(rows: pa.Table, card: ValuesCard, locale: str) -> Iterator[str]:
    """Say what the stage cannot have written: a wrong hash is damage, but this was edited."""
    if card.sample.locale != locale:
        yield f"the table is of the locale {card.sample.locale}"
    if len(rows) != card.sample.queries:
        yield f"{len(rows):,} rows for the {card.sample.queries:,} queries of the sample"
    names = ["query_id", *(f"{ENCODER}.{each}" for each in (*ENCODER_MEASURES, "labels"))]
    types = [pa.int64(), *[MEASURE] * len(ENCODER_MEASURES), pa.string()]
    if rows.column_names != names or rows.schema.types != types:
        yield f"the columns must be {', '.join(names)}"
        return
    for name in ENCODER_MEASURES:
        values = rows[f"{ENCODER}.{name}"].drop_null().to_numpy().astype(np.float64)
        least, most = bounds(name) if name in OF_EACH_QUERY else (-math.inf, math.inf)
        if not (np.isfinite(values).all() and ((values >= least) & (values <= most)).all()):
            yield f"{ENCODER}.{name} has a value that it cannot have"
        elif len(values) and not _inside(float(values.mean()), *bounds(name)):
            yield f"the mean of {ENCODER}.{name} cannot be {values.mean():g}"
    yield from impossible_labels(names[-1], rows[names[-1]])


def _inside(value: float, least: float, most: float) -> bool:
    return least - ROUNDED <= value <= most + ROUNDED
