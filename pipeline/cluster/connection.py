"""Ray: whether it is here, a connection to a cluster, and what its nodes have to give."""

import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline.core.cpu import core_count
from pipeline.core.errors import PipelineError, one_line
from pipeline.core.params import Runtime

_PATIENCE_SECONDS = 10


@contextmanager
def connected(runtime: Runtime) -> Iterator[Any]:
    """Connect to the cluster of `runtime.ray_address`, and yield the module ray.

    Without an address a cluster of this machine alone is started, without a dashboard, and ended
    with the block. It listens on all of the machine's addresses, as Ray does, and lets in only who
    has a token that none but this process has. Nothing is sent to Ray's makers.

    Raises:
        PipelineError: Ray is not installed or cannot start; the cluster cannot be reached, has
            another token, or runs another version of Ray or Python.
    """
    # All of it is read when ray is imported. A cluster that runs already has its own: `ray start
    # --disable-usage-stats`, and a token where it was started with one.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if runtime.ray_address is None and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as err:
        raise PipelineError(
            "runtime.executor: ray, but Ray is not installed: pip install '.[ray]', or set local"
        ) from err
    address = runtime.ray_address
    own = {"num_cpus": core_count(), "include_dashboard": False}
    try:
        _look(address)
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if address else own),
        )
    except (
        OSError,
        OverflowError,
        RuntimeError,
        ValueError,
        ImportError,
        ray.exceptions.RayError,
    ) as err:
        if address is None:
            raise PipelineError(
                f"runtime.executor: ray, but Ray cannot start on this machine ({one_line(err)}); "
                "mend that, or set executor to local"
            ) from err
        raise PipelineError(
            f"runtime.ray_address: {address}: no Ray cluster can be reached there that fits this "
            f"machine ({one_line(err)}); start one with `ray start`, with the same versions of Ray "
            "and Python and the same token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or leave the "
            "address empty"
        ) from err
    try:
        yield ray
    finally:
        ray.shutdown()


def _look(address: str | None) -> None:
    """Raise an OSError where nothing listens at host:port, for which Ray waits many minutes."""
    if address is None or address == "auto" or address.startswith("ray://"):
        return
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), _PATIENCE_SECONDS).close()


def places(
    nodes: Sequence[Mapping[str, Any]], runtime: Runtime, *, gpu: bool
) -> dict[str, list[float]]:
    """Return for each living node of a cluster the cores or GPUs of each worker that it can hold.

    A worker takes one GPU, or `runtime.threads` cores, or for 0 all cores of its node: its threads
    share one model.

    Args:
        nodes: what `ray.nodes()` returned.
        runtime: says how many threads a worker has.
        gpu: whether the workers compute on GPUs.
    """
    found: dict[str, list[float]] = {}
    for node in nodes:
        if not node["Alive"]:
            continue
        cores = math.floor(node["Resources"].get("CPU", 0))
        if gpu:
            workers = [1.0] * math.floor(node["Resources"].get("GPU", 0))
        elif runtime.threads:
            workers = [float(runtime.threads)] * (cores // runtime.threads)
        else:
            workers = [float(cores)] if cores else []
        if workers:
            found[node["NodeID"]] = workers
    return found
