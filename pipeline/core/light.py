"""What the light install cannot run is said in one line, by all commands alike."""

import sys
from types import TracebackType

from pipeline.core.errors import missing_package


def explain_missing_packages(command: str | None = None) -> None:
    """Let a package that is not installed end this process with one line, not with a traceback.

    Args:
        command: its name; None: that of the module which `python -m` runs.
    """
    before = sys.excepthook

    def explain(kind: type[BaseException], err: BaseException, trace: TracebackType | None) -> None:
        message = missing_package(err) if isinstance(err, ModuleNotFoundError) else None
        if message is None:
            before(kind, err, trace)
            return
        spec = getattr(sys.modules["__main__"], "__spec__", None)
        module = spec.name if spec else "pipeline"
        name = command or module.removeprefix("pipeline.").removesuffix(".__main__")
        sys.stderr.write(f"error in {name}: {message}\n")

    sys.excepthook = explain
