"""What asks for a source, as messages name it."""

import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pipeline.core.errors import named_as
from pipeline.core.params import SECTIONS_OF_A_LOCALE
from pipeline.core.params_text import is_read_otherwise


@dataclass(frozen=True)
class Asker:
    """Which keys of params.yaml ask for a source and for locales, as messages name them.

    Attributes:
        section: the section that has `source`, `columns` and `labels`.
        locales: where the locales are.
        options: whether `columns` and `labels` come from the options of a command.
    """

    section: str
    locales: str
    options: bool = False

    @property
    def columns(self) -> str:
        """Return what names columns."""
        return "--column" if self.options else f"{self.section}.columns"

    def column(self, name: str) -> str:
        """Return how a column is named."""
        return f"--column {name}=NAME" if self.options else f"{self.columns}: {name}: NAME"

    def label(self, own: str) -> str:
        """Return how a label is given a meaning, as a shell or params.yaml reads it."""
        own = named_as(own)
        if self.options:
            return f"--label {shlex.quote(f'{own}=E')}"
        is_plain = re.fullmatch(r"[^\W\d]\w*", own) and not is_read_otherwise(own)
        key = own if is_plain else "'{}'".format(own.replace("'", "''"))
        return f"{self.section}.labels: {key}: E"

    def splits(self, splits: Iterable[str]) -> str:
        """Return what keeps only some splits; models learn from the train split alone."""
        kept = ",".join(splits)
        return f"sample.splits={kept}" if self.section == "sample" else f"the split {kept}"

    @property
    def filters(self) -> str:
        """Return which keys choose judgements."""
        if self.section == "sample":
            return "sample.version and sample.splits"
        return f"{self.section}.version and the split train"

    @property
    def widen(self) -> str:
        """Return what gives queries, where version and splits leave none."""
        if self.section == "sample":
            return "Widen them."
        return f"Use another {self.section}.version or {self.section}.source."

    @property
    def without_split(self) -> str:
        """Return what gives queries, where a source without a column split leaves none."""
        said = "Without a column split, all its queries are of the split test"
        if self.section == "sample":
            return f"{said}: ask for that, or give the file a column split with train and test."
        return f"{said}, and models learn from train: give the file a column split with both."

    @property
    def path(self) -> str:
        """Return how the path of a table is corrected."""
        if self.options:
            return "Name another file."
        return f"Correct {self.section}.source in params.yaml."

    @property
    def search_only(self) -> str:
        """Return how products are searched without judgements; empty where those are needed."""
        if self.options:
            return " To search the products alone, leave the table of judgements out."
        if self.section != "sample":
            return ""
        return " To search products alone, and measure nothing, set sample.queries to none."


SAMPLE = Asker("sample", SECTIONS_OF_A_LOCALE)
