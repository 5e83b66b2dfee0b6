"""The JSON settings inside a model folder: read strictly, and refused where they reach outside it.

The hash of a folder covers its own files. A setting that loads weights or a vocabulary from another
place would change vectors under the same hash, so it is an error that names the setting.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.core.errors import PipelineError, shorten
from pipeline.core.files import read_json
from pipeline.encoders.own_code import check_code

REMEDY = "Restore the original file of the model."

_LOADER_KEYS = (
    "model_kwargs", "model_args", "processor_kwargs", "tokenizer_args", "config_kwargs",
    "config_args",
)  # fmt: skip
"""Keys of sentence_*_config.json that are handed to the loaders of transformers."""

_HARMLESS_ARGUMENTS = {
    "add_pooling_layer", "attn_implementation", "dtype", "model_max_length", "padding_side",
    "torch_dtype", "truncation_side", "trust_remote_code", "unpad_inputs", "use_cache",
    "use_memory_efficient_attention",
}  # fmt: skip
"""Arguments of these loaders that choose no file."""

_OBEYED = {
    "do_lower_case", "max_seq_length", "modality_config", "module_output_name",
    "transformer_task", "unpad_inputs",
}  # fmt: skip
"""Other keys of sentence_*_config.json that count."""

_FILE_CHOOSERS = {"gguf_file", "init_inputs", "transformers_weights"}
"""Keys of config.json and tokenizer_config.json that choose what is loaded."""

_TORCH = "torch.nn."
_DENSE = {
    "activation_function", "bias", "in_features", "module_input_name", "module_output_name",
    "out_features", "use_residual",
}  # fmt: skip
"""Keys of a dense layer's config.json that count."""

_LARGEST = 2**31 - 1
_MOST_LAYERS = 1_000


def check_settings(files: Mapping[str, Path], *, runs_code: bool) -> None:
    """Check the settings among a model folder's files.

    Args:
        files: the decisive files of the folder, by their path in it.
        runs_code: whether the entry lets the model's own code run.

    Raises:
        PipelineError: a file is not a JSON object, or a setting is impossible or reaches outside
            the folder.
    """
    for name, file in files.items():
        last = PurePosixPath(name).name
        if last == "adapter_config.json":
            raise PipelineError(
                f"{file}: the model is an adapter on another model, which is not in the folder. "
                "Merge the two (merge_and_unload of peft) and use the merged model."
            )
        if last.endswith(".index.json"):
            _check_shards(file)
        is_loader = last.startswith("sentence_") and last.endswith("_config.json")
        if not is_loader and last not in ("config.json", "tokenizer_config.json"):
            continue
        settings = read_settings(file)
        if not isinstance(settings, dict):
            raise PipelineError(f"{file} must be an object (found {shorten(settings)}). {REMEDY}")
        _check_places(file, settings, runs_code=runs_code)
        if is_loader:
            _check_loader(file, settings)
        if not is_loader and not runs_code:
            check_code(file, settings)
        if last == "config.json":
            _check_sizes(file, settings)
        if last == "config.json" and "in_features" in settings:
            _check_dense(file, settings, runs_code=runs_code)


def read_settings(path: Path) -> Any:
    """Read a JSON file of a model.

    Raises:
        PipelineError: as `read_json` of a file that another project wrote.
    """
    return read_json(path, REMEDY, foreign=True)


def trained_dimensions(config: Path) -> list[int]:
    """Return the dimensions that a model's config.json lists as fit to cut its vectors to.

    Raises:
        PipelineError: `matryoshka_dimensions` is not a list of whole numbers from 1 on.
    """
    settings = read_settings(config)
    found = (settings.get("matryoshka_dimensions") if isinstance(settings, dict) else None) or []
    if not isinstance(found, list) or not all(type(one) is int and one > 0 for one in found):
        raise PipelineError(
            f"{config}: matryoshka_dimensions must be a list of whole numbers from 1 on (found "
            f"{shorten(found)}). {REMEDY}"
        )
    return found


def _check_shards(file: Path) -> None:
    """Refuse an index of weights that names files which are not beside it."""
    index = read_settings(file)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict):
        raise PipelineError(f"{file} has no weight_map. {REMEDY}")
    for tensor, name in shards.items():
        if not isinstance(name, str) or name in ("", "..") or {"/", "\\", ":"} & set(name):
            raise _reaches_outside(file, f"weight_map.{tensor}", name)


def _check_places(file: Path, settings: dict[str, Any], *, runs_code: bool) -> None:
    """Refuse settings that choose files, paths of files on this machine, and unpinned code."""
    for key, value in _walk(settings):
        last = key.rsplit(".", 1)[-1]
        chooses = last in _FILE_CHOOSERS and value not in (None, [], "")
        if last.endswith("_file") and isinstance(value, str):
            chooses = chooses or _is_file(value)
        if last.endswith("attn_implementation") and isinstance(value, str):
            chooses = chooses or "/" in value  # code from the hub
        if runs_code and "auto_map" in key and isinstance(value, str):
            chooses = chooses or "--" in value  # code of another repository
        if chooses:
            raise _reaches_outside(file, key, value)


def _check_loader(file: Path, settings: dict[str, Any]) -> None:
    """Refuse arguments of a loader that may choose files, and settings that are not obeyed."""
    for key, value in settings.items():
        if key in _LOADER_KEYS:
            if not isinstance(value, dict):
                raise PipelineError(
                    f"{file}: {key} must be an object (found {shorten(value)}). {REMEDY}"
                )
            for argument, given in value.items():
                if argument not in _HARMLESS_ARGUMENTS:
                    raise _reaches_outside(file, f"{key}.{argument}", given)
        elif key == "tokenizer_name_or_path" and value is not None:
            raise _reaches_outside(file, key, value)
        elif key not in _OBEYED and value not in (None, {}, False, ""):
            raise PipelineError(
                f"{file}: {key} has no effect here (found {shorten(value)}). Remove it from a copy "
                "of the model, and use the copy."
            )


def _check_sizes(file: Path, settings: dict[str, Any]) -> None:
    """Refuse sizes that no model has, on which a library would spend hours or all memory."""
    for key, value in _walk(settings):
        if type(value) is not int:
            continue
        most = _MOST_LAYERS if key.endswith("layers") else _LARGEST
        if abs(value) > most:
            raise PipelineError(
                f"{file}: {key} must be at most {most} (found {shorten(value)}). {REMEDY}"
            )
    trained_dimensions(file)
    longest = settings.get("max_position_embeddings")
    if longest is not None and type(longest) is not int:
        raise PipelineError(
            f"{file}: max_position_embeddings must be a whole number (found {shorten(longest)}). "
            f"{REMEDY}"
        )


def _check_dense(file: Path, settings: dict[str, Any], *, runs_code: bool) -> None:
    """Refuse settings of a dense layer that sentence-transformers would pass over.

    It takes tanh in place of an activation that is not torch's.
    """
    activation = settings.get("activation_function", _TORCH)
    if not runs_code and not (isinstance(activation, str) and activation.startswith(_TORCH)):
        raise PipelineError(
            f"{file}: activation_function must be a class of torch.nn (found "
            f"{shorten(activation)}). Use another model."
        )
    for key, value in settings.items():
        if key not in _DENSE:
            raise PipelineError(
                f"{file}: {key} of a dense layer has no effect here (found {shorten(value)}). "
                "Remove it from a copy of the model if it changes no vector, and use the copy."
            )


def _reaches_outside(file: Path, key: str, value: object) -> PipelineError:
    return PipelineError(
        f"{file}: {key} can load files that the hash of the folder does not cover (found "
        f"{shorten(value)}). Remove it from a copy of the model, and use the copy."
    )


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # such as a name that is too long
        return False


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value inside a JSON value with its dotted key, those that hold others too."""
    if isinstance(value, dict):
        for name, inner in value.items():
            path = f"{key}.{name}" if key else name
            yield path, inner
            yield from _walk(inner, path)
    elif isinstance(value, list):
        for inner in value:
            yield key, inner
            yield from _walk(inner, key)
