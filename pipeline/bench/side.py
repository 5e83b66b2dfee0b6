"""One side of the encoding benchmark, alone in its process.

    python -m pipeline.bench.side ENCODER ENGINE DEVICE PRECISION

So no side's threads or settings touch another's, and its memory is its own. Requests come on stdin,
one a line, and are answered on stdout, as JSON: `{"role", "texts", "file"}` encodes, writes the
vectors to the file (.npy) and gives `{"seconds", "peak_bytes"}`; `{"role", "texts"}` alone gives
`{"tokens"}`, as many as the side reads of the texts.
"""

import json
import re
import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Literal

from pipeline import stage
from pipeline.encoders.engine import Device, EngineName
from pipeline.encoders.weights import LocalWeights, resolve_weights
from pipeline.files import write_npy
from pipeline.params import Encoder, Params, Precision, Runtime, load_params
from pipeline.vectors import Matrix

Role = Literal["query", "passage"]
Encode = Callable[[Sequence[str], Role], Matrix]
Count = Callable[[Sequence[str], Role], int]

BASELINE = "sentence-transformers"


@dataclass(frozen=True)
class Side:
    """What encodes: `BASELINE` with its defaults, or an engine of ours, on all cores."""

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


def baseline(spec: Encoder, weights: LocalWeights, device: Device) -> tuple[Encode, Count]:
    """Load a model as sentence-transformers does; return what encodes texts and counts tokens."""
    import torch
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        str(weights.folder),
        device=device,
        local_files_only=True,
        trust_remote_code=getattr(spec.weights, "remote_code", False),
        truncate_dim=None if spec.dimension == "model" else spec.dimension,
        model_kwargs={"dtype": torch.float32},
    )
    model.max_seq_length = spec.max_tokens

    def prefixed(texts: Sequence[str], role: Role) -> list[str]:
        prefix = spec.query_prefix if role == "query" else spec.passage_prefix
        return [prefix + text for text in texts]

    def encode(texts: Sequence[str], role: Role) -> Matrix:
        # The prefix is there already: an empty prompt keeps the model's own default prompt out.
        vectors: Matrix = model.encode(prefixed(texts, role), prompt="")
        return vectors

    def count(texts: Sequence[str], role: Role) -> int:
        return int(model.preprocess(prefixed(texts, role))["attention_mask"].sum())

    return encode, count


def engine(spec: Encoder, weights: LocalWeights, runtime: Runtime) -> tuple[Encode, Count]:
    """Load an encoder onto an engine of ours; returns as `baseline` does."""
    from pipeline.encoders.encoder import load_encoder

    encoder = load_encoder(spec, weights, runtime)

    def encode(texts: Sequence[str], role: Role) -> Matrix:
        ours = encoder.encode_queries if role == "query" else encoder.encode_passages
        return ours(texts)

    def count(texts: Sequence[str], role: Role) -> int:
        return sum(len(tokens.ids) for tokens in encoder.tokenizer(role)(texts))

    return encode, count


def peak_bytes() -> int:
    """Return the largest resident memory that this process has had."""
    status = Path("/proc/self/status")
    # Linux's ru_maxrss begins at that of the process which started this one.
    if status.exists() and (peak := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve(params: Params, name: str, side: Side) -> None:
    """Load an encoder and answer requests until there are no more."""
    # Whatever a library prints is no answer.
    answers, sys.stdout = sys.stdout, sys.stderr
    spec, weights = side.spec(params, name), resolve_weights(params.encoders[name], name)
    if side.engine == BASELINE:
        encode, count = baseline(spec, weights, side.device)
    else:
        encode, count = engine(spec, weights, side.runtime(params))
    for line in sys.stdin:
        request = json.loads(line)
        texts, role = request["texts"], request["role"]
        if "file" in request:
            started = time.perf_counter()
            vectors = encode(texts, role)
            seconds = time.perf_counter() - started
            answer = {"seconds": seconds, "peak_bytes": peak_bytes()}
            write_npy(Path(request["file"]), vectors)
        else:
            answer = {"tokens": count(texts, role)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> int:
    """Serve what the arguments name; return the exit status."""
    name, *asked = sys.argv[1:]
    with stage.told_to_the_user(f"bench of {' '.join([name, *asked])}") as outcome:
        serve(load_params(), name, Side(*asked))  # type: ignore[arg-type]
    return outcome.status


if __name__ == "__main__":
    sys.exit(main())
