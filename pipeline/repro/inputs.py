"""The sources and the runs of other engines must be there before DVC runs.

Weights of `kind: folder` need not: no stage reads them while the vectors are up to date.
"""

from collections.abc import Iterator
from pathlib import Path

from pipeline.core import layout
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Params
from pipeline.core.params_file import PARAMS_FILE


def check_inputs(params: Params, where: str = str(PARAMS_FILE)) -> None:
    """Check what DVC would say late, or without the name of the param.

    This is no check of params.yaml itself: revisions are compared where no data is.

    Args:
        params: what params.yaml says, or will say.
        where: what to call it.

    Raises:
        PipelineError: inputs are not there; the message lists each with its param.
    """
    wrong = []
    for param, path in _inputs(params):
        try:
            Path(path).stat()
        except (OSError, ValueError) as err:
            why = err.strerror if isinstance(err, OSError) else err
            found = f"{param}: cannot be read ({why}; found {shorten(path)})"
            wrong.append(f"  {found}. Correct it, or bring it there.")
    if wrong:
        raise PipelineError("\n".join((f"{where}:", *wrong)))


def _inputs(params: Params) -> Iterator[tuple[str, str]]:
    """Yield the params that name an input of the graph in use, and its path."""
    sources = {"sample.source": params.sample.source}
    if params.trained_in_use():
        sources["training.source"] = params.training.source
    for param, source in sources.items():
        if Path(source) != layout.DEMO:
            yield param, source
    for locale, runs in params.systems.items():
        for name, path in runs.items():
            yield f"systems.{locale}.{name}", path
