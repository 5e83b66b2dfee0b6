"""What each locale's encoder is worth by itself, as the page and the table show it."""

from collections.abc import Iterator, Mapping, Sequence

from pipeline.core import files, layout, text_tables
from pipeline.core.cards import refuse_differences
from pipeline.core.errors import PipelineError
from pipeline.core.params import ENCODER, ENCODER_MEASURES
from pipeline.core.tables import LABELS
from pipeline.encoder_scores.form import (
    ROUNDED,
    EncoderScores,
    Measure,
    ValuesCard,
    bounds,
    check_fits,
    read_scores,
    read_table,
)
from pipeline.report.inputs import LocaleResults

MEASURE_WORDS = {
    "ap_e_vs_i": (
        "AP, E or I",
        "Average precision: how well the score tells Exact pairs from Irrelevant ones, all queries "
        "together, with one threshold after the other.",
    ),
    "f1_e_vs_i": (
        "best F1, E or I",
        "F1 of the best single threshold on the score. It is chosen on these very pairs, so expect "
        "less on others.",
    ),
    "ap_e_vs_sci": ("AP, E or S, C, I", "Average precision of Exact pairs against all others."),
    "f1_e_vs_sci": ("best F1, E or S, C, I", "Best F1 of Exact pairs against all others."),
    "spearman": (
        "Spearman",
        "The rank correlation of scores and labels (E, S, C, I) over all pairs: do scores of "
        "different queries mean the same?",
    ),
    "query_spearman": ("Spearman in a query", "The same within each query, then the mean."),
    "map": (
        "MAP",
        "Mean average precision of each query's judged products in the order of the scores; E is "
        "relevant.",
    ),
}
"""The name of each measure on the page, and what it says."""


def read_encoder(results: LocaleResults) -> EncoderScores:
    """Read what a locale's encoder is worth, and check that it is of what the page shows.

    Raises:
        PipelineError: a file is missing, damaged, or of other vectors or judgements.
    """
    locale, manifest = results.locale, results.manifest
    path, remedy = layout.encoder_scores(locale), layout.rerun_hint("encoder_scores", locale)
    scores = read_scores(locale)
    values = layout.encoder_values(locale)
    table, card = read_table(files.read_bytes(values, remedy), str(values), locale, remedy)
    vectors = {
        "encoder": manifest.encoder,
        "weights_sha256": manifest.weights_sha256,
        **manifest.vectors_sha256(),
        "similarity": manifest.contract["similarity"],
    }
    for where, each in ((path, scores), (values, card)):
        check_fits(each, results.card, str(where), remedy)
        found = each.model_dump(include=set(vectors))
        refuse_differences(where, found, vectors, "the numbers are of other vectors", remedy)
    means = {
        name: (float(column.to_numpy().mean()) if len(column) else None)
        for name in ENCODER_MEASURES
        for column in [table[f"{ENCODER}.{name}"].drop_null()]
    }
    for wrong in _impossible(scores, card, means):
        raise PipelineError(f"{path}: {wrong}. {remedy}")
    return scores


def encoder_table(encoders: Mapping[str, EncoderScores]) -> str:
    """Return a Markdown table: a row for each locale's encoder, below one for its floors.

    The first measure has its interval; all are on the page and in reports/encoder_scores.
    """
    rows: list[Sequence[str]] = []
    for locale, scores in encoders.items():
        measures = [scores.measures[name] for name in ENCODER_MEASURES]
        floors = ("" if each.floor is None else f"{each.floor:.3f}" for each in measures)
        rows.append([locale, "random", f"{scores.pairs:,}", *floors])
        rows.append(["", scores.encoder, "", *_cells(measures)])
    header = ("locale", "encoder", "pairs", *ENCODER_MEASURES)
    return text_tables.markdown(header, rows, header[2:])


def _cells(measures: Sequence[Measure]) -> Iterator[str]:
    for place, each in enumerate(measures):
        ends = "" if place or each.low is None else f" [{each.low:.3f}, {each.high:.3f}]"
        yield "" if each.value is None else f"{each.value:.3f}{ends}"


def _impossible(
    scores: EncoderScores, card: ValuesCard, means: Mapping[str, float | None]
) -> Iterator[str]:
    """Say what the stage cannot have written: JSON has no checksum, but the table has."""
    if sorted(scores.measures) != sorted(ENCODER_MEASURES):
        yield f"the measures must be {', '.join(ENCODER_MEASURES)}"
        return
    if sorted(scores.labels) != sorted(LABELS) or sum(scores.labels.values()) != scores.pairs:
        yield f"the labels must be of {scores.pairs} pairs (found {scores.labels})"
    for name, each in scores.measures.items():
        least, most = bounds(name)
        numbers = [each.value, each.low, each.high, each.floor]
        mean = means[name]
        if mean is None or None in numbers:
            if mean is not None or numbers != [None] * 4:
                yield f"{name} must have numbers where the table has, and nowhere else"
            continue
        value, low, high, floor = (number for number in numbers if number is not None)
        if abs(value - mean) > ROUNDED:
            yield f"{name} must be {mean:.5f}, as in the table by query (found {value})"
        if not least <= low <= high <= most:
            yield f"{name} cannot have the interval [{low}, {high}]"
        if not (0 <= floor <= 1 and each.pairs <= scores.pairs):
            yield f"{name} cannot have the floor {floor} on {each.pairs} pairs"
        if each.queries + each.queries_left_out != card.sample.queries:
            yield f"{name} must count {card.sample.queries} queries"
