"""A map of the products in two dimensions: near products are similar."""

import numpy as np
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from pipeline.clusters.directions import Directions
from pipeline.clusters.form import LANDMARKS
from pipeline.core.arrays import Ints, Matrix, blocks, sampled_rows
from pipeline.core.parallel import in_parallel

NEIGHBOURS = 5
PERPLEXITY = 30.0
DECIMALS = 4

_BLOCK_ROWS = 4_096


def draw_map(vectors: Directions, seed: int, threads: int) -> tuple[Matrix, Ints]:
    """Place all products on a map that is about 1 wide and 1 high, from 0 to 1.

    A seeded sample, the landmarks, is placed by t-SNE (van der Maaten, Hinton, JMLR 2008; Barnes
    and Hut's approximation, on one thread, so that its sums are always in one order). Every other
    product is placed at the weighted mean of its nearest landmarks, as openTSNE places new points
    (Poličar, Stražar, Zupan 2019), so a million products cost one pass.

    Args:
        vectors: the products'.
        seed: decides the landmarks and where t-SNE starts.
        threads: how many may be used; they change nothing in the result.

    Returns:
        The places, float32 [products, 2]; the rows of the landmarks, ascending, int64.
    """
    chosen = sampled_rows(vectors.rows, LANDMARKS, seed)
    landmarks = vectors.take(chosen)
    with threadpool_limits(1):
        places = _into_unit_square(_place_landmarks(landmarks, seed))

        def place(rows: range) -> Matrix:
            return place_among(vectors.take(np.asarray(rows)), landmarks, places)

        pieces = blocks(range(vectors.rows), _BLOCK_ROWS)
        drawn = np.concatenate(list(in_parallel(place, pieces, threads)))
    drawn[chosen] = places
    return drawn.round(DECIMALS), chosen


def place_among(block: Matrix, landmarks: Matrix, places: Matrix) -> Matrix:
    """Return the weighted mean of the places of each vector's nearest landmarks, [rows, 2].

    A weight is how much larger the cosine is than that of the first landmark that does not count:
    it has no scale to set, which differs between encoders.
    """
    most = min(NEIGHBOURS + 1, len(landmarks))
    cosines = block @ landmarks.T
    found = np.argpartition(-cosines, most - 1, axis=1)[:, :most]
    order = np.lexsort((found, -np.take_along_axis(cosines, found, axis=1)))
    found = np.take_along_axis(found, order, axis=1)
    sorted_cosines = np.take_along_axis(cosines, found, axis=1)
    weights = sorted_cosines[:, : max(1, most - 1)] - sorted_cosines[:, -1:]
    weights[weights.sum(axis=1) <= 0] = 1
    weights /= weights.sum(axis=1, keepdims=True)
    near = places[found[:, : weights.shape[1]]]
    return np.asarray((weights[:, :, np.newaxis] * near).sum(axis=1), dtype=np.float32)


def _place_landmarks(landmarks: Matrix, seed: int) -> Matrix:
    """Return where t-SNE places the landmarks; on a circle where fewer than four differ."""
    distinct, which = np.unique(landmarks, axis=0, return_inverse=True)
    if len(distinct) < 4:
        angles = 2 * np.pi * np.arange(len(distinct)) / max(1, len(distinct))
        return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)[which.ravel()]
    perplexity = min(PERPLEXITY, (len(landmarks) - 1) / 3)
    tsne = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return np.asarray(tsne.fit_transform(landmarks), dtype=np.float32)


def _into_unit_square(places: Matrix) -> Matrix:
    """Return places moved and scaled, both axes alike, to the middle of the unit square."""
    low, high = places.min(axis=0), places.max(axis=0)
    width = float((high - low).max()) or 1.0
    return np.asarray((places - (low + high) / 2) / width + 0.5, dtype=np.float32)
