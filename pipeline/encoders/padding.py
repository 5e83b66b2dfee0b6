"""Whether a model may read texts beside padding: found once per model, and kept in the cache.

A model that ignores the attention mask, such as FNet, mixes padding into its vectors. Its texts are
encoded one length at a time, without padding.
"""

import contextlib
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.core import files, layout
from pipeline.core.cache import build_once, folder_name
from pipeline.core.errors import PipelineError
from pipeline.core.params import Entry
from pipeline.encoders.batching import STEP
from pipeline.encoders.model import LoadedModel, built_in_form, load_any, reported
from pipeline.encoders.weights import LocalWeights

PROBED_TOKENS = 256
"""The length of the longest made-up texts that a model is tried on."""

_SAME = 1e-9
"""The largest cosine distance between vectors of one text that differ by rounding only; padding
that is mixed in gives 1e-4 and more."""

_SHORT = (1, 2, 9)
_LACKING = (15, 8, 1)  # tokens by which long texts fall short of a full batch row


def may_pad(spec: Entry, weights: LocalWeights) -> bool:
    """Say whether an encoder's texts may be padded; see `find_padding`, asked once per model.

    Raises:
        PipelineError: as `load_model` and `find_padding`.
    """
    folder = _folder(spec, weights)

    def fill(partial: Path) -> None:
        pads = find_padding(load_any(spec, weights), weights)
        files.write_json(partial / "card.json", {"pads": pads})

    build_once(folder, fill)
    return bool(files.read_json(folder / "card.json", f"Delete {folder}.")["pads"])


def known_padding(spec: Entry, weights: LocalWeights) -> bool:
    """Return what `may_pad` found before; True where it was not asked yet."""
    with contextlib.suppress(PipelineError, KeyError, TypeError):
        return bool(files.read_json(_folder(spec, weights) / "card.json", "")["pads"])
    return True


def find_padding(model: LoadedModel, weights: LocalWeights) -> bool:
    """Compare a model's vectors of short and long texts, each alone and in a padded batch.

    Returns:
        True if they are the same; False if padding changes them, but texts of one length do not.

    Raises:
        PipelineError: the model cannot compute a batch, or a text's vector depends on the other
            texts of its batch even without padding.
    """
    longest = min(model.longest or PROBED_TOKENS, PROBED_TOKENS)
    short = min(STEP, longest)
    batches = [
        ([min(length, short) for length in _SHORT], short),
        ([max(longest - lacking, 1) for lacking in _LACKING], longest),
    ]
    pads = True
    with reported(weights.folder, weights.folder, weights.entry):
        for lengths, width in batches:
            texts = [_made_up(model, length, seed) for seed, length in enumerate(lengths)]
            pads = pads and _same(model, _batched(model, texts, width), _alone(model, texts))
        for lengths, _ in batches if not pads else []:
            texts = [_made_up(model, lengths[0], seed) for seed in range(len(lengths))]
            if not _same(model, _batched(model, texts, lengths[0]), _alone(model, texts)):
                raise PipelineError(
                    f"{weights.entry}.weights: {weights.folder}: a text's vector depends "
                    "on the other texts of its batch. Use another model."
                )
    return pads


def _folder(spec: Entry, weights: LocalWeights) -> Path:
    identity = {
        **built_in_form(weights),
        "pooling": spec.output,
        "transformers": version("transformers"),
        "weights": weights.sha256,
    }
    return layout.cache() / "engines" / folder_name("padding", identity)


def _made_up(model: LoadedModel, length: int, seed: int) -> NDArray[np.int64]:
    ids = np.random.default_rng(seed).integers(0, model.vocabulary, length)
    ids[ids == model.pad_id] = (model.pad_id + 1) % model.vocabulary
    return ids


def _alone(model: LoadedModel, texts: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    return np.concatenate([model.pool(ids[None], np.ones_like(ids[None])) for ids in texts])


def _batched(model: LoadedModel, texts: list[NDArray[np.int64]], width: int) -> NDArray[np.float32]:
    ids = np.full((len(texts), width), model.pad_id, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return model.pool(ids, mask)


def _same(model: LoadedModel, found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    """Compare rows; those that are not finite without padding say nothing about padding."""
    whole = np.isfinite(expected).all(axis=1)
    return bool((model.distance(found, expected)[whole] <= _SAME).all())
