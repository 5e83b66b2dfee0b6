"""What a step minimises, over the vectors or logits of its items.

All losses of encoders are of the cosine, so vectors need not be normalised here.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pipeline.core.trained import TrainedEncoder
from pipeline.train.examples import Step

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", Step], "Tensor"]
"""Takes the outputs of a step's items, float32, shape [items, width]; returns one number."""


def loss_of(settings: TrainedEncoder) -> Loss:
    """Return the loss that an entry asks for.

    - mnrl, the multiple negatives ranking loss (InfoNCE, van den Oord et al. 2018): the cross
      entropy of each query's product among all products of the step, by `scale` * cosine. Without
      a query that has two products in the step, it is sentence-transformers'
      MultipleNegativesRankingLoss. There, the other products that are known to be right for a
      query do not count for it; here they are left out.
    - cosine: the squared difference between cosine and the label's target.
    - contrastive (Hadsell et al. 2006), online-contrastive (of the hard pairs of a step alone) and
      triplet, in cosine distance, 1 - cosine, with `margin`.
    - distill-kl-div (Lin et al. 2020): the Kullback-Leibler divergence of the student's chances
      from the teacher's, of a query's right and wrong product. The student's are the softmax of
      `scale` * cosine, and the teacher's that of its log-odds. Where both are sure of the same
      product, nothing pulls any more: so cosines need not be as far apart as log-odds.

    With `matryoshka` (Kusupati et al. 2022) it is the sum over those leading dimensions.
    """
    loss = _of_vectors(settings)
    dimensions = settings.matryoshka
    if not dimensions:
        return loss
    return lambda vectors, step: sum(loss(vectors[:, :width], step) for width in dimensions)


_SCALE = 20.0
_MARGINS = {"contrastive": 0.5, "online-contrastive": 0.5, "triplet": 0.2}
"""What sentence-transformers has, but for triplet: its 5 is more than any two vectors differ."""


def _of_vectors(settings: TrainedEncoder) -> Loss:
    from sentence_transformers.sentence_transformer import losses
    from sentence_transformers.util import pairwise_cos_sim

    scale = settings.scale or _SCALE
    margin = settings.margin or _MARGINS.get(settings.loss)
    match settings.loss:
        case "mnrl":
            return lambda vectors, step: ranking_loss(vectors, step, scale)
        case "cosine":
            library = losses.CosineSimilarityLoss(None)
        case "contrastive":
            library = losses.ContrastiveLoss(None, margin=margin)
        case "online-contrastive":
            library = losses.OnlineContrastiveLoss(None, margin=margin)
        case "triplet":
            distance = losses.TripletDistanceMetric.COSINE
            library = losses.TripletLoss(None, distance, triplet_margin=margin)
        case "distill-kl-div":
            library = losses.DistillKLDivLoss(None, lambda a, b: scale * pairwise_cos_sim(a, b))
    return lambda vectors, step: _by_library(library, vectors, step)


def ranking_loss(vectors: "Tensor", step: Step, scale: float) -> "Tensor":
    """Return the mean over rows of log(sum over products of exp(s)) - s of the row's own product.

    s is `scale` * cosine; the sum is over the products that `step.counts` marks.
    """
    import torch
    from torch.nn.functional import cross_entropy, normalize

    units = normalize(vectors)
    queries, products = (units[torch.from_numpy(column)] for column in step.columns)
    target = torch.from_numpy(step.target).to(vectors.device)
    counts = torch.from_numpy(step.counts).to(vectors.device)
    scores = (scale * queries @ products.T).masked_fill(~counts, -torch.inf)
    return cross_entropy(scores, target)


def label_loss(logits: "Tensor", step: Step) -> "Tensor":
    """Return the cross entropy of a reranker's labels; logits, float32, shape [pairs, labels]."""
    import torch
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, torch.from_numpy(step.target).to(logits.device))


def _by_library(library: Any, vectors: "Tensor", step: Step) -> "Tensor":
    import torch

    columns = [vectors[torch.from_numpy(column)] for column in step.columns]
    target = torch.from_numpy(step.target).to(vectors.device)
    loss: Tensor = library.compute_loss_from_embeddings(columns, target)
    return loss
