"""The pairs that a model learns from, as arrays."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.core.arrays import Ints
from pipeline.core.spelling import text_key
from pipeline.core.tables import LABELS


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a product, sorted by locale, query_id and product_id.

    Attributes:
        queries: the distinct query texts.
        texts: the distinct product texts, those of products without a pair too.
        query: the query's text, a place in `queries`; int64, shape [pairs].
        text: the product's text, a place in `texts`; int64, shape [pairs].
        label: a place in `LABELS`; int64, shape [pairs].
        group: which (locale, query_id) it is, counted from 0, ascending; int64, shape [pairs].
        product: which (locale, product_id) it is, in their order; int64, shape [pairs].
        locale: which locale it is, counted from 0, ascending; int64, shape [pairs].
        judged: whether somebody gave it its label; bool, shape [pairs].
        text_of: the text of each product, a place in `texts`; int64, shape [products].
        locale_of: the locale of each product, as in `locale`; int64, shape [products].
    """

    queries: list[str]
    texts: list[str]
    query: Ints
    text: Ints
    label: Ints
    group: Ints
    product: Ints
    locale: Ints
    judged: NDArray[np.bool_]
    text_of: Ints
    locale_of: Ints

    def __len__(self) -> int:
        """Return the number of pairs."""
        return self.label.size

    def has(self, labels: tuple[str, ...]) -> NDArray[np.bool_]:
        """Say which judged pairs have one of these labels; bool, shape [pairs]."""
        return self.judged & np.isin(self.label, [LABELS.index(label) for label in labels])

    def asked(self) -> Ints:
        """Return which query each pair asks, counted from 0; int64, shape [pairs].

        Texts that differ in case alone are one query, in all locales together.
        """
        codes: dict[str, int] = {}
        of_text = [codes.setdefault(text_key(text), len(codes)) for text in self.queries]
        return np.array(of_text, np.int64)[self.query]

    def queries_count(self) -> int:
        """Return the number of queries by locale and query_id."""
        return int(self.group[-1]) + 1 if len(self) else 0


def pairs_of(table: pa.Table, others: pa.Table | None = None) -> Pairs:
    """Return the pairs of a table with the schema `PAIRS`, sorted as that has it.

    Args:
        table: the pairs.
        others: rows whose products there are too, without a pair; of the same schema, and of
            locales of the table.
    """
    whole = table if others is None else pa.concat_tables([table, others])
    queries, query = _distinct(table["query"])
    texts, text = _distinct(whole["text"])
    _, locale = _distinct(whole["locale"])
    keys = list(zip(locale.tolist(), whole["product_id"].to_pylist(), strict=True))
    codes = {key: code for code, key in enumerate(sorted(set(keys)))}
    product = np.array([codes[key] for key in keys], dtype=np.int64)
    first = np.unique(product, return_index=True)[1]
    text_of, locale_of = text[first], locale[first]
    rows = len(table)
    text, locale, product = text[:rows], locale[:rows], product[:rows]
    ids = table["query_id"].to_numpy()
    begins = (np.diff(locale) != 0) | (np.diff(ids) != 0)
    return Pairs(
        queries=queries,
        texts=texts,
        query=query,
        text=text,
        label=_ints(pc.index_in(table["label"], pa.array(LABELS)).to_numpy()),
        group=_ints(np.cumsum(np.append(False, begins)[:rows])),
        product=product,
        locale=locale,
        judged=np.ones(rows, np.bool_),
        text_of=text_of,
        locale_of=locale_of,
    )


def _distinct(column: pa.ChunkedArray) -> tuple[list[str], Ints]:
    """Return a column's distinct values in the order of their first row, and each row's place."""
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), _ints(coded.indices.to_numpy())


def _ints(values: NDArray[Any]) -> Ints:
    return values.astype(np.int64)
