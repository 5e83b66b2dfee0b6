"""What the numbers of a report are of: a hash of the data, the same on any machine and commit."""

import hashlib
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import files, layout, tables

_ROWS = 1 << 16


def data_sha256(locale: str) -> str:
    """Return the hash of all ids, texts and labels of a locale's clean tables.

    Raises:
        PipelineError: a table is missing or damaged.
    """
    clean, remedy = layout.clean(locale), layout.rerun_hint("clean", locale)
    hashes = []
    for path, schema, columns in (
        (clean.queries, tables.QUERIES, ("query_id", "text")),
        (clean.products, tables.PRODUCTS, ("product_id", "text")),
        (clean.judgements, tables.JUDGEMENTS, ("query_id", "product_id", "label")),
    ):
        digests = [hashlib.sha256() for _ in columns]
        for piece in tables.iter_table(path, schema, _ROWS, remedy):
            for digest, name in zip(digests, columns, strict=True):
                values = piece[name].cast(pa.string())
                # The length of each value: none can be taken for two.
                tables.hash_rows(digest, [pc.utf8_length(values), values])
        hashes += [digest.hexdigest() for digest in digests]
    return files.sha256_lines(hashes)


def all_sha256(of_locales: Mapping[str, str]) -> str:
    """Return one hash of the data of all locales."""
    return files.sha256_lines(f"{locale} {digest}" for locale, digest in sorted(of_locales.items()))
