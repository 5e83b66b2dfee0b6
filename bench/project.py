"""The project folders that benchmarks run in: params.yaml with changes, and the surroundings."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.core import layout
from pipeline.core.files import atomic_file
from pipeline.core.params import BY_LOCALE
from pipeline.core.params_edit import replaced
from pipeline.core.params_file import PARAMS_FILE

ROOT = Path(__file__).parents[1]
"""The folder of this code."""

Settings = dict[str, Any]
"""What a params.yaml says, as dicts and lists."""


def read_settings(folder: Path = Path()) -> Settings:
    """Return what the params.yaml of a folder says, free to be changed."""
    found: Settings = YAML(typ="safe", pure=True).load(folder / PARAMS_FILE)
    return found


def change_settings(settings: Settings, changes: Mapping[str, Any]) -> Settings:
    """Return settings with other values, given by dotted paths of keys such as `sample.source`."""
    by_path = {tuple(path.split(".")): value for path, value in changes.items()}
    changed: Settings = replaced(settings, by_path)
    return changed


def keep_locale(settings: Settings, locale: str) -> Settings:
    """Return settings without the other locales."""
    return settings | {name: {locale: settings[name][locale]} for name in BY_LOCALE}


def write_settings(settings: Settings, folder: Path = Path()) -> None:
    """Write the params.yaml of a folder."""
    with atomic_file(folder / PARAMS_FILE) as partial:
        YAML().dump(settings, partial)


def surroundings(folder: Path) -> dict[str, str]:
    """Return the environment of a process that runs this code in a folder, with a cache there."""
    return {
        **os.environ,
        layout.CACHE_VARIABLE: str((folder / ".cache").absolute()),
        "PYTHONPATH": str(ROOT),
    }
