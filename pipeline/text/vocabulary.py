"""The words of a catalogue, and how many products have each."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core.tables import VOCABULARY

# In the syntax of RE2.
_BETWEEN_WORDS = r"[^\p{L}\p{M}\p{N}]+"
_LETTERS = r"^\p{L}[\p{L}\p{M}]*$"


def count_words(texts: Iterable[pa.ChunkedArray]) -> pa.Table:
    """Return the words of clean texts, in lower case; one with a digit is a size or a model.

    What is between two spaces is a word of no product without its marks: `levis` for "Levi's".

    Args:
        texts: of products, some thousands at a time.

    Returns:
        A table of `tables.VOCABULARY`.
    """
    counted = [_count(piece) for piece in texts]
    together = pa.concat_tables([VOCABULARY.empty_table(), *counted])
    summed = together.group_by("word").aggregate([("products", "sum")])
    columns = [summed["word"], summed["products_sum"]]
    return pa.table(columns, names=VOCABULARY.names).sort_by("word").cast(VOCABULARY)


def _count(texts: pa.ChunkedArray) -> pa.Table:
    # Clean texts have single spaces. What is between two is cut once, however often it is there.
    lists = pc.split_pattern(pc.utf8_lower(texts), " ").combine_chunks()
    rows = pc.list_parent_indices(lists).to_numpy()
    between = pc.list_flatten(lists).dictionary_encode()
    cut = pc.split_pattern_regex(between.dictionary, _BETWEEN_WORDS)
    words = pc.list_flatten(cut).dictionary_encode()
    codes = pa.ListArray.from_arrays(cut.offsets, words.indices).take(between.indices)
    size = max(1, len(words.dictionary))
    pairs = rows[pc.list_parent_indices(codes)] * size + pc.list_flatten(codes).to_numpy()
    pairs.sort()  # several times as fast as np.unique
    once = pairs[np.diff(pairs, prepend=-1) != 0]
    products = np.bincount(once % size, minlength=len(words.dictionary))
    joined = pc.replace_substring_regex(between.dictionary, _BETWEEN_WORDS, "").unique()
    counts = np.concatenate([products.astype(np.int64), np.zeros(len(joined), np.int64)])
    found = pa.table([pa.concat_arrays([words.dictionary, joined]), counts], VOCABULARY)
    return found.filter(pc.match_substring_regex(found["word"], _LETTERS))
