"""What the workers of the fleet's tests do, in a module that they can import."""

import os
import signal
import time
from pathlib import Path

from pipeline.cluster.fleet import Work
from pipeline.core.errors import PipelineError


def squares(_cores: int) -> Work[int, int]:
    """Square numbers."""
    return Work(lambda item: item * item, "squares")


def squares_but_dies(folder: Path, deaths: int, of: frozenset[int], _cores: int) -> Work[int, int]:
    """Kill the worker when it comes to some items, each the first `deaths` times."""

    def work(item: int) -> int:
        time.sleep(0.01)
        if item in of:
            for death in range(deaths):
                try:
                    (folder / f"{item}-{death}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)
        return item * item

    return Work(work)


def refuses(refused: int, _cores: int) -> Work[int, int]:
    """Refuse an item."""

    def work(item: int) -> int:
        if item == refused:
            raise PipelineError(f"{item} cannot be done; leave it out")
        return item

    return Work(work)


def unable(_cores: int) -> Work[int, int]:
    """Refuse to begin."""
    raise PipelineError("no such model; name another")


def divides(zero: int, _cores: int) -> Work[int, int]:
    """Have a bug: divide by zero at an item."""
    return Work(lambda item: 1 // (item - zero))


def dies(_cores: int) -> Work[int, int]:
    """Be killed before it is ready."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def process_ids(_cores: int) -> Work[int, int]:
    """Return the process that does an item."""
    return Work(lambda _item: os.getpid())


def never_ready(_cores: int) -> Work[int, int]:
    """Take for ever to begin."""
    time.sleep(3_600)
    raise AssertionError


def cannot_make_its_folder(_cores: int) -> Work[int, int]:
    """Begin with a folder where none can be."""
    Path("/dev/null/cache").mkdir()
    raise AssertionError


def fills_the_disk(_cores: int) -> Work[int, int]:
    """Write to a disk without space."""
    return Work(lambda item: Path("/dev/full").write_text(str(item)))


def takes_a_while(_cores: int) -> Work[int, int]:
    """Square numbers, slowly enough to be caught at it."""

    def work(item: int) -> int:
        time.sleep(0.2)
        return item * item

    return Work(work)
