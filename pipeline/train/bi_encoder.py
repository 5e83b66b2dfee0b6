"""An encoder as a learner, and the folder that keeps it."""

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.params import Encoder, HubWeights
from pipeline.encoders.encoder import Role, prefix_of
from pipeline.encoders.model import load_model
from pipeline.encoders.model_folder import PICKLED, SAFE, decisive_files, transformer_folder
from pipeline.encoders.model_settings import read_settings
from pipeline.encoders.padding import may_pad
from pipeline.encoders.prompts import CONFIG
from pipeline.encoders.tokens import Tokenizer
from pipeline.encoders.weights import LocalWeights
from pipeline.train.learner import Learner, Read

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

_NOT_COPIED = ("modules.json", CONFIG, SAFE[1], PICKLED[1])


def refuse_unfit(spec: Encoder, base: str, where: str) -> None:
    """Check that an encoder can be trained and saved.

    Args:
        spec: its entry.
        base: its name.
        where: the key of the training in params.yaml, for messages.

    Raises:
        PipelineError: it runs code of its own, or its similarity is not the cosine.
    """
    refuse_own_code(spec, base, where)
    if not spec.normalize and spec.similarity != "cosine":
        raise PipelineError(
            f"{where}.base: {base} has similarity {spec.similarity} of vectors that are not "
            "normalised, and the losses and mined products are of the cosine. Use a base that "
            "normalises."
        )


def refuse_own_code(spec: Encoder, base: str, where: str) -> None:
    """Check that an encoder runs no code of its own; takes what `refuse_unfit` does.

    Raises:
        PipelineError: it does.
    """
    if isinstance(spec.weights, HubWeights) and spec.weights.remote_code:
        raise PipelineError(
            f"{where}.base: {base} runs code of its own (remote_code), which a trained folder "
            "cannot carry. Use another base."
        )


class BiEncoder:
    """An encoder to train; an item of its learner is a text."""

    def __init__(self, spec: Encoder, weights: LocalWeights, max_tokens: int) -> None:
        """Load the base, in float32.

        Args:
            spec: its entry.
            weights: its weights.
            max_tokens: texts are cut there while it learns.

        Raises:
            PipelineError: as `load_model`.
        """
        import torch

        self._spec = spec
        self._weights = weights
        cut = spec.model_copy(update={"max_tokens": max_tokens, "precision": "float32"})
        self._max_tokens = max_tokens
        self._pads = may_pad(cut, weights)
        torch.manual_seed(0)  # a pooler that the base lacks is drawn: it decides bytes, no vector
        self._model = load_model(cut, weights)

    @property
    def dimension(self) -> int:
        """How many components a vector has."""
        return int(self._model.modules.get_embedding_dimension())

    def read(self, texts: Sequence[str], role: Role) -> list[Read]:
        """Return queries or products as items of a learner, each with its prefix."""
        tokenizer = Tokenizer(
            self._model.tokenizer,
            prefix_of(self._spec, role),
            self._max_tokens,
            self._weights.entry,
        )
        return [
            Read(tokens.ids, np.zeros_like(tokens.ids), tokens.prompt)
            for tokens in tokenizer(texts)
        ]

    def learner(self, items: Sequence[Read], device: str) -> Learner:
        """Return the learner of these items."""
        module, pad = self._model.modules, self._model.pad_id
        return Learner(module, self._compute, items, pad, pads=self._pads, device=device)

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder, as sentence-transformers has it.

        Settings and tokenizer are copies of the base's; pooling, closing normalisation, maximum of
        tokens and prompts are those of the entry.
        """
        from sentence_transformers.sentence_transformer.modules import Normalize

        modules = list(self._model.modules.children())
        if self._spec.normalize:
            modules.append(Normalize())
        paths = [f"{at}_{type(module).__name__}" for at, module in enumerate(modules)]
        paths[0] = ""
        copy_settings(self._weights.folder, folder)
        save_transformer(modules[0].auto_model, folder)
        for module, path in zip(modules[1:], paths[1:], strict=True):
            (folder / path).mkdir()
            module.save(str(folder / path))
        write_json(folder / "modules.json", [
            {"idx": at, "name": str(at), "path": path,
             "type": f"sentence_transformers.models.{type(module).__name__}"}
            for at, (path, module) in enumerate(zip(paths, modules, strict=True))
        ])  # fmt: skip
        self._write_contract(folder)

    def _compute(
        self, ids: "torch.Tensor", mask: "torch.Tensor", types: "torch.Tensor", prompt: int
    ) -> "torch.Tensor":
        features = self._model.features(ids, mask, prompt)
        vectors: torch.Tensor = self._model.modules(features)["sentence_embedding"]
        return vectors

    def _write_contract(self, folder: Path) -> None:
        """Write what makes plain sentence-transformers encode as the entry does."""
        spec = self._spec
        path = folder / "sentence_bert_config.json"
        settings = read_settings(path) if path.is_file() else {}
        write_json(path, settings | {"max_seq_length": spec.max_tokens})
        write_json(folder / CONFIG, {
            "prompts": {"query": spec.query_prefix, "document": spec.passage_prefix},
            "similarity_fn_name": {"l2": "euclidean"}.get(spec.similarity, spec.similarity),
        })  # fmt: skip


def copy_settings(base: Path, target: Path) -> None:
    """Copy the settings and the tokenizer of a base's transformer, without weights, into `target`.

    Args:
        base: the folder of an encoder.
        target: an existing folder.
    """
    inside = transformer_folder(base).relative_to(base)
    for name, file in decisive_files(base).items():
        path = PurePosixPath(name)
        # At the top, the folders of other modules are beside it.
        own = path.is_relative_to(inside) if inside.name else len(path.parts) == 1
        if own and path.suffix in (".json", ".txt", ".model") and path.name not in _NOT_COPIED:
            copy = target / path.relative_to(inside)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def save_transformer(model: "PreTrainedModel", folder: Path) -> None:
    """Write a transformer's weights, and nothing else, into an existing folder."""
    # transformers knows which weights are tied, and their names in a file.
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        model.save_pretrained(scratch, max_shard_size="1000GB")
        (Path(scratch) / SAFE[0]).replace(folder / SAFE[0])
