"""What is shown of products: ids and titles, brands and colours; mapped from the cache."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import files, layout, tables
from pipeline.core.field_ends import field_bounds
from pipeline.core.params import Params
from pipeline.evaluate.product_fields import TITLE_CHARACTERS, first_ends
from pipeline.search import kept
from pipeline.search.facets import FACETS, Codes, Facet, FacetBuilder

FORM = 1
"""Version of the files; another makes them again."""

BATCH_ROWS = 16_384

PRODUCTS = pa.schema([("product_id", pa.string()), ("title", pa.string())])


@dataclass(frozen=True)
class Shown:
    """The products of a locale, in the order of the clean table.

    Attributes:
        products: `product_id` and `title`, one row per product.
        facets: brand and color, where the texts are made of them.
        source_sha256: the hash of the clean table.
    """

    products: pa.Table
    facets: Mapping[str, Facet]
    source_sha256: str

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """All product_ids, ascending."""
        return self.products["product_id"]

    def title(self, row: int) -> str:
        """Return a product's first field that holds anything, in 200 characters at most."""
        return str(self.products["title"][row].as_py())

    def row_of(self, product_id: str) -> int | None:
        """Return the row of a product, None where there is none."""
        ids = self.ids
        row = bisect_left(range(len(ids)), product_id, key=lambda at: ids[at].as_py())
        return row if row < len(ids) and ids[row].as_py() == product_id else None


def open_shown(params: Params, locale: str) -> Shown:
    """Return what is shown of a locale's products; made first where the cache has not got it.

    Raises:
        PipelineError: the clean products are missing or damaged.
    """
    path, remedy = layout.clean(locale).products, layout.rerun_hint("clean", locale)
    files.check_regular(path, remedy)
    source = files.sha256_file(path)
    settings = params.clean
    key = files.sha256_lines([str(FORM), source, *settings.fields, repr(settings.separator)])
    found = layout.shown(f"{locale}-{key[:16]}")
    kept.keep(found.folder, lambda folder: _make(params, path, folder, remedy), len(params.locales))
    facets = {}
    for name, column in FACETS.items():
        if column in settings.fields:
            codes: Codes = np.load(found.codes(name), mmap_mode="r", allow_pickle=False)
            values = kept.map_table(found.values(name))
            facets[name] = Facet(name, codes, values["key"], values["shown"])
    return Shown(kept.map_table(found.products), facets, source)


def _make(params: Params, path: Path, folder: Path, remedy: str) -> None:
    """Write the files of a table of products, some thousands of products at a time."""
    out, settings = layout.ShownFiles(folder), params.clean
    builders = {
        name: FacetBuilder() for name, column in FACETS.items() if column in settings.fields
    }
    codes: dict[str, list[Codes]] = {name: [] for name in builders}
    with out.products.open("wb") as handle, pa.ipc.new_file(handle, PRODUCTS) as writer:
        for batch in tables.iter_table(path, tables.PRODUCTS, BATCH_ROWS, remedy):
            ends = batch["field_ends"].combine_chunks().flatten().to_numpy().reshape(len(batch), -1)
            places = {name: settings.fields.index(FACETS[name]) for name in builders}
            longest = max(TITLE_CHARACTERS, *(ends[:, at].max() for at in places.values()), 0)
            texts = pc.utf8_slice_codeunits(batch["text"], 0, int(longest)).to_pylist()
            stops = np.minimum(first_ends(ends), TITLE_CHARACTERS).tolist()
            titles = [text[:stop] for text, stop in zip(texts, stops, strict=True)]
            columns = [batch["product_id"].combine_chunks(), pa.array(titles, pa.string())]
            writer.write_batch(pa.record_batch(columns, schema=PRODUCTS))
            for name, builder in builders.items():
                bounds = zip(
                    texts, *field_bounds(ends, places[name], settings.separator), strict=True
                )
                of_batch = [builder.add(text[start:stop]) for text, start, stop in bounds]
                codes[name].append(np.array(of_batch, dtype=np.int32))
    for name, builder in builders.items():
        files.write_npy(out.codes(name), np.concatenate(codes[name]))
        kept.write_table(out.values(name), builder.table())
