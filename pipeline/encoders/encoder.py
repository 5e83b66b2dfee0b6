"""A loaded encoder: texts in, vectors out, under the whole contract of its entry."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.encoders.contract import obedient_modules
from pipeline.encoders.model_folder import transformer_folder
from pipeline.encoders.weights import LocalWeights
from pipeline.errors import PipelineError
from pipeline.params import Encoder, HubWeights, Runtime

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SHOWN_CHARACTERS = 60


class TextEncoder:
    """Encodes queries and passages, each with its prefix, which is added here and nowhere else.

    Attributes:
        dimension: the number of components of a vector.
    """

    def __init__(
        self,
        model: "SentenceTransformer",
        dimension: int,
        spec: Encoder,
        name: str,
        batch_size: int,
    ) -> None:
        """Wrap a model that pools but does not normalise; `load_encoder` makes one."""
        self.dimension = dimension
        self._model = model
        self._spec = spec
        self._name = name
        self._batch_size = batch_size

    def encode_queries(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of queries.

        Returns:
            float32, C-contiguous, shape (texts, dimension), in the order of the texts; unit length
            if the entry says `normalize`. An empty text has the vector of its prefix.

        Raises:
            PipelineError: a text is not Unicode (a lone surrogate), or its vector holds NaN or
                infinity or, if it is to be normalised, has no length.
        """
        return self._encode(texts, self._spec.query_prefix)

    def encode_passages(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of passages; as `encode_queries`, with the passages' prefix."""
        return self._encode(texts, self._spec.passage_prefix)

    def _encode(self, texts: Sequence[str], prefix: str) -> NDArray[np.float32]:
        if len(texts) == 0:
            return np.zeros((0, self.dimension), dtype=np.float32)
        self._check_texts(texts)
        # Given as a prompt, so that a pooling which leaves its prompt out knows what that is.
        encoded = self._model.encode(
            list(texts), prompt=prefix, batch_size=self._batch_size, show_progress_bar=False
        )
        vectors = np.ascontiguousarray(encoded, dtype=np.float32)
        self._refuse(
            np.logical_not(np.isfinite(vectors).all(axis=1)), "holds NaN or infinity", texts
        )
        if self._spec.normalize:
            lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
            self._refuse(lengths == 0, "has no length, so it cannot be normalised", texts)
            vectors /= lengths.astype(np.float32)[:, None]
        return vectors

    def _check_texts(self, texts: Sequence[str]) -> None:
        for row, text in enumerate(texts):
            try:
                text.encode()
            except UnicodeEncodeError as err:
                raise PipelineError(
                    f"text {row} for the encoder {self._name} is not Unicode "
                    f"({_shortened(text)}: {err.reason}); clean the texts first"
                ) from err

    def _refuse(self, broken: NDArray[np.bool_], what: str, texts: Sequence[str]) -> None:
        if broken.any():
            row = int(broken.argmax())
            raise PipelineError(
                f"encoders.{self._name}: the vector of text {row} ({_shortened(texts[row])}) "
                f"{what}, as do {int(broken.sum()) - 1} others of {len(texts)}; the model's "
                "weights are damaged or do not fit its code: bring them anew"
            )


def load_encoder(spec: Encoder, weights: LocalWeights, runtime: Runtime) -> TextEncoder:
    """Load an encoder in float32 onto the device that `runtime` names.

    The model's own prompts have no say. An explicit `pooling` takes the place of the model's own;
    what follows it, such as a dense layer, stays. The model's closing normalisation is taken out,
    so that `normalize: false` is obeyed. The number of threads is set for the whole process.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.
        runtime: device, threads and batch size; they change speed only.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, or cannot do what the entry asks
            (its pooling, its `max_tokens`), or the device is not there.
    """
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    # What they would report is checked here instead, and made an error.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    entry = f"encoders.{weights.name}"
    torch.set_num_threads(runtime.thread_count())
    device = _device(runtime)
    loaded = _load(spec, weights, entry)
    modules = obedient_modules(list(loaded.children()), spec, entry)
    model = SentenceTransformer(modules=modules, device=device).eval()
    dimension = model.get_embedding_dimension()
    if dimension is None:
        raise PipelineError(f"{entry}.weights: {weights.folder} does not say its dimension")
    return TextEncoder(model, dimension, spec, weights.name, runtime.batch_size)


def _load(spec: Encoder, weights: LocalWeights, entry: str) -> "SentenceTransformer":
    """Load the folder as it is, and make sure that no weight was made up."""
    import torch
    from safetensors import SafetensorError
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    remote_code = isinstance(spec.weights, HubWeights) and spec.weights.remote_code
    try:
        loaded = SentenceTransformer(
            str(weights.folder),
            device="cpu",
            trust_remote_code=remote_code,
            local_files_only=True,
            # Some checkpoints are stored in float16, which transformers would compute in.
            model_kwargs={"dtype": torch.float32},
        )
        # A second reading, since only this one tells which weights the file lacks: transformers
        # fills them at random.
        _, report = AutoModel.from_pretrained(
            transformer_folder(weights.folder),
            output_loading_info=True,
            trust_remote_code=remote_code,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as err:
        cause = (str(err).strip() or repr(err)).splitlines()[0]
        raise PipelineError(f"{entry}.weights: {weights.folder} cannot be loaded: {cause}") from err
    needed = set(loaded[0].state_dict())
    lacking = sorted(
        key
        for key in report["missing_keys"]
        if any(name.endswith(key) for name in needed) and not key.startswith("pooler.")
    )
    if lacking:
        raise PipelineError(
            f"{entry}.weights: {weights.folder} lacks {len(lacking)} of the model's weights, such "
            f"as {lacking[0]}; bring the model's own copy"
        )
    return loaded


def _device(runtime: Runtime) -> str:
    import torch

    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if runtime.device == "auto":
        return next(device for device, there in available.items() if there)
    if not available[runtime.device]:
        raise PipelineError(
            f"runtime.device: {runtime.device}, but this machine has none that torch can use; set "
            "auto or cpu"
        )
    return runtime.device


def _shortened(text: str) -> str:
    return repr(text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
