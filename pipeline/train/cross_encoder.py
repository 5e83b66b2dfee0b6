"""A reranker as a learner: a query and a product together in, a label's chances out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipeline.core.errors import PipelineError
from pipeline.core.files import write_json
from pipeline.core.params import Encoder
from pipeline.core.tables import LABELS
from pipeline.encoders.cross_encoder import takes_types
from pipeline.encoders.model import built_in_form, load_model, reported
from pipeline.encoders.model_folder import transformer_folder, view_decisive
from pipeline.encoders.obey_entry import check_max_tokens, check_token_ids, longest_input
from pipeline.encoders.padding import may_pad
from pipeline.encoders.weights import LocalWeights
from pipeline.train.bi_encoder import copy_settings, save_transformer
from pipeline.train.learner import Learner, Read
from pipeline.train.pairs import Pairs

if TYPE_CHECKING:
    import torch


class CrossEncoder:
    """A transformer with a random head of one output a label; a pair is an item of its learner.

    The score of a pair is the sum over labels of softmax(logits) times the label's gain.
    """

    def __init__(
        self, spec: Encoder, weights: LocalWeights, max_tokens: int, seed: int, where: str
    ) -> None:
        """Load the base, in float32, and draw the head.

        Args:
            spec: the entry of the encoder to start from.
            weights: its weights.
            max_tokens: pairs are cut there, the longer text of the two first.
            seed: decides the head.
            where: the entry's key in params.yaml, for messages.

        Raises:
            PipelineError: the base cannot be loaded, its architecture has no such head, or it
                cannot read `max_tokens`.
        """
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        # What the encoder reads at most is its contract; a pair has the model's own limit.
        shorter = min(max_tokens, spec.max_tokens)
        cut = spec.model_copy(update={"max_tokens": shorter, "precision": "float32"})
        self._pads = may_pad(cut, weights)
        load_model(cut, weights)  # refuses damaged weights
        if built_in_form(weights):
            raise PipelineError(
                f"{weights.entry}: a JinaBERT has no reranker's head here. Use another base."
            )
        self._weights = weights
        self._max_tokens = max_tokens
        torch.manual_seed(seed)
        with view_decisive(weights.folder) as view, reported(view, weights.folder, weights.entry):
            folder = transformer_folder(view)
            self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            self._model = AutoModelForSequenceClassification.from_pretrained(
                folder,
                num_labels=len(LABELS),
                id2label=dict(enumerate(LABELS)),
                label2id={label: at for at, label in enumerate(LABELS)},
                dtype=torch.float32,
                local_files_only=True,
            )
        check_token_ids(self._model, self._tokenizer, weights.entry)
        special = self._tokenizer.num_special_tokens_to_add(pair=True)
        check_max_tokens(max_tokens, longest_input(self._model), special, where)
        self._takes_types = takes_types(self._model, self._tokenizer)

    def read(self, pairs: Pairs) -> list[Read]:
        """Return pairs as items of a learner."""
        encoded = self._tokenizer(
            [pairs.queries[at] for at in pairs.query.tolist()],
            [pairs.texts[at] for at in pairs.text.tolist()],
            truncation="longest_first",
            max_length=self._max_tokens,
            return_attention_mask=False,
        )
        ids = [np.array(row, np.int32) for row in encoded["input_ids"]]
        types = encoded.get("token_type_ids") or [np.zeros_like(row) for row in ids]
        return [Read(row, np.array(of, np.int32)) for row, of in zip(ids, types, strict=True)]

    def learner(self, items: Sequence[Read], device: str) -> Learner:
        """Return the learner of these items."""
        pad = self._tokenizer.pad_token_id or 0
        return Learner(self._model, self._compute, items, pad, pads=self._pads, device=device)

    def save(self, folder: Path) -> None:
        """Write the model into an existing folder, as transformers has a classifier."""
        copy_settings(self._weights.folder, folder)
        (folder / "sentence_bert_config.json").unlink(missing_ok=True)  # an encoder's
        settings = self._model.config.to_dict()
        for key in ("transformers_version", "_name_or_path"):
            settings.pop(key, None)
        settings["architectures"] = [type(self._model).__name__]
        write_json(folder / "config.json", settings)
        save_transformer(self._model, folder)

    def _compute(
        self, ids: "torch.Tensor", mask: "torch.Tensor", types: "torch.Tensor", prompt: int
    ) -> "torch.Tensor":
        inputs = {"input_ids": ids, "attention_mask": mask}
        if self._takes_types:
            inputs["token_type_ids"] = types
        logits: torch.Tensor = self._model(**inputs).logits
        return logits
