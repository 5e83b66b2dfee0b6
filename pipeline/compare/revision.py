"""What a Git revision, a DVC experiment or the workspace holds, read without checking it out."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import git
from pipeline.compare.loose_json import parse, value_at
from pipeline.compare.pull import pull
from pipeline.compare.settings import Settings, read_settings
from pipeline.compare.sides import Side, Top
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.param_types import NAME
from pipeline.core.params_file import PARAMS_FILE
from pipeline.encoder_scores.form import check_fits, read_table
from pipeline.evaluate import per_query
from pipeline.evaluate.per_query_reader import check_measured, read_parquet, read_per_query
from pipeline.evaluate.top_products import TOP
from pipeline.runs.card import INDEX_SETTINGS, other_setting

WORKSPACE = "workspace"

LARGEST = 1 << 28
"""The most bytes that a report may have; all of ESCI has less than a tenth of it."""

WAYS = (
    "Name a Git revision (git log), an experiment (dvc exp list --all-commits) or "
    f"{WORKSPACE!r}, from the root of the project. A shallow clone lacks older commits "
    "(git fetch --unshallow)."
)
REPORTS = "Compare with a newer revision, or run `dvc repro` there and commit reports/."


class Revision:
    """The reports of one revision."""

    def __init__(self, name: str, folder: Path | None = None) -> None:
        """Find the revision.

        Args:
            name: what `git rev-parse` knows, a DVC experiment's name, or `workspace`.
            folder: a copy of the workspace's params.yaml and reports/ that is read instead; `name`
                is then what it is called.

        Raises:
            PipelineError: it is none of the three, or this folder is in no Git repository.
        """
        self.name = name
        if not name.strip():
            raise PipelineError(f"a revision's name is empty ({name!r}). {WAYS}")
        try:
            self._prefix = git.prefix()
        except PipelineError as err:
            raise PipelineError(f"{name}: {err}. {WAYS}") from err
        self._folder = Path() if folder is None else folder
        in_files = name == WORKSPACE or folder is not None
        self.commit = None if in_files else git.find_commit(name)
        if self.commit is None and not in_files:
            if git.names_an_object(name):
                raise PipelineError(f"{name} names a tree or a file, not a commit. {WAYS}")
            raise PipelineError(f"{name} is not a revision or an experiment. {WAYS}")

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
        if self.commit is None:
            files = list((self._folder / layout.PER_QUERY).glob("*.parquet"))
        else:
            files = [
                Path(each.name)
                for each in git.entries(self.commit, f"{layout.PER_QUERY.as_posix()}/")
            ]
        # A revision may hold any file name, which would reach terminals and comments.
        found = {
            path.stem
            for path in files
            if path.suffix == ".parquet" and re.fullmatch(NAME, path.stem)
        }
        locales = [*(each for each in order if each in found), *sorted(found - set(order))]
        if not locales:
            raise PipelineError(
                f"{self} has no tables in {layout.PER_QUERY}: the commit is older than they are, "
                f"or was made before `dvc repro`. {REPORTS}"
            )
        return locales

    def sides(self, locales: Sequence[str]) -> dict[str, Side]:
        """Return each locale's side of a comparison.

        The encoder's own measures are in it, where the revision has them.

        Raises:
            PipelineError: a locale's per-query table is missing, of an older form, damaged, or
                without queries; or the table of its encoder is damaged, or of another encoder,
                other vectors or another sample.
        """
        found = {}
        for locale in locales:
            path = layout.per_query(locale)
            where = f"{path} of {self}"
            side = Side(*read_per_query(self._read(path), where, locale, REPORTS))
            check_measured(side.card, where)
            found[locale] = self._with_encoder(locale, side)
        return found

    def _with_encoder(self, locale: str, side: Side) -> Side:
        path = layout.encoder_values(locale)
        if (data := self.find(path)) is None:  # of an older revision
            return side
        where = f"{path} of {self}"
        values, card = read_table(data, where, locale, REPORTS)
        check_fits(card, side.card, where, REPORTS)
        if not values["query_id"].equals(side.table["query_id"]):
            raise PipelineError(
                f"{where}: the query_ids are not those of {layout.per_query(locale)}. {REPORTS}"
            )
        return side.beside(values.drop_columns(["query_id"]))

    def settings(self) -> Settings:
        """Return params.yaml as one level of dotted keys, the values as they are written.

        Beside the path of another engine's run, such as systems.es.vespa, is the beginning of the
        file's hash by the metrics, as systems.es.vespa.sha256: a run may change under one name.
        """
        settings = read_settings(self._read(PARAMS_FILE), f"{PARAMS_FILE} of {self}")
        return settings | dict(self._run_hashes(settings))

    def _run_hashes(self, settings: Settings) -> Iterator[tuple[str, str]]:
        for key in settings:
            section, _, rest = key.partition(".")
            locale, _, name = rest.partition(".")
            if section == "systems" and name and re.fullmatch(NAME, locale):
                record = parse(self.find(layout.metrics(locale)))
                sha256 = value_at(record, "systems", name, "sha256")
                if isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256):
                    yield f"{key}.sha256", sha256[:12]

    def top(self, locale: str, queries: Collection[int], sha256: str) -> Top | None:
        """Return the first products of some queries, or None where they cannot be read here.

        Args:
            locale: whose products they are.
            queries: the query_ids.
            sha256: the hash of the table's contents, which the per-query table has.
        """
        path = layout.top(locale)
        here = self._folder / path
        if self.commit is None and here.is_file():
            data: bytes | None = here.read_bytes()
        else:
            data = pull(path, self.commit, self._prefix)
        if data is None:
            return None
        try:
            table = read_parquet(data, str(path), "")
        except PipelineError:
            return None
        if not table.schema.equals(TOP) or per_query.contents_sha256(table) != sha256:
            return None
        table = table.filter(pc.is_in(table["query_id"], value_set=pa.array(queries, pa.int64())))
        found: Top = {}
        for row in table.sort_by("rank").to_pylist():
            hits = found.setdefault((row["query_id"], row["system"]), [])
            hits.append((row["label"], row["title"]))
        return found

    def find(self, path: Path) -> bytes | None:
        """Return a file that a revision may have in Git, None where it has none."""
        size, read = self._reader(path)
        return read() if read is not None and size <= LARGEST else None

    def _read(self, path: Path) -> bytes:
        """Return a file that every revision must have in Git.

        Raises:
            PipelineError: the revision has no such file, or one that is too large.
        """
        size, read = self._reader(path)
        if read is None:
            raise PipelineError(
                f"{self} has no file {path}; compare needs it in Git on both sides. {REPORTS}"
            )
        if size > LARGEST:
            raise PipelineError(f"{path} of {self} is larger than {LARGEST:,} bytes. {REPORTS}")
        return read()

    def _reader(self, path: Path) -> tuple[int, Callable[[], bytes] | None]:
        """Return the size of a file and what reads it, None where the revision has none."""
        if self.commit is None:
            here = self._folder / path
            return (here.stat().st_size, here.read_bytes) if here.is_file() else (0, None)
        entry = git.find_file(self.commit, path)
        return (entry.size, partial(git.read, entry)) if entry else (0, None)


def find_stale(revision: Revision, held: Mapping[str, Side], settings: Settings) -> Iterator[str]:
    """Say where a revision's numbers are not of the encoder or index that its params.yaml names.

    An index counts with its settings, where the metrics have them.
    """
    for locale, side in held.items():
        for name, chosen in side.chosen.items():
            setting = settings.get(f"{name}.{locale}")
            if setting != chosen:
                yield (
                    f"{revision}: its numbers of {locale} are of the {name} {chosen}, but its "
                    f"params.yaml says {setting or 'nothing'}; `dvc repro` was not run there"
                )
        if settings.get(f"index.{locale}") == side.card.index:
            yield from _other_settings(revision, locale, side.card.index, settings)


def _other_settings(
    revision: Revision, locale: str, index: str, settings: Settings
) -> Iterator[str]:
    start = f"indexes.{index}."
    wanted = {
        key.removeprefix(start): value
        for key, value in settings.items()
        if key.startswith(start) and value != "null"
    }
    measured = value_at(parse(revision.find(layout.metrics(locale))), INDEX_SETTINGS)
    if isinstance(measured, dict) and (differs := other_setting(measured, wanted)):
        yield (
            f"{revision}: its numbers of {locale} are of another setting of the index {index} than "
            f"its params.yaml has ({differs}); `dvc repro` was not run there"
        )
