"""A source's two tables, found by their names, opened and checked."""

import os
import stat
from collections.abc import Collection, Sequence
from pathlib import Path

import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.errors import PipelineError, shorten
from pipeline.core.params import Sample
from pipeline.sample import columns, forms
from pipeline.sample.asker import SAMPLE, Asker
from pipeline.sample.columns import SourceFile

_LFS_POINTER = b"version https://git-lfs"


def find_tables(folder: Path) -> tuple[Path, Path]:
    """Return where a source's judgements and products are.

    Raises:
        PipelineError: a table is there in two forms.
    """
    return _find(folder, layout.EXAMPLES_STEMS), _find(folder, layout.PRODUCTS_STEMS)


def _find(folder: Path, stems: Sequence[str]) -> Path:
    names = [f"{stem}{ending}" for stem in stems for ending in forms.ENDINGS]
    try:
        there = [name for name in names if os.path.lexists(folder / name)]
    except ValueError:  # a null in the path, which opening it reports
        there = []
    if len(there) > 1:
        raise PipelineError(
            f"{folder} has {' and '.join(there)}, which are the same table. Keep one."
        )
    return folder / (there or names)[0]


def open_tables(
    settings: Sample, locales: Collection[str], asker: Asker = SAMPLE
) -> tuple[SourceFile, SourceFile]:
    """Find and open a source's judgements and products; raises as both functions do."""
    return open_pair(*find_tables(Path(settings.source)), settings, locales, asker)


def open_pair(
    examples_path: Path,
    products_path: Path,
    settings: Sample,
    locales: Collection[str],
    asker: Asker = SAMPLE,
) -> tuple[SourceFile, SourceFile]:
    """Open a table of judgements and one of products.

    Both files are opened before a column of either is looked for: an absent file is told first.

    Raises:
        PipelineError: as `open_file` and `match_columns`, or no table has a column that
            params.yaml names.
    """
    judged = None if settings.queries == "none" else open_file(examples_path, asker)
    sold = open_file(products_path, asker)
    if judged is None:
        examples = without_judgements(examples_path, settings)
    else:
        examples = match_columns(judged, columns.EXAMPLES, settings, locales, asker)
    products = match_columns(sold, tables.SAMPLE_PRODUCTS, settings, locales, asker)
    for unused in columns.unused(settings.columns, (examples, products)):
        raise PipelineError(
            f"{asker.columns}: {unused}: neither {examples_path} nor {products_path} has it. "
            "Correct it, or leave it out."
        )
    if all(map(products.lacks, columns.TEXTS)):
        raise PipelineError(
            f"{products_path}: no column has a product's text (found: "
            f"{', '.join(map(shorten, products.form.schema.names))}). Name one, such as "
            f"`{asker.column('product_title')}`."
        )
    return examples, products


def without_judgements(path: Path, settings: Sample) -> SourceFile:
    """Return judgements of which there are none, for a catalogue that is only searched."""
    own = {
        name: settings.columns.get(name, name)
        for name in columns.EXAMPLES.names
        if name not in columns.SHARED
    }
    return SourceFile(forms.Nothing(path, columns.EXAMPLES), own, None)


def check_file(path: Path, asker: Asker) -> None:
    """Check that a file has something to read, whatever its form.

    Raises:
        PipelineError: it is missing, empty, a folder or a Git LFS pointer, or cannot be read.
    """
    if not is_file(path, asker):
        raise _missing(path, asker)
    try:
        with path.open("rb") as handle:
            start = handle.read(len(_LFS_POINTER))
    except OSError as err:
        raise forms.unreadable(path, "a file", err) from err
    if not start:
        raise PipelineError(f"{path} is empty (0 bytes). {forms.REMEDY}")
    if start == _LFS_POINTER:
        raise PipelineError(
            f"{path} is a Git LFS pointer ({path.stat().st_size} bytes), not the data. "
            "Run `make esci`, or `git lfs pull` in the clone it came from."
        )


def open_file(path: Path, asker: Asker = SAMPLE) -> forms.Form:
    """Open one of a source's tables.

    Raises:
        PipelineError: as `check_file`; or the file is damaged.
    """
    check_file(path, asker)
    return forms.open_form(path)


def match_columns(
    form: forms.Form,
    schema: pa.Schema,
    settings: Sample | None = None,
    locales: Collection[str] = (),
    asker: Asker = SAMPLE,
) -> SourceFile:
    """Match a table's columns to those of `schema`; all that cannot be filled must be there.

    Args:
        form: the table.
        schema: ESCI's columns.
        settings: the own names of columns, and the version; None: ESCI's, and all.
        locales: those of params.yaml. A table without product_locale is of the only one.
        asker: the keys of params.yaml, for messages.

    Raises:
        PipelineError: the table lacks columns, or has some of another type.
    """
    needed = dict.fromkeys(columns.NEEDED, "")
    if len(locales) != 1:
        needed["product_locale"] = "Without it, params.yaml must name one locale."
    if settings is not None and settings.version != "all":
        needed[f"{settings.version}_version"] = (
            f"Without it, {asker.section}.version must be all (found {settings.version})."
        )
    named = {} if settings is None else settings.columns
    theirs = columns.match(form, schema, named, needed, asker)
    return SourceFile(form, theirs, next(iter(locales), None))


def _missing(path: Path, asker: Asker) -> PipelineError:
    if asker.options:
        return PipelineError(f"{path} is missing. {asker.path}")
    return PipelineError(
        f"{path} is missing. {asker.section}.source must be a folder with "
        f"{layout.EXAMPLES_FILE} and {layout.PRODUCTS_FILE} (`make esci` brings the official "
        f"ones to data/esci), or with {layout.EXAMPLES_STEMS[1]} and "
        f"{layout.PRODUCTS_STEMS[1]} as .parquet, .csv or .jsonl."
        f"{asker.search_only if path.stem in layout.EXAMPLES_STEMS else ''}"
    )


def is_file(path: Path, asker: Asker = SAMPLE) -> bool:
    """Return whether there is a regular file at `path`; False if there is nothing.

    Raises:
        PipelineError: there is something else, or `path` cannot be a path.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as err:
        raise PipelineError(
            f"{shorten(str(path))} cannot be opened ({forms.brief(err)}). {asker.path}"
        ) from err
    if stat.S_ISDIR(mode):
        parts = sum(1 for _ in path.rglob("*.parquet"))
        if not parts:
            raise PipelineError(f"{path} must be a file (found a folder). {asker.path}")
        raise PipelineError(
            f"{path} must be one file (found a folder with {parts} parquet files). Join them with "
            f"`python -c \"import pyarrow.parquet as pq; pq.write_table(pq.read_table('{path}'), "
            f"'joined.parquet')\"`, and put the result in the folder's place."
        )
    if not stat.S_ISREG(mode):
        raise PipelineError(
            f"{path} must be a regular file (found {stat.filemode(mode)}). Put a copy of the data "
            "in its place."
        )
    return True
