"""What the file system says of the artefacts that a search reads."""

from pathlib import Path

from pipeline.core import layout

Signed = tuple[str, int, int, int]
"""A file's path, inode, size and time."""

Signature = tuple[Signed, ...]
"""What is there of each file."""


def signature(locale: str) -> Signature:
    """Return what changes when a stage or DVC writes an artefact that a search reads."""
    clean, index, groups = layout.clean(locale), layout.index(locale), layout.duplicates(locale)
    paths = (
        layout.PARAMS, clean.products, clean.queries, clean.judgements, clean.counts,
        clean.vocabulary, clean.corrections,
        layout.embeddings(locale).manifest, index.card, index.index, groups.card, groups.groups,
        layout.runs("rerank", locale).card,  # a reranker that was trained again reranks again
    )  # fmt: skip
    return tuple(map(signed, paths))


def signed(path: Path) -> Signed:
    """Return what changes when a file is replaced or written; zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return str(path), 0, 0, 0
    return str(path), found.st_ino, found.st_size, found.st_mtime_ns
