"""A model folder loaded as torch modules that obey an encoder's entry."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Encoder, FolderWeights, HubWeights
from pipeline.encoders.model_folder import folder_sha256, transformer_folder, view_decisive
from pipeline.encoders.obey_entry import apply_entry, longest_input
from pipeline.encoders.weights import LocalWeights

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


_LONGEST_CAUSE = 300  # letters of a library's message


@dataclass(frozen=True)
class LoadedModel:
    """A model that pools but does not normalise, in float32 on the CPU.

    Attributes:
        modules: the model.
        tokenizer: its tokenizer, as JSON of the tokenizers library.
        pad_id: the token id that fills the places without a token.
        vocabulary: how many token ids it knows, from 0 on.
        longest: how many tokens it has positions for; None if it is not bounded.
        special: how many special tokens go with every text.
        takes_types: whether it wants token types beside ids and mask.
    """

    modules: "SentenceTransformer"
    tokenizer: str
    pad_id: int
    vocabulary: int
    longest: int | None
    special: int
    takes_types: bool

    def features(self, ids: "torch.Tensor", mask: "torch.Tensor", prompt: int) -> dict[str, Any]:
        """Return the model's input for token ids and their mask, int64, shape [rows, length].

        The first `prompt` tokens of each row are its prefix's.
        """
        features: dict[str, Any] = {
            "input_ids": ids,
            "attention_mask": mask,
            "prompt_length": prompt,
        }
        if self.takes_types:
            features["token_type_ids"] = ids * 0
        return features

    def pool(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], prompt: int = 0
    ) -> NDArray[np.float32]:
        """Return the vectors of a batch, float32, shape [rows, dimension]; takes `features`'s."""
        import torch

        with torch.inference_mode():
            features = self.features(torch.from_numpy(ids), torch.from_numpy(mask), prompt)
            pooled: NDArray[np.float32] = self.modules(features)["sentence_embedding"].numpy()
        return pooled


def load_model(spec: Encoder, weights: LocalWeights) -> LoadedModel:
    """Load an encoder's model.

    The model's own prompts do not count. An explicit `pooling` replaces the model's own; the layers
    after it, such as a dense one, stay. The model's closing normalisation is removed, so that
    `normalize: false` is obeyed.

    Args:
        spec: the entry.
        weights: what `resolve_weights` returned for it.

    Raises:
        PipelineError: the folder cannot be loaded, lacks weights, or cannot do what the entry asks
            (its pooling, its `max_tokens`).
    """
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

    # What they would report is checked here instead, and made an error.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    entry = f"encoders.{weights.name}"
    loaded = _load(spec, weights, entry)
    modules = apply_entry(list(loaded.children()), spec, entry)
    model = SentenceTransformer(modules=modules, device="cpu").eval()
    transformer = modules[0]
    assert isinstance(transformer, Transformer)
    tokenizer = transformer.tokenizer
    # Only transformers knows which end of a text is cut off.
    library = tokenizer.backend_tokenizer
    library.enable_truncation(spec.max_tokens, direction=tokenizer.truncation_side)
    return LoadedModel(
        modules=model,
        tokenizer=library.to_str(),
        pad_id=tokenizer.pad_token_id or 0,
        vocabulary=len(tokenizer),
        longest=longest_input(transformer),
        special=tokenizer.num_special_tokens_to_add(),
        takes_types="token_type_ids" in tokenizer.model_input_names,
    )


def _load(spec: Encoder, weights: LocalWeights, entry: str) -> "SentenceTransformer":
    """Load the folder's decisive files, and make sure that no weight was made up."""
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModel

    remote_code = isinstance(spec.weights, HubWeights) and spec.weights.remote_code
    with view_decisive(weights.folder) as view, reported(view, weights.folder, entry):
        loaded = SentenceTransformer(
            str(view),
            device="cpu",
            trust_remote_code=remote_code,
            local_files_only=True,
            # Some checkpoints are stored in float16, which transformers would compute in.
            model_kwargs={"dtype": torch.float32},
        )
        # A second reading, since only this one says which weights the file lacks: transformers
        # fills them at random.
        _, report = AutoModel.from_pretrained(
            transformer_folder(view),
            output_loading_info=True,
            trust_remote_code=remote_code,
            local_files_only=True,
        )
        needed = set(loaded[0].state_dict())
    # Nothing guards a user's folder between its hash and now.
    if isinstance(spec.weights, FolderWeights) and folder_sha256(weights.folder) != weights.sha256:
        raise PipelineError(
            f"{entry}.weights: {weights.folder} changed while it was read. Run the stage again "
            "once nothing writes there."
        )
    lacking = sorted(
        key
        for key in report["missing_keys"]
        if any(name.endswith(key) for name in needed) and not key.startswith("pooler.")
    )
    if lacking:
        raise PipelineError(
            f"{entry}.weights: {weights.folder} lacks {len(lacking)} of the model's weights, such "
            f"as {lacking[0]}. Copy the model again from where it came from."
        )
    return loaded


@contextlib.contextmanager
def reported(view: Path, folder: Path, entry: str) -> Iterator[None]:
    """Turn what the libraries raise over a folder's content into one message.

    Args:
        view: the folder that they read.
        folder: the folder that the message names instead.
        entry: the entry's key in params.yaml.
    """
    try:
        yield
    except (PipelineError, MemoryError):
        raise
    except Exception as err:  # damaged files make them raise nearly anything
        cause = (one_line(err) or repr(err)).replace(str(view), str(folder))[:_LONGEST_CAUSE]
        raise PipelineError(
            f"{entry}.weights: {folder} cannot be loaded: {cause.rstrip('.')}. Use a whole copy of "
            "the model, or another model."
        ) from err
