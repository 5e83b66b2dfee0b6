"""Which of the stages before embed DVC holds to be up to date: only then their outputs tell."""

from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo

from pipeline.core import layout, stage
from pipeline.core.errors import one_line
from pipeline.core.params import Params


def current_stages(params: Params) -> frozenset[str]:
    """Return those of demo, sample and the locales' clean that a `dvc repro` would not run.

    None where DVC cannot tell, which is said: it holds a lock while it works, for one.
    """
    if not layout.LOCK.exists():
        return frozenset()
    names = ["demo", "sample", *(f"clean@{locale}" for locale in params.locales)]
    try:
        with Repo() as repository:
            stale: dict[str, Any] = repository.status(names)
    except DvcException as err:
        stage.log.info("taken to be out of date: all stages, since DVC says: %s", one_line(err))
        return frozenset()
    return frozenset(names) - stale.keys()
