"""Whether generated images resemble real ones and cover all of them: the check for mode collapse.

Notation: X is the set of N real and Y that of M generated feature vectors, (N, d) and (M, d); r_k(a; S) the distance
from a to its k-th nearest neighbour in its set S; B(a; S) the closed ball around a of that radius.

References: T. Kynkäänniemi, T. Karras, S. Laine, J. Lehtinen, T. Aila, Improved precision and recall metric for
assessing generative models, 2019. M. F. Naeem, S. J. Oh, Y. Uh, Y. Choi, J. Yoo, Reliable fidelity and diversity
metrics for generative models, 2020.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from genprior.ambient import settled

CHUNK = 512  # rows of the distance matrix held at once


@settled
def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[float, float]:
    """The shares of generated points near real ones, and of real points near generated ones.

    precision = |{y in Y: y in B(x; X) for some x}| / M,
    recall    = |{x in X: x in B(y; Y) for some y}| / N.
    A collapsed generator has low recall. Both depend on N, M and the features: compare them with those of a second set
    of real images of the same size, which are below 1.

    Arguments:
        real, fake: features, (N, d) and (M, d).
        k: the neighbour that sets a ball's radius (3 in the paper).

    Raises:
        ValueError: the features are not two finite matrices of the same width with more than k rows.
    """
    _check(real, fake, k)
    return _share_within(fake, real, k), _share_within(real, fake, k)


@settled
def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """The mean number of real points' balls around a generated one, over k, and the share of balls that contain any.

    density  = 1 / (k M) sum over y in Y of |{x in X: y in B(x; X)}|,
    coverage = |{x in X: y in B(x; X) for some y}| / N.
    For two samples of the same distribution, density averages 1 and coverage  1 - prod_{i=1}^{k} (N - i) / (N + M - i).
    Only real points have balls, so an outlier among the generated ones covers nothing.

    Arguments, Raises: as for `precision_recall`; k is 5 in the paper.
    """
    _check(real, fake, k)
    radius = neighbour_distance(real, k)
    held = torch.zeros(len(real), dtype=torch.long, device=real.device)
    for rows, distance in _distances(real, fake):
        held[rows] = (distance <= radius[rows, None]).sum(1)
    return float(held.sum()) / (k * len(fake)), float((held > 0).double().mean())


def neighbour_distance(points: Tensor, k: int) -> Tensor:
    """r_k: the distance from every point to its k-th nearest neighbour, (N, d) -> (N,)."""
    radius = points.new_empty(len(points))
    for rows, distance in _distances(points, points):
        radius[rows] = distance.kthvalue(k + 1, dim=1).values  # k + 1, since the nearest is the point itself
    return radius


def nearest(points: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """The distance from every point to the nearest of the others, and its index, (N, d), (M, d) -> (N,) each.

    Draws that lie nearer to training images than unseen images of the same distribution do are memorised.
    """
    found = [distance.min(1) for _, distance in _distances(points, others)]
    return torch.cat([least.values for least in found]), torch.cat([least.indices for least in found])


def class_shares(labels: Tensor, classes: int) -> Tensor:
    """The fraction of the labels (n,), integers from 0, that belong to each class, (classes,).

    Raises:
        ValueError: there are no labels, or one is not in 0 … classes - 1.
    """
    if not len(labels) or not bool(((labels >= 0) & (labels < classes)).all()):
        raise ValueError(f"labels are {labels!r}: give at least one, all among 0 to {classes - 1}.")
    return torch.bincount(labels, minlength=classes).double() / len(labels)


def classifier_score(logits: Tensor) -> float:
    """exp of the mean KL divergence of p(k | x) from its mean p(k): from 1 to the number of classes.

    It is high if each image clearly belongs to one class and all classes are equally frequent; images that are alike
    within each class score the same as diverse ones. With Inception's classes, it is the Inception score.

    Arguments:
        logits: of a classifier, (n, classes).

    References:
        Improved techniques for training GANs. T. Salimans, I. Goodfellow, W. Zaremba, V. Cheung, A. Radford, X. Chen,
        2016.
    """
    log_p = logits.double().log_softmax(1)
    log_mean = log_p.logsumexp(0) - math.log(len(logits))
    return float((log_p.exp() * (log_p - log_mean)).sum(1).mean().exp())


def _share_within(points: Tensor, centres: Tensor, k: int) -> float:
    """The share of points that lie in the ball of some centre."""
    radius = neighbour_distance(centres, k)
    within = [(distance <= radius).any(1) for _, distance in _distances(points, centres)]
    return float(torch.cat(within).double().mean())


def _distances(a: Tensor, b: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield the matrix of distances from a to b, some rows at a time.

    They come from differences, not from |a|^2 - 2 a.b + |b|^2, whose rounding would separate a point from itself.
    """
    for start in range(0, len(a), CHUNK):
        rows = slice(start, min(start + CHUNK, len(a)))
        yield rows, torch.cdist(a[rows], b, compute_mode="donot_use_mm_for_euclid_dist")


def _check(real: Tensor, fake: Tensor, k: int) -> None:
    for name, features in (("real", real), ("fake", fake)):
        if features.ndim != 2 or not features.is_floating_point() or not bool(features.isfinite().all()):
            raise ValueError(
                f"{name} is a {features.dtype} tensor of shape {tuple(features.shape)}: give finite features, one row "
                "per image"
            )
        if not isinstance(k, int) or not 1 <= k < len(features):
            raise ValueError(f"k is {k!r} for {len(features)} rows of {name}: give 1 to {len(features) - 1}.")
    if real.shape[1] != fake.shape[1]:
        raise ValueError(
            f"real has {real.shape[1]} features and fake {fake.shape[1]}: take both from the same network."
        )
