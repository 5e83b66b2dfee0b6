"""What each query should find, and which slices it is in: two tables of evaluate, read."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.evaluate.exact_ranks import IDS, RANK


def read_exact(locale: str, runs: Sequence[str], judgements: pa.Table, remedy: str) -> pa.Table:
    """Read where the systems rank each query's Exact products; see `exact_ranks.table`.

    Args:
        locale: whose products.
        runs: the systems that have a column; the columns come in their order.
        judgements: those of the clean tables.
        remedy: a sentence that says what brings the file back; messages end with it.

    Raises:
        PipelineError: the table is missing, damaged or of another form, or its products are not
            those that the judgements call Exact.
    """
    path = layout.exact(locale)
    table = _read_all(path, remedy)
    schema = pa.schema([*IDS, *(pa.field(system, RANK) for system in runs)])
    found = {field.name: field for field in table.schema}
    if found != {field.name: field for field in schema}:
        raise PipelineError(
            f"{path} must have the columns {', '.join(schema.names)} (found "
            f"{shorten(', '.join(map(str, table.schema)))}). {remedy}"
        )
    by_pair = [("query_id", "ascending"), ("product_id", "ascending")]
    wanted = judgements.filter(pc.equal(judgements["label"], "E")).sort_by(by_pair)
    named = table.sort_by(by_pair)
    for name, _ in by_pair:
        if not named[name].equals(wanted[name]):
            raise PipelineError(
                f"{path}: {name} must name the products that the clean judgements call Exact. "
                f"{remedy}"
            )
    return table.select(schema.names)


def read_kinds(locale: str, query_ids: pa.ChunkedArray, remedy: str) -> pa.Table:
    """Read which slices each query is in: query_id, then a column for each slice.

    Raises:
        PipelineError: the table is missing, damaged, of another form, or of other queries.
    """
    path = layout.kinds(locale)
    table = _read_all(path, remedy)
    of_queries = table.column_names[:1] == ["query_id"] and table[0].equals(query_ids)
    values = table.columns[1:]
    if not of_queries or any(each.type != pa.string() or each.null_count for each in values):
        raise PipelineError(
            f"{path} must have the query_ids of {layout.per_query(locale)} and a text for each "
            f"slice. {remedy}"
        )
    return table


def _read_all(path: Path, remedy: str) -> pa.Table:
    """Read a table whose columns are not known before."""
    with tables.open_parquet(path, remedy) as file:
        (table,) = tables.check_row_count([file.read()], file, path, remedy)
        table.validate(full=True)
        return table
