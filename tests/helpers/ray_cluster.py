"""A real Ray cluster of two nodes on this machine, each a raylet with one core to give."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from tests.helpers.artefacts import ROOT

NODES = 2


@contextmanager
def two_nodes() -> Iterator[Any]:
    """Start the cluster and yield it, a `Cluster`; at the end all its processes are gone."""
    with _environment():
        from ray.cluster_utils import Cluster

        cluster = Cluster(initialize_head=True, head_node_args=_node(1))
        for _ in range(NODES - 1):
            cluster.add_node(**_node(1))
    try:
        yield cluster
    finally:
        cluster.shutdown()


@contextmanager
def one_more_node(cluster: Any, cores: int) -> Iterator[Any]:
    """Add a node to the cluster and yield it; remove it at the end, if it is still there."""
    with _environment():
        node = cluster.add_node(**_node(cores))
    try:
        yield node
    finally:
        if node in cluster.worker_nodes:
            cluster.remove_node(node)


def _node(cores: int) -> dict[str, Any]:
    return {"num_cpus": cores, "include_dashboard": False}


@contextmanager
def _environment() -> Iterator[None]:
    """Let a node's processes inherit the path to this code, and not the cache of the tests."""
    kept = {key: value for key, value in os.environ.items() if key != "PIPELINE_CACHE"}
    own = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    with patch.dict(os.environ, {**kept, **own}, clear=True):
        yield
