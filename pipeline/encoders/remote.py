"""An encoder whose engines are on a Ray cluster: batches go out, vectors come back.

Texts are read, tokenised and put into batches here, and vectors are checked and stored here, as
without Ray; a batch has the same shape, so a text has the same vector to the last bit. A worker
need share no disk with this machine: it finds the weights as any machine does (its own cache, the
package index, the hub; for a folder, that path) and is refused if they, its CPU or its packages
differ.
"""

import os
import platform
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.cluster.connection import connected
from pipeline.cluster.fingerprint import check_fingerprint, fingerprint
from pipeline.cluster.fleet import Fleet, Work
from pipeline.core import layout
from pipeline.core.errors import PipelineError
from pipeline.core.params import Encoder, FolderWeights, Runtime
from pipeline.encoders.batching import Batch
from pipeline.encoders.dimension import check_dimension
from pipeline.encoders.encoder import TextEncoder
from pipeline.encoders.engine import EngineChoice, computed_by
from pipeline.encoders.loading import load_engine, resolve_engine
from pipeline.encoders.weights import LocalWeights, resolve_weights

PARCEL_TOKENS = 16_384
"""Tokens that go to a worker at once: enough that sending them takes a negligible share of the time
(a quarter of a megabyte; a second for a small model on a core), few enough to lose."""

Parcel = list[Batch]
Vectors = list[NDArray[np.float32]]


@dataclass(frozen=True)
class Job:
    """What a worker gets to know.

    Attributes:
        spec: the encoder's entry.
        weights: where its weights are on the machine that hands out the work, and their hash.
        runtime: the engine and device that it chose.
        kind: what its results depend on; see `fingerprint`.
        computed_by: the engine and the hardware that the store of vectors counts on: that of the
            machine that hands out the work.
        cache: its cache, used where the worker has no $PIPELINE_CACHE of its own.
    """

    spec: Encoder
    weights: LocalWeights
    runtime: Runtime
    kind: dict[str, str]
    computed_by: str
    cache: Path


@dataclass(frozen=True)
class About:
    """What a worker reports of the engine that it loaded."""

    batch_tokens: int
    tokenizer: str
    pad_id: int


def load_worker(job: Job, cores: int) -> Work[Parcel, Vectors]:
    """Load the encoder on a worker with `cores` cores, and return what computes parcels.

    Raises:
        PipelineError: the worker would compute other vectors, or cannot load the model.
    """
    os.environ.setdefault(layout.CACHE_VARIABLE, str(job.cache))
    check_fingerprint(job.kind)
    weights = resolve_weights(job.spec, job.weights.name)
    if weights.sha256 != job.weights.sha256:
        raise PipelineError(
            f"{weights.entry}.weights: a worker of the Ray cluster found {weights.folder} "
            f"with the hash {weights.sha256}, expected {job.weights.sha256}. Bring the same files "
            "to every node, or pin their sha256."
        )
    choice = resolve_engine(job.spec, weights, job.runtime)
    found = computed_by(choice, job.spec.precision)
    if job.computed_by != found:
        raise PipelineError(
            f"a worker of the Ray cluster, on {platform.node()}, would compute other bits: with "
            f"{found}, expected {job.computed_by}. Use workers with the GPU of the machine that "
            "hands out the work, or run the stage on one with theirs."
        )
    loaded = load_engine(choice, job.spec, weights, cores)
    engine = loaded.engine
    # For the worker's life: parcels overlap, and no core waits for the last batch of one.
    pool = ThreadPoolExecutor(engine.threads)

    def compute(parcel: Parcel) -> Vectors:
        return list(pool.map(engine, parcel))

    return Work(compute, About(engine.batch_tokens, loaded.tokenizer, loaded.pad_id))


class OnCluster:
    """Computes batches on a fleet; see `Computer`."""

    def __init__(self, fleet: Fleet[Parcel, Vectors], batch_tokens: int) -> None:
        """Take a fleet whose workers like `batch_tokens` tokens in a batch."""
        self._fleet = fleet
        self.batch_tokens = batch_tokens

    def compute(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, NDArray[np.float32]]]:
        """Compute the batches, in the order in which they are done."""
        out: dict[int, Parcel] = {}

        def parcels() -> Iterator[Parcel]:
            for number, parcel in enumerate(_parcels(batches)):
                out[number] = parcel
                yield parcel

        for number, vectors in self._fleet.map(parcels()):
            yield from zip(out.pop(number), vectors, strict=True)


class RemoteEncoder:
    """A `TextEncoder` on the cluster of `runtime`; a context, at whose end the workers are gone."""

    def __init__(
        self, choice: EngineChoice, spec: Encoder, weights: LocalWeights, runtime: Runtime
    ) -> None:
        """Say what to load; nothing is started yet.

        Args:
            choice: what `resolve_engine` returned; it is the workers' engine too.
            spec: the entry.
            weights: what `resolve_weights` returned for it.
            runtime: the cluster and the workers' threads.
        """
        self._choice, self._spec, self._weights = choice, spec, weights
        self._runtime = runtime
        self._open = ExitStack()

    def __enter__(self) -> TextEncoder:
        """Connect, start the workers, wait for the first.

        Raises:
            PipelineError: as `connected`, `Fleet` and `load_worker`.
        """
        if self._choice.device == "mps":
            raise PipelineError(
                "runtime.executor: ray, but runtime.device auto is mps on this machine, which Ray "
                "does not share out. Set device to cpu or cuda, or executor to local."
            )
        with ExitStack() as stack:
            ray = stack.enter_context(connected(self._runtime))
            gpu = self._choice.device == "cuda"
            fleet: Fleet[Parcel, Vectors] = stack.enter_context(
                Fleet(ray, self._runtime, partial(load_worker, self._job()), gpu=gpu)
            )
            about = fleet.about()
            computer = OnCluster(fleet, about.batch_tokens)
            encoder = TextEncoder(
                computer,
                about.tokenizer,
                about.pad_id,
                self._spec,
                self._weights,
                pads=self._choice.pads,
            )
            check_dimension(self._spec, self._weights, encoder.dimension)
            self._open = stack.pop_all()
        return encoder

    def __exit__(self, *raised: Any) -> None:
        self._open.__exit__(*raised)

    def _job(self) -> Job:
        spec, chosen = self._spec, self._choice
        if isinstance(spec.weights, FolderWeights):
            path = str(self._weights.folder.absolute())
            spec = spec.model_copy(
                update={"weights": spec.weights.model_copy(update={"path": path})}
            )
        # No worker chooses for itself: a GPU of its own would give other bits.
        runtime = self._runtime.model_copy(update={"engine": chosen.name, "device": chosen.device})
        kind_here = fingerprint(_PACKAGES, on_cpu=chosen.device == "cpu")
        cache = layout.cache().absolute()
        hardware = computed_by(chosen, spec.precision)
        return Job(spec, self._weights, runtime, kind_here, hardware, cache)


_PACKAGES = ("numpy", "openvino", "nncf", "torch", "transformers", "sentence-transformers")


def _parcels(batches: Iterable[Batch]) -> Iterator[Parcel]:
    parcel: Parcel = []
    tokens = 0
    for batch in batches:
        parcel.append(batch)
        tokens += batch.ids.size
        if tokens >= PARCEL_TOKENS:
            yield parcel
            parcel, tokens = [], 0
    if parcel:
        yield parcel
