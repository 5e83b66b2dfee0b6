"""What other programs import of this project; docs/python.md explains it.

    from esci_retrieval import compare, evaluate, open_workspace, read_per_query

`open_workspace` needs the extra `run`; the others need the light install alone.
"""

from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.compare.revision import WORKSPACE, Revision
from pipeline.core.errors import PipelineError, missing_package, shorten
from pipeline.evaluate.uncertainty import Interval
from pipeline.score import compare, evaluate
from pipeline.score.results import Difference, Result

if TYPE_CHECKING:
    # For annotations alone, so that the import stays light.
    from pipeline.workspace import Workspace as Workspace

__all__ = [
    "Difference",
    "Interval",
    "PipelineError",
    "Result",
    "compare",
    "evaluate",
    "open_workspace",
    "read_per_query",
]


def open_workspace(locale: str) -> "Workspace":
    """Return the artefacts of a locale of the project in this folder.

    Raises:
        PipelineError: this folder has no params.yaml, or it does not name the locale; or the extra
            `run` is not installed.
    """
    try:
        from pipeline import workspace
    except ModuleNotFoundError as err:
        if (message := missing_package(err)) is None:
            raise
        raise message from err
    return workspace.open(locale)


def read_per_query(locale: str, revision: str = WORKSPACE) -> pa.Table:
    """Return each query's measures at a revision of the project in this folder, from Git alone.

    Args:
        locale: such as es.
        revision: what Git knows, a DVC experiment, or workspace.

    Returns:
        query_id (int64), query, then for each system its measures, such as dense.ndcg@10 (float32,
        rounded to 5 digits, null where undefined), and the labels of its first products. Where the
        revision has a table of its encoder's measures, `encoder` is the last of the systems.

    Raises:
        PipelineError: there is no such revision, it has no sound table of the locale, or the table
            of its encoder is damaged, or of another encoder or sample.
    """
    if not isinstance(revision, str):
        raise PipelineError(
            f"revision: must be text (found {shorten(revision)}). Put it in quotes."
        )
    found = Revision(revision)
    if locale not in (known := found.locales([])):
        raise PipelineError(
            f"{found} has no locale {shorten(locale)} (it has: {', '.join(known)}). Name one of "
            "these."
        )
    return found.sides([locale])[locale].table
