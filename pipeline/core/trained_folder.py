"""Models that were trained here: whether they are those of params.yaml, and their curves.

Whether they may be evaluated, too: a stage that is run by hand may find other queries in the clean
tables than a model was kept apart from. The graph of DVC draws the pairs again.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.core import layout, tables
from pipeline.core.cards import read_model, refuse_differences
from pipeline.core.contract import refuse_other_contract
from pipeline.core.files import sha256_file
from pipeline.core.param_types import Part, Sha256
from pipeline.core.params import Params
from pipeline.core.spelling import typed_texts
from pipeline.core.trained import OF_THE_CONTRACT

SIDES = ("train", "dev")
"""The two parts of the pairs that a model learns from."""

_SINCE = "was trained again since"


class _Teacher(Part):
    """The part of what a model's card says of its teacher that is compared."""

    weights: Sha256


class _Card(Part):
    """The part of a trained model's card that is compared."""

    settings: dict[str, Any]
    base_sha256: Sha256
    teacher: _Teacher | None = None
    weights_sha256: Sha256


class _Learned(Part):
    """The part of a trained model's card that says what it learned from."""

    pairs: Mapping[str, str]


class _PairsCard(Part):
    """What a model's pairs are: see `card_of_pairs`."""

    evaluated: Mapping[str, str]
    pairs: Mapping[str, str]
    training: Mapping[str, Any]


def refuse_other_model(params: Params, name: str, weights_sha256: str) -> None:
    """Check that a model under `trained` is the one that params.yaml and its card say.

    It and those that it learned from must be of these settings, its folder must have the weights
    that were written, and its contract must be the base's. `dimension` and `precision` may be
    others: they change no weights. A name that is not under `trained` passes.

    Args:
        params: the settings.
        name: the model.
        weights_sha256: the hash of its folder, as `LocalWeights` has it.

    Raises:
        PipelineError: a card or contract is missing or damaged, or something differs.
    """
    if name not in params.trained:
        return
    card, remedy = _read_card(params, name), layout.train_hint(name)
    kind = params.trained[name].kind
    files = layout.model(kind, name)
    found, expected = {"sha256": weights_sha256}, {"sha256": card.weights_sha256}
    why = f"it is not the model that {files.card.name} is of"
    refuse_differences(files.weights, found, expected, why, remedy)
    entry = params.encoder_named(name) if kind == "encoder" else params.reranker_named(name)
    why = "the model was trained under another contract of its base"
    refuse_other_contract(files.contract, entry, OF_THE_CONTRACT, why, remedy)


def _read_card(params: Params, name: str) -> _Card:
    """Read the card of a model under `trained`, once it and those of its sources fit together.

    Raises:
        PipelineError: a card is missing or damaged, a setting differs, or a base or teacher was
            trained again since.
    """
    cards: dict[str, _Card] = {}
    for each in params.trained_for([name]):
        trained = params.trained[each]
        path, remedy = layout.model(trained.kind, each).card, layout.train_hint(each)
        card = cards[each] = read_model(path, _Card, remedy)
        why = "the model was trained with other settings"
        refuse_differences(path, card.settings, trained.of_weights(), why, remedy)
        learned_from = {trained.base: ("base_sha256", card.base_sha256)}
        if card.teacher:
            learned_from[trained.teacher] = ("teacher.weights", card.teacher.weights)
        for source, (key, sha256) in learned_from.items():
            if source in cards:
                found, expected = {key: sha256}, {key: cards[source].weights_sha256}
                refuse_differences(path, found, expected, f"{source} {_SINCE}", remedy)
    return cards[name]


def refuse_trained_since(
    params: Params, name: str, made: Path, weights_sha256: str | None, remedy: str
) -> None:
    """Check that vectors or runs are of the model under `trained` that is there.

    Where this machine has no card of it, nothing is compared: DVC brings what a model made, and not
    the model. A name that is not under `trained` passes.

    Args:
        params: the settings that it must have been trained with.
        name: the model.
        made: the card of what it made.
        weights_sha256: the hash of its weights there.
        remedy: a sentence that says what makes it again.

    Raises:
        PipelineError: it has other weights; or its card is missing, damaged or of other settings
            or sources.
    """
    if name not in params.trained:
        return
    if not layout.model(params.trained[name].kind, name).card.is_file():
        return
    found = {"weights_sha256": weights_sha256}
    expected = {"weights_sha256": _read_card(params, name).weights_sha256}
    refuse_differences(made, found, expected, f"{name} {_SINCE}", remedy)


def card_of_pairs(params: Params, files: layout.PairFiles) -> dict[str, Any]:
    """Return what pairs are: the hashes of both sides, and all that they were kept apart from.

    That is a hash of the evaluated queries of each locale, and the section `training`.

    Raises:
        PipelineError: a clean table is missing or damaged.
    """
    return {
        "evaluated": {locale: _evaluated_sha256(locale) for locale in params.language},
        "pairs": {side: sha256_file(files.side(side)) for side in SIDES},
        "training": params.training.model_dump(mode="json"),
    }


def learned_pairs(params: Params, name: str) -> Mapping[str, str]:
    """Return the hash of each side of the pairs that a model under `trained` learned from.

    Raises:
        PipelineError: the model's card, which says so, is missing or damaged.
    """
    card = layout.model(params.trained[name].kind, name).card
    return read_model(card, _Learned, layout.train_hint(name)).pairs


def refuse_other_pairs(params: Params, name: str, locale: str) -> None:
    """Check that a model under `trained`, and its bases, were kept apart from a locale's queries.

    The pairs of each say so, where this machine has them; without them nothing is compared. A name
    that is not under `trained` passes.

    Raises:
        PipelineError: the locale has other queries than a model was kept apart from, `training`
            has other settings, a model learned from other pairs, or a file is missing or damaged.
    """
    for each in params.trained_for([name]):
        path, remedy = layout.pairs(each).card, layout.train_hint(each)
        if not path.is_file():
            continue
        held = read_model(path, _PairsCard, remedy)
        card = layout.model(params.trained[each].kind, each).card
        why = "the model learned from other pairs"
        refuse_differences(card, learned_pairs(params, each), held.pairs, why, remedy)
        training = params.training.model_dump(mode="json")
        why = "the pairs were drawn with other settings of training"
        refuse_differences(path, held.training, training, why, remedy)
        found, expected = held.evaluated.get(locale), _evaluated_sha256(locale)
        why = f"{each} was kept apart from other queries of {locale} than are evaluated now"
        refuse_differences(path, {"evaluated": found}, {"evaluated": expected}, why, remedy)


def _evaluated_sha256(locale: str) -> str:
    """Return the hash of a locale's clean queries: ids, texts, and texts as they were typed."""
    path, remedy = layout.clean(locale).queries, layout.rerun_hint("clean", locale)
    queries = tables.read_table(path, tables.QUERIES, remedy)
    typed = pa.chunked_array([typed_texts(queries, locale)], pa.string())
    return tables.columns_sha256([queries["query_id"], queries["text"], typed])


def copy_curve(params: Params, name: str, path: Path) -> None:
    """Copy the curve of a model under `trained` to `path`; of another model there is none."""
    if name in params.trained:
        curve = layout.model(params.trained[name].kind, name).curve
        if curve.is_file():
            shutil.copyfile(curve, path)
