"""Precision, recall, density and coverage against their definitions, point by point, and cases that are known."""

import math

import pytest
import torch

from genprior.scores import manifold as coverage
from genprior.scores.manifold import (
    class_shares,
    classifier_score,
    density_coverage,
    nearest,
    neighbour_distance,
    precision_recall,
)


def normal(n, d=3, seed=0, mean=0.0):
    return mean + torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def distance(a, b):
    return math.dist(a.tolist(), b.tolist())


def radius(points, i, k):
    return sorted(distance(points[i], points[j]) for j in range(len(points)) if j != i)[k - 1]


def brute_force(real, fake, k):
    """(precision, recall, density, coverage) as they are written down."""
    R = [radius(real, i, k) for i in range(len(real))]
    F = [radius(fake, j, k) for j in range(len(fake))]
    hits = [[distance(x, y) <= r for y in fake] for x, r in zip(real, R)]
    precision = sum(any(row[j] for row in hits) for j in range(len(fake))) / len(fake)
    recall = sum(any(distance(x, y) <= r for y, r in zip(fake, F)) for x in real) / len(real)
    density = sum(map(sum, hits)) / (k * len(fake))
    return precision, recall, density, sum(map(any, hits)) / len(real)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_figures_are_those_of_the_definitions(k, monkeypatch):
    monkeypatch.setattr(coverage, "CHUNK", 7)  # several chunks, the last one shorter
    real, fake = normal(40, seed=1), normal(30, seed=2, mean=1.2)
    expected = brute_force(real, fake, k)
    assert (*precision_recall(real, fake, k), *density_coverage(real, fake, k)) == pytest.approx(expected, rel=1e-6)
    assert all(0 < figure < 2 for figure in expected)
    assert len(set(expected)) == 4


def test_figures_do_not_depend_on_the_chunk(monkeypatch):
    real, fake = normal(50, seed=1), normal(50, seed=2)
    whole = (*precision_recall(real, fake), *density_coverage(real, fake))
    monkeypatch.setattr(coverage, "CHUNK", 1)
    assert (*precision_recall(real, fake), *density_coverage(real, fake)) == whole


def test_identical_sets_have_everything():
    """Every ball holds its centre and k others of its set, so the density is (k + 1) / k."""
    x = normal(60)
    assert precision_recall(x, x.clone(), k=3) == (1, 1)
    assert density_coverage(x, x.clone(), k=5) == pytest.approx((6 / 5, 1), rel=1e-6)


def test_float32_features_far_from_the_origin_are_still_their_own_neighbours():
    """|a|^2 - 2 a.b + |b|^2 would round distances of 1 around 1e3 away by 1e6 * 2^-24 = 0.06, and to nan."""
    x = normal(60).float() + 1000
    assert precision_recall(x, x.clone(), k=1) == (1, 1)
    assert density_coverage(x, x.clone(), k=1) == pytest.approx((2, 1))


def test_disjoint_sets_have_nothing():
    real, fake = normal(40, seed=1), normal(40, seed=2, mean=100.0)
    assert precision_recall(real, fake) == (0, 0)
    assert density_coverage(real, fake) == (0, 0)


def test_collapse_to_one_real_point_is_precise_and_recalls_nothing():
    real = normal(200, seed=1)
    fake = real[:1] + 1e-6 * normal(200, seed=2)
    precision, recall = precision_recall(real, fake)
    density, covered = density_coverage(real, fake)
    assert precision == 1
    assert recall <= 1 / 200  # at most the point itself
    # of 200 balls, only those of the point and of points that have it among their nearest five
    assert 1 / 200 <= covered < 0.1
    assert density >= 1 / 5


def test_a_lost_mode_costs_its_share_of_recall_and_coverage():
    """Four clusters far apart, of which the generator has three: a quarter of the real points is out of its reach."""
    centres = 100 * torch.eye(4, 3, dtype=torch.float64)

    def clusters(n, kinds, seed):
        return torch.cat([centres[kind] + normal(n, seed=10 * seed + kind) for kind in kinds])

    real, fake = clusters(300, range(4), seed=1), clusters(300, range(4), seed=2)
    (_, recall), (_, covered) = precision_recall(real, fake), density_coverage(real, fake)
    (_, recall_left), (_, covered_left) = precision_recall(real, fake[:900]), density_coverage(real, fake[:900])
    # clusters do not know of each other: the lost one takes its own figure, of its 300 points, with it
    _, recall_lost = precision_recall(real[900:], fake[900:])
    _, covered_lost = density_coverage(real[900:], fake[900:])
    assert recall_left == pytest.approx(recall - recall_lost / 4, abs=1e-12)
    assert covered_left == pytest.approx(covered - covered_lost / 4, abs=1e-12)
    assert min(recall_lost, covered_lost) > 0.8


def test_an_outlier_inflates_recall_but_not_coverage():
    """What density and coverage were made for: a few generated points far out have huge balls that hold everything."""
    real, fake = normal(100, seed=1), normal(100, seed=2, mean=30.0)
    fake[:10] = normal(10, seed=3, mean=-30.0)  # nine neighbours of each are near, the tenth is not
    assert precision_recall(real, fake, k=3)[1] == 0
    assert precision_recall(real, fake, k=10)[1] == 1
    assert density_coverage(real, fake, k=10)[1] == 0


def test_two_samples_of_one_law_have_the_expected_density_and_coverage():
    """Any law with a density, any N, M: density 1, coverage 1 - prod_i (N - i) / (N + M - i) (Naeem et al., 2020).

    In each of 60 independent pairs, density and coverage of N = M = 100 points have some standard deviation, which the
    pairs themselves show; their mean then lies within 3.3 / sqrt(60) of it, but for one time in a thousand.
    """
    N, M, k, pairs = 100, 100, 5, 60
    figures = torch.tensor(
        [density_coverage(normal(N, seed=2 * i), normal(M, seed=2 * i + 1), k) for i in range(pairs)],
        dtype=torch.float64,
    )
    expected = torch.tensor([1.0, 1 - math.prod((N - i) / (N + M - i) for i in range(1, k + 1))], dtype=torch.float64)
    error = (figures.mean(0) - expected).abs()
    bound = 3.3 * figures.std(0) / math.sqrt(pairs)
    assert (error < bound).all()
    assert (bound < torch.tensor([0.05, 0.02])).all()


def test_neighbour_distance_leaves_the_point_itself_out():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_distance(points, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_distance(points, 3).tolist() == [7, 6, 4, 7]
    # of two equal points, each is the other's nearest
    assert neighbour_distance(torch.tensor([[0.0], [0.0], [5.0]]), 1).tolist() == [0, 0, 5]


def test_class_shares_are_fractions_of_all_classes():
    shares = class_shares(torch.tensor([0, 2, 2, 3]), 5)
    assert shares.tolist() == [0.25, 0, 0.5, 0.25, 0]


@pytest.mark.parametrize("labels", [[], [0, 5], [-1, 2]])
def test_labels_out_of_range_are_refused(labels):
    with pytest.raises(ValueError, match="give at least one, all among 0 to 4"):
        class_shares(torch.tensor(labels, dtype=torch.long), 5)


@pytest.mark.parametrize("metric", [precision_recall, density_coverage])
@pytest.mark.parametrize(
    ("real", "fake", "k", "message"),
    [
        (torch.zeros(5, 2), torch.zeros(5, 3), 1, "real has 2 features and fake 3"),
        (torch.zeros(5, 2), torch.zeros(5, 2, 1), 1, r"fake is a torch.float32 tensor of shape \(5, 2, 1\)"),
        (torch.full((5, 2), math.nan), torch.zeros(5, 2), 1, "real is .* give finite features"),
        (torch.zeros(5, 2, dtype=torch.long), torch.zeros(5, 2), 1, "real is a torch.int64"),
        (torch.zeros(5, 2), torch.zeros(3, 2), 3, "k is 3 for 3 rows of fake: give 1 to 2"),
        (torch.zeros(5, 2), torch.zeros(5, 2), 0, "k is 0 for 5 rows of real: give 1 to 4"),
    ],
)
def test_features_that_cannot_be_compared_are_refused(metric, real, fake, k, message):
    with pytest.raises(ValueError, match=message):
        metric(real, fake, k)


def test_classifier_score_counts_the_classes_of_sure_images_and_is_its_definition_between():
    sure = 1000 * torch.eye(10, dtype=torch.float64)
    assert classifier_score(sure) == pytest.approx(10, rel=1e-12)
    assert classifier_score(sure[:4].repeat(3, 1)) == pytest.approx(4, rel=1e-12)
    assert classifier_score(normal(1, 10).expand(5, 10)) == pytest.approx(1, rel=1e-12)
    p = normal(6, 3).softmax(1)
    mean = p.mean(0)
    expected = math.exp(sum(float(row @ (row / mean).log()) for row in p) / 6)
    assert classifier_score(p.log() + 7) == pytest.approx(expected, rel=1e-12)


def test_nearest_tells_which_and_how_far():
    points, others = torch.tensor([[0.0, 0.0], [3.0, 4.0]]), torch.tensor([[3.0, 3.0], [0.0, 1.0], [9.0, 9.0]])
    distance, index = nearest(points, others)
    assert distance.tolist() == [1.0, 1.0]
    assert index.tolist() == [1, 0]
