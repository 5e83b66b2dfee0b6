"""The means of record: a revision's metrics have them of the full values, its tables of rounded."""

from pipeline.compare.loose_json import number_at, parse
from pipeline.compare.sides import Side, metrics
from pipeline.core.params import ENCODER
from pipeline.encoder_scores.form import ROUNDED
from pipeline.evaluate.metrics import mean
from pipeline.evaluate.per_query_reader import values


def read_means(
    side: Side, metrics_file: bytes | None, encoder_file: bytes | None
) -> dict[str, float]:
    """Return the mean of record of each measure of a side, by its column, such as dense.ndcg@10.

    The values of the side's table have 5 digits, so the fifth digit of their mean may be another.
    A number that is further from it is of other values, and is left out; so is one that cannot be
    read.

    Args:
        side: its per-query table, the encoder's own measures beside it.
        metrics_file: reports/metrics/<locale>.json of the revision, if it has one.
        encoder_file: reports/encoder_scores/<locale>.json of it, if it has one.
    """
    of_systems, of_encoder = parse(metrics_file), parse(encoder_file)
    found = {}
    for column in metrics(side.table):
        system, _, name = column.partition(".")
        own = values(side.table, column)
        if system == ENCODER:
            said = number_at(of_encoder, "measures", name, "value")
        else:
            said = number_at(of_systems, system, name)
        if said is not None and abs(said - mean(own)) <= ROUNDED:
            found[column] = said
    return found
