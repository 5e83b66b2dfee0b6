"""Add an entry: pinned, described by the model's own files, proven, and written to params.yaml."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.core import params_edit, params_text
from pipeline.core.errors import PipelineError, explain, shorten
from pipeline.core.param_types import MOST_NAME
from pipeline.core.params import Encoder, FolderWeights, Params, Weights
from pipeline.core.params_file import PARAMS_FILE, check_params, is_name, load_params
from pipeline.core.trained_folder import refuse_other_model
from pipeline.encoders.catalogue.description import describe
from pipeline.encoders.catalogue.pin import pin, read_card
from pipeline.encoders.catalogue.proof import Proof, prove
from pipeline.encoders.catalogue.proposal import Proposal, Wishes, propose
from pipeline.encoders.catalogue.source import parse_source
from pipeline.encoders.prompts import name_of
from pipeline.encoders.weights import LocalWeights, resolve_weights

_ANY: dict[str, Any] = {
    "query_prefix": "", "passage_prefix": "", "pooling": "mean", "normalize": True,
    "similarity": "cosine", "languages": ("any",), "max_tokens": 1, "dimension": "model",
    "precision": "float32",
}  # fmt: skip
"""A contract that every model folder satisfies, to resolve weights with before theirs is known."""


@dataclass(frozen=True)
class Added:
    """What was written, and why.

    Attributes:
        entry: the entry of `encoders`.
        proposal: its keys with their reasons, and what is in doubt.
        notes: how the weights were pinned.
        proof: what encoding a text gave.
        params: params.yaml with the entry.
    """

    entry: Encoder
    proposal: Proposal
    notes: tuple[str, ...]
    proof: Proof
    params: Params


def add(name: str, source: str, wishes: Wishes, *, replace: bool, allow_pickle: bool) -> Added:
    """Add an entry to params.yaml, once its model has encoded a text.

    Args:
        name: its key under `encoders`.
        source: see `parse_source`.
        wishes: what its files do not decide.
        replace: whether an entry of this name may be replaced.
        allow_pickle: whether weights may be a pickle.

    Raises:
        PipelineError: the name, the source or the model cannot be used; params.yaml is as before.
    """
    params = load_params()
    _check_name(name, params, replace=replace)
    params_edit.check_writable()
    pinned = pin(parse_source(source), allow_pickle=allow_pickle)
    weights = pinned.weights
    decided = {key: value for key, value in asdict(wishes).items() if value is not None}
    local = resolve_weights(_parse_entry(name, weights, _ANY | decided), name)
    proposal = propose(describe(local.folder, read_card(weights)), name_of(weights), wishes)
    if isinstance(weights, FolderWeights):
        weights = weights.model_copy(update={"sha256": local.sha256})
    spec = _parse_entry(name, weights, proposal.contract())
    proof = prove(spec, local, params.runtime)
    after = _write(name, spec, replace=replace)
    return Added(spec, proposal, pinned.notes, proof, after)


def check(name: str) -> tuple[LocalWeights, Proof]:
    """Fetch an entry's weights, and let its model encode a text.

    Raises:
        PipelineError: there is no such entry, or it cannot encode.
    """
    params = load_params()
    if name not in params.encoder_names():
        raise PipelineError(
            f"{PARAMS_FILE}: encoders has no {shorten(name)} (it has: "
            f"{', '.join(params.encoder_names())}). Name one of these."
        )
    spec = params.encoder_named(name)
    local = resolve_weights(spec, name)
    refuse_other_model(params, name, local.sha256)
    return local, prove(spec, local, params.runtime)


def _check_name(name: str, params: Params, *, replace: bool) -> None:
    """Raise a `PipelineError` unless an entry of this name may be written."""
    if not is_name(name):
        raise PipelineError(
            f"NAME: must be at most {MOST_NAME} small letters and digits, with single hyphens "
            "between them, such as my-model-2, and nothing that YAML reads as a number, true, "
            f"false or null (found {shorten(name)})."
        )
    for section in ("rerankers", "trained"):
        if name in getattr(params, section):
            raise PipelineError(
                f"{PARAMS_FILE}: {section} has the name {name} already, and it would mean two "
                "models. Choose another name."
            )
    if name in params.encoders and not replace:
        raise PipelineError(
            f"{PARAMS_FILE}: encoders.{name} is there already. Choose another name, or add "
            "--replace."
        )


def _parse_entry(name: str, weights: Weights, contract: Mapping[str, Any]) -> Encoder:
    """Return an entry as its type, or raise a `PipelineError` that lists what is wrong with it."""
    data = {"weights": weights.model_dump(mode="json"), **contract}
    try:
        return Encoder.model_validate_json(json.dumps(data))
    except ValidationError as err:
        raise PipelineError(
            "; ".join(f"encoders.{name}.{line}" for line in explain(err, Encoder)) + ". Correct it."
        ) from err


def _as_data(spec: Encoder) -> dict[str, Any]:
    """Return an entry as params.yaml has it: what is as if it were not there is left out."""
    data = spec.model_dump(mode="json")
    weights = spec.weights.model_dump(mode="json", exclude_defaults=True)
    return {**data, "weights": {"kind": spec.weights.kind, **weights}}


def _write(name: str, spec: Encoder, *, replace: bool) -> Params:
    """Write the entry into params.yaml as it is now, and return what the file says then."""
    where = str(PARAMS_FILE)

    def with_entry(text: bytes) -> bytes:
        before = check_params(params_text.parse(text, where), where)
        _check_name(name, before, replace=replace)
        return params_edit.put(text, ("encoders", name), _as_data(spec), where)

    return params_edit.write(with_entry)
