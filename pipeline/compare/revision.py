"""What a Git revision, a DVC experiment or the workspace holds, read without checking it out."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from dvc.api import DVCFileSystem
from dvc.exceptions import DvcException
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.compare.sides import Side, Top, side
from pipeline.core import layout
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import NAME
from pipeline.core.params_file import PARAMS_FILE

WORKSPACE = "workspace"


class Revision:
    """The reports of one revision; files come from Git, or from DVC's cache or remote."""

    def __init__(self, name: str) -> None:
        """Find the revision.

        Args:
            name: what `git rev-parse` knows, a DVC experiment's name, or `workspace`.

        Raises:
            PipelineError: it is none of the three, or this folder is no DVC repository.
        """
        self.name = name
        ways = (
            "name a Git revision (git log), an experiment (dvc exp list --all-commits) or "
            f"{WORKSPACE!r}, from the root of the repository; a shallow clone lacks older commits "
            "(git fetch --unshallow)"
        )
        if not name.strip():  # which DVC would take for the workspace
            raise PipelineError(f"a revision's name is empty ({name!r}); {ways}")
        try:
            self._files = DVCFileSystem(rev=None if name == WORKSPACE else name)
            repository = self._files.repo
            self.commit = None if name == WORKSPACE else str(repository.get_rev())
        except DvcException as err:
            raise PipelineError(f"{name}: {one_line(err)}; {ways}") from err
        except AttributeError as err:
            if err.name != "tree":
                raise
            # Git knows the name, but what it names has no tree of files: DVC does not look first.
            raise PipelineError(f"{name}: names a tree or a file, not a commit; {ways}") from err

    def __str__(self) -> str:
        """The name, and the commit where the name is not that already."""
        if self.commit is None or self.commit.startswith(self.name):
            return self.name[:12]
        return f"{self.name} ({self.commit[:7]})"

    def locales(self, order: Sequence[str]) -> list[str]:
        """Return the locales that it has per-query tables of.

        Args:
            order: which locales come first; others follow by name.

        Raises:
            PipelineError: there are no per-query tables.
        """
        listed = []
        with self._told(), suppress(FileNotFoundError):
            listed = self._files.ls(layout.PER_QUERY.as_posix(), detail=False)
        stems = {Path(path).stem for path in listed if path.endswith(".parquet")}
        # A revision may hold any file name, which would reach terminals and comments.
        found = {stem for stem in stems if re.fullmatch(NAME, stem)}
        locales = [*(each for each in order if each in found), *sorted(found - set(order))]
        if not locales:
            raise PipelineError(
                f"{self} has no tables in {layout.PER_QUERY}: the commit is older than they are, "
                "or was made before `dvc repro`; compare with a revision that has them"
            )
        return locales

    def sides(self, locales: Sequence[str]) -> dict[str, Side]:
        """Return each locale's side of a comparison.

        Raises:
            PipelineError: a locale's per-query table or metrics are missing, older or damaged.
        """
        return {locale: self._side(locale) for locale in locales}

    def _side(self, locale: str) -> Side:
        table = self._parquet(layout.per_query(locale))
        path = layout.metrics(locale)
        try:
            metrics = json.loads(self._bytes(path))
        except ValueError as err:
            raise PipelineError(f"{path} of {self} is not readable as JSON ({err})") from err
        return side(table, metrics, f"{locale} of {self}")

    def settings(self) -> dict[str, str]:
        """Return params.yaml as one level of dotted keys, the values as they are written."""
        try:
            data = YAML(typ="safe", pure=True).load(self._bytes(PARAMS_FILE))
        except YAMLError as err:
            raise PipelineError(f"{PARAMS_FILE} of {self} is not YAML: {one_line(err)}") from err
        return _flat(data)

    def top(self, locale: str, queries: Collection[int]) -> Top | None:
        """Return the first products of some queries, or None where they cannot be had here."""
        path = layout.top(locale)
        try:
            with self._files.open(path.as_posix(), "rb") as handle:
                table = pq.read_table(handle)
        except Exception:  # noqa: BLE001 (whatever a remote's library raises: titles are an extra)
            return None
        table = table.filter(pc.is_in(table["query_id"], value_set=pa.array(queries, pa.int64())))
        found: Top = {}
        for row in table.sort_by("rank").to_pylist():
            hits = found.setdefault((row["query_id"], row["system"]), [])
            hits.append((row["label"], row["title"]))
        return found

    def _parquet(self, path: Path) -> pa.Table:
        try:
            return pq.read_table(pa.BufferReader(self._bytes(path)))
        except pa.ArrowInvalid as err:
            raise PipelineError(
                f"{path} of {self} is not readable as parquet ({one_line(err)})"
            ) from err

    def _bytes(self, path: Path) -> bytes:
        try:
            with self._told(), self._files.open(path.as_posix(), "rb") as handle:
                return bytes(handle.read())
        except FileNotFoundError as err:
            raise PipelineError(
                f"{self} has no {path}, or it is not to be had here; compare needs it in Git on "
                "both sides: take a revision that was committed after `dvc repro`"
            ) from err

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Tell what DVC cannot make of the revision, such as a dvc.yaml with a mistake in it."""
        try:
            yield
        except DvcException as err:
            raise PipelineError(f"{self} cannot be read by DVC: {one_line(err)}") from err


def _flat(data: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(data, dict) or not data:
        # In quotes what cannot be seen without: a space, an empty string.
        if isinstance(data, str) and data.isprintable() and data == data.strip() != "":
            return {prefix.rstrip("."): data}
        return {prefix.rstrip("."): json.dumps(data, ensure_ascii=False, default=str)}
    return {
        key: value
        for name, inner in data.items()
        for key, value in _flat(inner, f"{prefix}{name}.").items()
    }
