"""What other programs import of this project; docs/python.md explains it.

    from esci_retrieval import compare, evaluate, open_workspace

`evaluate` and `compare` need the light install alone. `open_workspace` needs the extra `run`.
"""

from typing import TYPE_CHECKING

from pipeline.core.errors import PipelineError
from pipeline.score import Difference, Result, compare, evaluate

if TYPE_CHECKING:
    from pipeline.workspace import Workspace

__all__ = ["Difference", "PipelineError", "Result", "compare", "evaluate", "open_workspace"]


def open_workspace(locale: str) -> "Workspace":
    """Return the artefacts of a locale of the project in this folder.

    Raises:
        PipelineError: this folder has no params.yaml, or it does not name the locale.
    """
    from pipeline import workspace

    return workspace.open(locale)
