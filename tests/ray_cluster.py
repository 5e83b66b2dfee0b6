"""A real Ray cluster of two nodes on this machine, each a raylet with one core to give."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

import psutil

from tests.artefacts import ROOT

NODES = 2


@contextmanager
def two_nodes() -> Iterator[str]:
    """Start the cluster and yield its address; at the end all its processes are gone."""
    kept = {key: value for key, value in os.environ.items() if key != "PIPELINE_CACHE"}
    own = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    with patch.dict(os.environ, {**kept, **own}, clear=True):
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=node)
        for _ in range(NODES - 1):
            cluster.add_node(**node)
    try:
        yield cluster.address
    finally:
        cluster.shutdown()


def workers(address: str) -> list[int]:
    """Return the process ids of the fleets' workers on the nodes of a cluster."""
    found = []
    for process in psutil.process_iter():
        try:
            is_worker = any(part.startswith("ray::Worker") for part in process.cmdline())
            if is_worker and any(address in part for part in process.parent().cmdline()):
                found.append(process.pid)
        except (psutil.NoSuchProcess, AttributeError):  # it ended meanwhile, or its raylet did
            continue
    return found
