"""Inverted files filled on a cluster: the bytes of the local build, whatever the shards."""

from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

from pipeline.core import layout
from pipeline.core.faiss import faiss
from pipeline.core.params import IvfFlatIndex
from pipeline.index import codes as index_codes
from pipeline.index import stage as stage_index
from pipeline.index.build import build_index
from pipeline.index.codes import ADDED_ROWS, add_on_cluster
from pipeline.vectors.shards import PIECE_ROWS
from tests.helpers.artefacts import LOCALE, params, random_vectors, write_clean, write_embeddings
from tests.helpers.tiny_models import runtime

pytestmark = pytest.mark.slow


def test_an_inverted_file_filled_on_a_cluster_has_the_bytes_of_the_local_one(cluster: str) -> None:
    index = IvfFlatIndex(kind="ivf-flat", lists=20, probes=4)
    rng = np.random.default_rng(3)
    assert PIECE_ROWS % ADDED_ROWS == 0  # or the bytes would depend on where pieces end
    shards = [random_vectors(rng, rows, 32) for rows in (ADDED_ROWS + 17, 900, 3 * ADDED_ROWS, 1)]
    ray = runtime().model_copy(update={"executor": "ray", "ray_address": cluster})
    add = partial(add_on_cluster, ray)
    local = build_index(index, 32, "l2", [np.concatenate(shards)])
    remote = build_index(index, 32, "l2", shards, add=add)
    np.testing.assert_array_equal(faiss.serialize_index(remote), faiss.serialize_index(local))


def test_the_stage_fills_an_inverted_file_where_its_executor_says_and_with_the_same_bytes(
    cluster: str, project: Path
) -> None:
    rng = np.random.default_rng(4)
    changes = {
        f"index.{LOCALE}": "few",
        "indexes.few": {"kind": "ivf-pq", "lists": 20, "probes": 4, "subvectors": 8, "bits": 5},
    }
    write_clean(rng, ADDED_ROWS + 100, 5)
    products = random_vectors(rng, ADDED_ROWS + 100, 32)
    write_embeddings(params(changes), products, random_vectors(rng, 5, 32))
    written = []
    for executor, address in (("local", None), ("ray", cluster)):
        given = params(changes | {"runtime.executor": executor, "runtime.ray_address": address})
        with patch.object(index_codes, "add_on_cluster", wraps=add_on_cluster) as added:
            stage_index.index(given, LOCALE)
        assert added.called == (executor == "ray")
        files = sorted(layout.index(LOCALE).folder.iterdir())
        written.append({path.name: path.read_bytes() for path in files})
    assert written[0] == written[1]
