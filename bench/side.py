"""One side of the encoding benchmark, alone in its process.

    python -m bench.side ENCODER ENGINE DEVICE PRECISION

So no side's threads or settings touch another's, and its memory is its own. Requests come on stdin
and are answered on stdout, as JSON, one per line: `{"role", "texts", "file"}` has texts encoded and
their vectors written to a file (.npy), and is answered by `{"seconds", "peak_bytes"}`.
"""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pipeline.core import stage
from pipeline.core.arrays import Matrix, write_npy
from pipeline.core.params import Encoder, Params, Runtime
from pipeline.core.params_file import load_params
from pipeline.core.timings import peak_bytes
from pipeline.core.trained import Precision
from pipeline.encoders.engine import Device, EngineName
from pipeline.encoders.weights import resolve_weights

if TYPE_CHECKING:
    from pipeline.encoders.encoder import Role

Encode = Callable[[list[str], "Role"], Matrix]

BASELINE: Final = "sentence-transformers"


@dataclass(frozen=True)
class Side:
    """What encodes: sentence-transformers with its defaults, or an engine of ours, on all cores."""

    engine: Literal[EngineName, "sentence-transformers"]
    device: Device
    precision: Precision = "float32"

    def __str__(self) -> str:
        return " ".join(astuple(self))

    def spec(self, params: Params, name: str) -> Encoder:
        """Return an encoder's entry in this side's precision."""
        return params.encoders[name].model_copy(update={"precision": self.precision})

    def runtime(self, params: Params) -> Runtime:
        """Return the runtime that asks for this side's engine."""
        asked = {"engine": self.engine, "device": self.device, "threads": 0}
        return params.runtime.model_copy(update=asked)


def load(params: Params, name: str, side: Side) -> Encode:
    """Load an encoder as a side does; return what encodes texts."""
    spec, weights = side.spec(params, name), resolve_weights(params.encoders[name], name)
    if side.engine != BASELINE:
        from pipeline.encoders.loading import load_encoder

        ours = load_encoder(spec, weights, side.runtime(params))
        by_role = {"query": ours.encode_queries, "passage": ours.encode_passages}
        return lambda texts, role: by_role[role](texts)
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    model = SentenceTransformer(
        str(weights.folder),
        device=side.device,
        local_files_only=True,
        trust_remote_code=getattr(spec.weights, "remote_code", False),
        truncate_dim=None if spec.dimension == "model" else spec.dimension,
        model_kwargs={"dtype": torch.float32},
    )
    model.max_seq_length = spec.max_tokens
    prefixes = {"query": spec.query_prefix, "passage": spec.passage_prefix}

    def encode(texts: list[str], role: "Role") -> Matrix:
        # An empty prompt, lest a default one of the model's own comes before the prefix.
        vectors: Matrix = model.encode([prefixes[role] + text for text in texts], prompt="")
        return vectors

    return encode


def main() -> int:
    """Answer requests until there are no more; return the exit status."""
    name, *asked = sys.argv[1:]
    # What a library prints must not get among the answers.
    answers, sys.stdout = sys.stdout, sys.stderr
    with stage.report_errors(f"bench ({' '.join(sys.argv[1:])})") as outcome:
        encode = load(load_params(), name, Side(*asked))  # type: ignore[arg-type]
        for line in sys.stdin:
            request = json.loads(line)
            started = time.perf_counter()
            vectors = encode(request["texts"], request["role"])
            seconds = time.perf_counter() - started
            write_npy(Path(request["file"]), vectors)
            answers.write(json.dumps({"seconds": seconds, "peak_bytes": peak_bytes()}) + "\n")
            answers.flush()
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
