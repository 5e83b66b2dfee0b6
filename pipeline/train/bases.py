"""What a model's base and teacher have learned from, which must not choose the model's epoch."""

from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import sha256_file
from pipeline.core.params import Params
from pipeline.core.spelling import text_key
from pipeline.core.tables import PAIRS, read_column
from pipeline.core.trained_folder import learned_pairs


def read_learned(params: Params, names: Iterable[str]) -> frozenset[str]:
    """Return the `text_key` of each query that models and what they need have learned from.

    `pairs` draws each model's dev queries by the least id of a text in the model's own locales. A
    base of other locales may have drawn the same text otherwise.

    Raises:
        PipelineError: the pairs of a model are missing, or are not those that its card names.
    """
    learned: set[str] = set()
    for name in params.trained_for(names):
        path, remedy = layout.pairs(name).train, layout.pairs_hint(name)
        queries = read_column(path, PAIRS, "query", remedy).unique().to_pylist()
        expected = learned_pairs(params, name).get("train")
        if (found := sha256_file(path)) != expected:
            raise PipelineError(
                f"{path}: {name} learned from other pairs than these ({found[:12]}). "
                f"{layout.train_hint(name)}"
            )
        learned.update(map(text_key, queries))
    return frozenset(learned)


def leave_out(table: pa.Table, learned: frozenset[str]) -> pa.Table:
    """Return the pairs whose query is none of these texts, as `text_key` gives them."""
    texts = table["query"].unique()
    known = [text for text in texts.to_pylist() if text_key(text) in learned]
    return table.filter(pc.invert(pc.is_in(table["query"], value_set=pa.array(known, pa.string()))))
