"""What a browser must know to make an encoder's tokens beside tokenizer.json."""

import json
from typing import Any

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder


def token_settings(tokenizer: str, spec: Encoder, where: str) -> dict[str, Any]:
    """Return the prefix of queries, the limit of tokens and the special tokens around a text.

    The library of the page does not cut texts, so the page does: it makes tokens without the
    special ones, keeps the first `max_tokens` less those, and puts them around.

    Raises:
        PipelineError: texts are cut on the left, or special tokens are not around the text.
    """
    from tokenizers import Tokenizer

    library = Tokenizer.from_str(tokenizer)
    library.no_padding()
    if (library.truncation or {}).get("direction") == "left":
        raise PipelineError(f"{where}: the page cannot cut texts on the left. Use another encoder.")
    bare, whole = (library.encode("a", add_special_tokens=each).ids for each in (False, True))
    place = next((at for at in range(len(whole)) if whole[at : at + len(bare)] == bare), None)
    if place is None or not bare:
        raise PipelineError(
            f"{where}: its special tokens are not around the text (found "
            f"{json.dumps(whole[:8])}). Use another encoder."
        )
    return {
        "query_prefix": spec.query_prefix,
        "max_tokens": spec.max_tokens,
        "before": whole[:place],
        "after": whole[place + len(bare) :],
    }
