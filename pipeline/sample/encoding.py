"""Text files in another encoding or with another separator: what is found, and what mends it."""

import codecs
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.errors import PipelineError

_CHUNK_BYTES = 1 << 20
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_HEADER_BYTES = 64


def refuse_encoding(path: Path) -> None:
    """Raise a `PipelineError` that names the first place of a file that is not UTF-8 text."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    line, is_first = 1, True
    with path.open("rb") as handle:
        while True:
            chunk = handle.read(_CHUNK_BYTES)
            if is_first and _looks_like_utf_16(chunk):
                raise _not_utf8(path, "it looks like UTF-16", "utf-16")
            is_first = False
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as err:
                line += bytes(err.object[: err.start]).count(b"\n")
                byte = err.object[err.start]
                raise _not_utf8(path, f"line {line} has the byte {byte:#04x}", "cp1252") from err
            if (place := chunk.find(b"\0")) >= 0:
                line += chunk.count(b"\n", 0, place)
                raise PipelineError(
                    f"{path}: line {line} has a NUL byte, which CSV and JSON Lines cannot hold: "
                    "the file is damaged. Write it again."
                )
            if not chunk:
                return
            line += chunk.count(b"\n")


def _looks_like_utf_16(start: bytes) -> bool:
    """Return whether every other byte or so of a header is 0, or a byte order mark is before it."""
    header = start[:_HEADER_BYTES]
    return start.startswith(_UTF_16) or header.count(0) > len(header) // 4


def refuse_half_a_character(text: str, where: str) -> None:
    r"""Refuse a surrogate without its other half, such as \ud800: UTF-8 has no form for it."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise PipelineError(
            f"{where} holds \\u{ord(text[err.start]):04x}, which is half a character. Correct or "
            "remove it."
        ) from err


def _not_utf8(path: Path, found: str, encoding: str) -> PipelineError:
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        mend = (
            f"in Python `Path('{path}').write_text(Path('{path}').read_text('{encoding}'), "
            "'utf-8')`"
        )
    else:
        mend = _rewrite(path, f"encoding='{encoding}'", f"encoding='{encoding}'")
    return PipelineError(
        f"{path} must be UTF-8 (found: {found}). Write it again from its own encoding, such as "
        f"{encoding}: {mend}."
    )


def _rewrite(path: Path, pandas: str, polars: str) -> str:
    """Return the lines that write a CSV file again as UTF-8 with commas; ids keep their zeros."""
    return (
        f"in pandas `pd.read_csv('{path}', {pandas}, dtype=str, keep_default_na=False)"
        f".to_csv('{path}', index=False)`, in polars `pl.read_csv('{path}', {polars}, "
        f"infer_schema=False).write_csv('{path}')`"
    )


def separator_hint(path: Path, names: Sequence[str]) -> str:
    """Return how to mend a CSV file whose header has one column; nothing for another header."""
    if len(names) != 1:
        return ""
    marks = Counter(each for each in names[0] if not (each.isalnum() or each in "_-"))
    blanks = marks.pop(" ", 0)
    mark = marks.most_common(1)[0][0] if marks else " " if blanks else ":"
    mend = _rewrite(path, f"sep={mark!r}", f"separator={mark!r}")
    return (
        " The header is one column: the separator must be a comma, a semicolon, a tab or |. Write "
        f"the file again: {mend}."
    )
