"""What is shown of products: ids and titles, brands and colours; mapped from the cache."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa

from pipeline.core import cache, files, layout, tables
from pipeline.core.arrays import write_npy
from pipeline.core.params import Params
from pipeline.evaluate.product_fields import iter_fields
from pipeline.search.facets import FACETS, Codes, Facet, FacetBuilder

FORM = 1
"""Version of the files; another makes them again."""

PRODUCTS = pa.schema([("product_id", pa.string()), ("title", pa.string())])


@dataclass(frozen=True)
class Shown:
    """The products of a locale, in the order of the clean table.

    Attributes:
        products: `product_id` and `title`, one row per product.
        facets: brand and color, where the texts are made of them.
    """

    products: pa.Table
    facets: Mapping[str, Facet]

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """All product_ids, ascending."""
        return self.products["product_id"]

    def title(self, row: int) -> str:
        """Return a product's first field that holds anything, in 200 characters at most."""
        return str(self.products["title"][row].as_py())

    def row_of(self, product_id: str) -> int | None:
        """Return the row of a product, None where there is none."""
        return tables.find_sorted(self.ids, product_id)


def open_shown(params: Params, locale: str, source_sha256: str) -> Shown:
    """Return what is shown of a locale's products; made first where the cache has not got it.

    Args:
        params: what the texts are made of.
        locale: whose products they are.
        source_sha256: the hash of the clean products.

    Raises:
        PipelineError: the clean products are missing or damaged.
    """
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    settings = params.clean
    key = files.sha256_lines([str(FORM), source_sha256, *settings.fields, repr(settings.separator)])
    found = layout.shown(f"{locale}-{key[:16]}")

    def make(folder: Path) -> None:
        _make(params, path, folder, remedy)

    def read() -> Shown:
        facets = {}
        for name, column in FACETS.items():
            if column in settings.fields:
                codes: Codes = np.load(found.codes(name), mmap_mode="r", allow_pickle=False)
                values = cache.map_table(found.values(name))
                facets[name] = Facet(name, codes, values["key"], values["shown"])
        return Shown(cache.map_table(found.products), facets)

    return cache.keep_and_read(found.folder, make, len(params.locales), read)


def _make(params: Params, path: Path, folder: Path, remedy: str) -> None:
    """Write the files of a table of products, some thousands of products at a time."""
    out, settings = layout.ShownFiles(folder), params.clean
    builders = {
        name: FacetBuilder() for name, column in FACETS.items() if column in settings.fields
    }
    codes: dict[str, list[Codes]] = {name: [] for name in builders}
    fields = [FACETS[name] for name in builders]
    with out.products.open("wb") as handle, pa.ipc.new_file(handle, PRODUCTS) as writer:
        for batch in iter_fields(path, settings, fields, remedy):
            columns = [batch.ids.combine_chunks(), pa.array(batch.titles, pa.string())]
            writer.write_batch(pa.record_batch(columns, schema=PRODUCTS))
            for name, builder in builders.items():
                found = [builder.add(value) for value in batch.values[FACETS[name]]]
                codes[name].append(np.array(found, dtype=np.int32))
    for name, builder in builders.items():
        write_npy(out.codes(name), np.concatenate(codes[name]))
        cache.write_table(out.values(name), builder.table())
