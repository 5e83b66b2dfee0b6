"""Ray: a connection to a cluster, and how many workers its nodes have room for."""

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

ANSWER_SECONDS = 10
"""How long to wait until something answers at the cluster's address."""


@contextmanager
def connected(runtime: Runtime) -> Iterator[Any]:
    """Connect to the cluster of `runtime.ray_address`, and yield the module ray.

    Without an address, start a cluster of this machine alone, without a dashboard, and end it with
    the block. Ray listens on all of the machine's addresses; a token that only this process and
    its children have keeps others out. No usage statistics are sent.

    Raises:
        PipelineError: Ray is not installed or cannot start; the cluster cannot be reached, has
            another token, or runs another version of Ray or Python.
    """
    ray = _import_ray(runtime)
    address = runtime.ray_address
    own = {"num_cpus": core_count(), "include_dashboard": False}
    try:
        _check_listening(address)
        ray.init(
            address=address or "local",
            logging_level=logging.ERROR,
            log_to_driver=False,
            **({} if address else own),
        )
    except (OSError, RuntimeError, ValueError, ImportError, ray.exceptions.RayError) as err:
        if address is None:
            raise PipelineError(
                f"runtime.executor: ray, but Ray cannot start on this machine ({one_line(err)}). "
                "Correct the cause, or set executor to local."
            ) from err
        raise PipelineError(
            f"runtime.ray_address: {address}: no Ray cluster that fits this machine can be reached "
            f"there ({one_line(err)}). Start one with `ray start`, with the same versions of Ray "
            "and Python and the same token (RAY_AUTH_MODE=token, RAY_AUTH_TOKEN), or leave the "
            "address empty."
        ) from err
    try:
        yield ray
    finally:
        ray.shutdown()


def _import_ray(runtime: Runtime) -> Any:
    # Ray reads these when it is imported. A cluster that runs already was started with its own
    # settings: `ray start --disable-usage-stats`, and perhaps a token.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if runtime.ray_address is None and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
    except ImportError as err:
        raise PipelineError(
            "runtime.executor: ray, but Ray is not installed. Run `pip install '.[ray]'`, or set "
            "executor to local."
        ) from err
    return ray


def _check_listening(address: str | None) -> None:
    """Raise an OSError if nothing listens at host:port: Ray would wait for it many minutes."""
    if address is None or address == "auto" or address.startswith("ray://"):
        return
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), ANSWER_SECONDS).close()


def places(
    nodes: Sequence[Mapping[str, Any]], runtime: Runtime, *, gpu: bool
) -> dict[str, list[float]]:
    """Return for each living node of a cluster the cores or GPUs of each worker that fits on it.

    A worker takes one GPU, or `runtime.threads` cores, or all cores of its node if that is 0: its
    threads share one model.

    Args:
        nodes: what `ray.nodes()` returned.
        runtime: says how many threads a worker has.
        gpu: whether the workers compute on GPUs.

    Returns:
        A list per node, by the node's identity, of the cores or GPUs of each worker.
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
