"""A small project of one locale in which the stages have run, made in this process."""

import contextlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bench.fault_lab import LOCALE, Workshop
from pipeline.core import layout
from pipeline.core.params_file import load_params

STAGES = ("demo", "sample", "clean", "embed", "index", "retrieve", "bm25", "hybrid", "evaluate")


def make_project(folder: Path) -> None:
    """Run the stages in a new folder."""
    Workshop(folder)
    with inside(folder):
        given = load_params()
        for name in STAGES:
            body = getattr(import_module(f"pipeline.{name}.stage"), name)
            body(given) if name in ("demo", "sample") else body(given, LOCALE)


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[Path]:
    """Make a project the working folder, with a cache of its own."""
    with contextlib.chdir(folder), pytest.MonkeyPatch.context() as patch:
        patch.setenv(layout.CACHE_VARIABLE, str(folder / ".cache"))
        yield folder
