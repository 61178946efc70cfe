"""Whether a sampler's spread is that of the posterior: samples x_1 … x_n of p(x | y) beside the truth x* of each y.

Where x* is a draw from the prior and the sampler is exact, x* and its samples are n + 1 draws from one p(x | y),
independent given y. For any f that depends on y and on nothing else, the rank |{i: f(x_i) < f(x*)}| is then uniform on
the n + 1 places 0, …, n. Coverage, simulation-based calibration and TARP test this for different f, and take no limit
n -> infinity: what they expect of an exact sampler holds for every n.

Notation: B images; n samples of each; D = C H W; R a rank; f a test quantity.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genprior.evaluation.table import Figure
from genprior.linalg import norm
from genprior.noise import Noise
from genprior.operators.base import LinearOperator, Measurement, as_integer, as_number
from genprior.priors.base import Prior, supports
from genprior.restoration import MEASURED
from genprior.samplers.base import Sampler, begin

# (B, m, C, H, W) -> (B, m): a number for each of m images that might be the truth of y, for each of B measurements.
Quantity = Callable[[Tensor], Tensor]

LEVELS = (0.5, 0.9, 0.99)
PROJECTIONS = 3
PIXELS = 3
GROUPS = 20  # of places, at most, for chi^2: more would blunt it against a histogram that bends or leans
FEWEST = 10  # images with which two groups have five expected ranks each
REFERENCE_NOISE = 0.1  # in multiples of the prior's spread; more would drown the posterior's own width
REFERENCED = "distance from the reference"
TESTING = MEASURED - 1  # the sample number of noise for tests; no draw has it, as none has MEASURED


def coverage(samples: Tensor, truth: Tensor, level: float) -> Tensor:
    """The fraction of each image's pixels whose truth lies in the central interval of the samples, (B,).

    With n + 1 places of width 1 / (n + 1) side by side in [0, 1], a truth of rank R lies in [R, R + 1] / (n + 1), and
    counts by the share of that place inside [(1 - level) / 2, (1 + level) / 2]; a truth that ties with samples counts
    by the share of all the places it may take. The expectation for an exact sampler is `level` itself, for every n and
    for posteriors with atoms. Beyond the samples there is no knowing how far: where n < 2 / (1 - level) - 1, a truth
    outside of them all still counts 1 - (n + 1) (1 - level) / 2, and no coverage is below that.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        level: probability of the interval, [0, 1].

    Raises:
        ValueError: samples and truth do not fit or are not finite, or there is no such level.
    """
    _check(samples, truth, least=1)
    as_number("level", level, 0, 1)
    places = samples.shape[1] + 1
    first = (samples < truth[:, None]).sum(1).to(truth)
    last = (samples <= truth[:, None]).sum(1).to(truth) + 1
    inside = last.clamp_max(places * (1 + level) / 2) - first.clamp_min(places * (1 - level) / 2)
    return (inside.clamp_min(0) / (last - first)).flatten(1).mean(1)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """The fair continuous ranked probability score of each image, mean over pixels, (B,); units of x, lower is better.

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), and with x_(1) <= … <= x_(n) the second sum is
    sum_i (2 i - n - 1) x_(i) / (n (n - 1)). Its expectation is the score of the sampler's law, for every n.

    Arguments:
        samples: (B, n, C, H, W), n >= 2.
        truth: (B, C, H, W).

    Raises:
        ValueError: samples and truth do not fit or are not finite.

    References: T. Gneiting, A. Raftery, Strictly proper scoring rules, prediction, and estimation, 2007. C. Ferro, Fair
    scores for ensemble forecasts, 2014.
    """
    _check(samples, truth, least=2)
    n = samples.shape[1]
    r = (samples - truth[:, None]).sort(1).values
    weights = torch.arange(1 - n, n, 2, device=r.device).to(r) / (n * (n - 1))
    return r.abs().mean((1, 2, 3, 4)) - (r.mean((2, 3, 4)) * weights).sum(1)


def energy_score(samples: Tensor, truth: Tensor) -> Tensor:
    """The fair energy score of each image, (B,); units of x, of order sqrt(D), lower is better.

    sum_i |x_i - x*| / n - sum_{i,j} |x_i - x_j| / (2 n (n - 1)), of whole images: the correlations count too.

    Arguments:
        samples: (B, n, C, H, W), n >= 2.
        truth: (B, C, H, W).

    Raises:
        ValueError: samples and truth do not fit or are not finite.

    References: T. Gneiting, A. Raftery, Strictly proper scoring rules, prediction, and estimation, 2007. C. Ferro, Fair
    scores for ensemble forecasts, 2014.
    """
    _check(samples, truth, least=2)
    n = samples.shape[1]
    x = samples.flatten(2)
    between = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    return (x - truth.flatten(1)[:, None]).norm(dim=2).mean(1) - between / (2 * n * (n - 1))


def spread_error_correlation(samples: Tensor, truth: Tensor) -> Tensor:
    """The correlation over pixels of the samples' standard deviation and |mean - x*|, for each image, (B,).

    Below 1 for exact samplers too, as the error of a pixel is one draw; nan where one of the two is constant.

    Arguments:
        samples: (B, n, C, H, W), n >= 2.
        truth: (B, C, H, W).

    Raises:
        ValueError: samples and truth do not fit or are not finite.
    """
    _check(samples, truth, least=2)
    spread = samples.std(1).flatten(1)
    error = (samples.mean(1) - truth).abs().flatten(1)
    spread = spread - spread.mean(1, keepdim=True)
    error = error - error.mean(1, keepdim=True)
    return (spread * error).sum(1) / (spread.norm(dim=1) * error.norm(dim=1))


def ranks(samples: Tensor, truth: Tensor, quantities: Mapping[str, Quantity], noise: Noise) -> dict[str, Tensor]:
    """The rank of f(x*) among f(x_1) … f(x_n), for each f and each image: name -> (B,) whole numbers from 0 to n.

    Of the places that ties leave open, each is taken with the same probability.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        quantities: name -> f.
        noise: B rows, which break the ties.

    Raises:
        ValueError: samples and truth do not fit or are not finite.

    References: S. Talts, M. Betancourt, D. Simpson, A. Vehtari, A. Gelman, Validating Bayesian inference algorithms
    with simulation-based calibration, 2018.
    """
    _check(samples, truth, least=1)
    found = {}
    for name, f in quantities.items():
        drawn, own = f(samples).cpu(), f(truth[:, None]).cpu()
        below = (drawn < own).sum(1)
        tied = (drawn == own).sum(1)
        u = noise.uniform(own.double()).flatten()
        found[name] = below + (u * (tied + 1)).long()
    return found


class Uniformity(NamedTuple):
    """Two tests of whether ranks are uniform: chi^2 sees a histogram that bends, Kolmogorov-Smirnov one that leans."""

    chi2: float
    chi2_p: float
    ks: float
    ks_p: float


def sbc(ranks: Tensor, n: int) -> Uniformity:
    """Tests of simulation-based calibration: are the ranks of independent images uniform on 0, …, n?

    chi^2 over min(n + 1, B / 5, 20) groups of neighbouring places, as equal as can be, each with its exact expectation.
    Kolmogorov-Smirnov: max_k |share of ranks below k - k / (n + 1)|; its p-value is that of continuous uniform
    numbers, of which R is a rounding: never too low, and the closer the more places there are.

    Arguments:
        ranks: (B,) whole numbers from 0 to n, B >= 10.
        n: number of samples that were ranked against.

    Raises:
        ValueError: there are fewer ranks, or some out of range.
    """
    from scipy import stats

    level, share = _curve(ranks, n)
    B, places = len(ranks), n + 1
    groups = min(places, B // 5, GROUPS)
    edges = torch.arange(groups + 1) * places // groups
    observed, expected = B * share[edges].diff(), B * level[edges].diff()
    chi2 = float(((observed - expected).square() / expected).sum())
    ks = float((share - level).abs().max())
    return Uniformity(chi2, float(stats.chi2.sf(chi2, groups - 1)), ks, float(stats.kstwo.sf(ks, B)))


class ExpectedCoverage(NamedTuple):
    """The share of truths in the credible regions of each level, (n + 2,) both, and Kolmogorov-Smirnov's test of it."""

    level: Tensor
    coverage: Tensor
    ks: float
    ks_p: float


def expected_coverage(ranks: Tensor, n: int) -> ExpectedCoverage:
    """How often the region {x: f(x) < its quantile of level k / (n + 1) among the samples} holds the truth.

    coverage(k / (n + 1)) = share of ranks below k, for k = 0, …, n + 1: of an exact sampler, k / (n + 1) on average.

    Arguments, Raises: as `sbc`.
    """
    test = sbc(ranks, n)
    return ExpectedCoverage(*_curve(ranks, n), test.ks, test.ks_p)


def distance_from(references: Tensor) -> Quantity:
    """f(x) = |x - r|, with one r for each image, (B, C, H, W)."""
    return lambda x: (x - references[:, None]).flatten(2).norm(dim=2)


def tarp(samples: Tensor, truth: Tensor, references: Tensor, noise: Noise) -> ExpectedCoverage:
    """Tests of accuracy with random points: coverage of the balls around r that hold a share `level` of the samples.

    Only an exact sampler passes with every r that is a function of y. References that do not depend on y do not see a
    sampler that ignores y.

    Arguments:
        samples: (B, n, C, H, W).
        truth: (B, C, H, W).
        references: r, (B, C, H, W), drawn without looking at the truth.
        noise: B rows, which break the ties.

    Raises:
        ValueError: samples and truth do not fit or are not finite, or are of fewer than 10 images.

    References: P. Lemos, A. Coogan, Y. Hezaveh, L. Perreault-Levasseur, Sampling-based accuracy testing of posterior
    estimators for general inference, 2023.
    """
    found = ranks(samples, truth, {"distance": distance_from(references)}, noise)
    return expected_coverage(found["distance"], samples.shape[1])


def standard_quantities(prior: Prior, measurement: Measurement, seed: int) -> dict[str, Quantity]:
    """Numbers by which to rank images: each is blind to errors that another sees.

    Projections on white noise, single pixels, the mean over the image, |x - centre|, which sees a wrong variance of
    all pixels at once, the roughness |differences of neighbours|, which sees wrong correlations, the misfit |A x - y|,
    without which a sampler that ignores y would pass, and the energy -ln p(x) where the prior has one.

    Arguments:
        prior: of images of the operator's size.
        measurement: y of B images.
        seed: of the projections and pixels, which are those of every measurement.

    References: M. Modrák et al., Simulation-based calibration checking for Bayesian computation: the choice of test
    quantities shapes sensitivity, 2023.
    """
    shape = measurement.operator.image_shape
    centre = torch.as_tensor(prior.centre).to(measurement.y)
    noise = Noise(seed, [0], [TESTING])
    (directions,) = noise(measurement.y.new_empty(1, PROJECTIONS, *shape))
    (order,) = noise.uniform(measurement.y.new_empty(1, math.prod(shape))).argsort(1)

    def roughness(x: Tensor) -> Tensor:
        down, right = x.diff(dim=-2), x.diff(dim=-1)
        return (down.square().sum((2, 3, 4)) + right.square().sum((2, 3, 4))).sqrt()

    def misfit(x: Tensor) -> Tensor:
        each = measurement.select(torch.arange(len(x)).repeat_interleave(x.shape[1]))
        return norm(each.operator(x.flatten(0, 1)) - each.y).reshape(x.shape[:2])

    quantities = {
        **{f"projection {k}": lambda x, w=w: torch.tensordot(x, w, 3) for k, w in enumerate(directions)},
        **{f"pixel {i}": lambda x, i=i: x.flatten(2)[..., i] for i in order[:PIXELS].tolist()},
        "mean": lambda x: x.mean((2, 3, 4)),
        "distance from the centre": lambda x: (x - centre).flatten(2).norm(dim=2),
        "roughness": roughness,
        "misfit": misfit,
    }
    if supports(prior, "energy"):
        quantities["energy"] = lambda x: prior.energy(x.flatten(0, 1)).reshape(x.shape[:2])
    return quantities


@dataclass(frozen=True, eq=False)
class Calibration:
    """How a sampler did on B images, with n samples of each.

    Attributes:
        figures: name -> value and standard error: means of `scores`, whose error is that of B independent images, and
            two p-values, which have none. "SBC p" is the smallest of the p-values of `sbc`, of both tests and of all
            test quantities, times their number (Bonferroni), at most 1. "TARP p" is that of `tarp`.
        scores: name -> one number per image, (B,): compare two samplers on the same images by the differences of
            theirs, image by image.
        ranks: test quantity -> (B,), see `ranks`.
        tarp: the curve.
    """

    figures: dict[str, Figure]
    scores: dict[str, Tensor]
    ranks: dict[str, Tensor]
    tarp: ExpectedCoverage


@torch.no_grad()  # samplers that want gradients ask for them
def calibrate(
    prior: Prior,
    sampler: Sampler,
    operator: LinearOperator,
    noise: float,
    n_images: int,
    n_samples: int,
    seed: int,
    truth: Tensor | None = None,
    *,
    batch: int = 16,
) -> Calibration:
    """Measure n_images truths, y = A x* + noise n, draw n_samples from p(x | y) for each, and compare.

    With x* drawn from the prior, an exact sampler passes every test but by the chance that its p-value states. With
    images given, prior and sampler are judged together. Draws that depend on each other, as those of one cloud of
    particles may, are an error too, which more draws do not dilute. The references of TARP depend on y: they are its
    regularised inverse, and noise of a tenth of the prior's spread about it.

    Arguments:
        prior: has `sample`, unless images are given, and what the sampler needs.
        operator: A, with `batch` 1 or n_images.
        noise: standard deviation > 0, in the units of x. Without noise the posterior is singular, and where it has no
            width, rounding would decide the ranks.
        n_images: B, at least 10.
        n_samples: n, at least 2; at least 199 give the coverage at 99 % all its sight, see `coverage`.
        seed: of everything; image i is the same in every `batch`, and for every n_images.
        truth: images, at least n_images, (·, C, H, W), in the dtype and on the device of the prior; None for draws.
        batch: images at once, each with all its samples.

    Raises:
        UnsupportedError: the prior lacks `sample` or what the sampler needs.
        ValueError: an argument is not as above, or the sampler diverged.
    """
    as_integer("n_images", n_images, FEWEST, math.inf)
    as_integer("n_samples", n_samples, 2, TESTING)
    as_integer("batch", batch, 1, math.inf)
    if not 0 < noise < math.inf:
        raise ValueError(f"noise is a standard deviation > 0 in the units of x, for calibration; got {noise!r}.")
    prior = prior.sized(*operator.image_shape[1:])
    x = prior.sample(n_images, seed=seed) if truth is None else truth[:n_images]
    if len(x) < n_images:
        raise ValueError(f"There are {len(x)} images, of which n_images={n_images} were asked for.")

    parts = [
        _compare(prior, sampler, operator.select(rows), noise, x[rows], rows + 1, n_samples, seed)
        for rows in torch.arange(n_images).split(batch)
    ]
    scores, found = (_joined(each) for each in zip(*parts))
    curve = expected_coverage(found.pop(REFERENCED), n_samples)
    tests = [sbc(each, n_samples) for each in found.values()]
    p_values = [p for test in tests for p in (test.chi2_p, test.ks_p)]
    figures = {
        **{name: Figure.mean(each) for name, each in scores.items()},
        "SBC p": Figure(min(1.0, len(p_values) * min(p_values))),
        "TARP p": Figure(curve.ks_p),
    }
    return Calibration(figures, scores, found, curve)


def _compare(
    prior: Prior,
    sampler: Sampler,
    A: LinearOperator,
    noise: float,
    truth: Tensor,
    image: Tensor,
    n: int,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores and ranks of some images, by their numbers, which begin with 1: 0 is left to `prior.sample`."""
    y = A(truth)
    y = y + noise * Noise(seed, image, torch.full_like(image, MEASURED))(y)
    measurement = Measurement(y, A, noise)
    rows = torch.arange(len(image)).repeat_interleave(n)
    chains = Noise(seed, image[rows], torch.arange(n).repeat(len(image)))
    samples = sampler(prior, measurement.select(rows), chains).unflatten(0, (-1, n))

    testing = Noise(seed, image, torch.full_like(image, TESTING))
    references = begin(prior, measurement, REFERENCE_NOISE * prior.spread, testing)
    quantities = {**standard_quantities(prior, measurement, seed), REFERENCED: distance_from(references)}
    scores = {
        **{f"coverage {level:.0%}": coverage(samples, truth, level) for level in LEVELS},
        "CRPS": crps(samples, truth),
        "energy score": energy_score(samples, truth),
        "spread-error correlation": spread_error_correlation(samples, truth),
    }
    return {name: each.cpu() for name, each in scores.items()}, ranks(samples, truth, quantities, testing)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _curve(ranks: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """k / (n + 1) and the share of ranks below k, for k = 0, …, n + 1."""
    if ranks.ndim != 1 or ranks.is_floating_point() or len(ranks) < FEWEST:
        raise ValueError(
            f"ranks are (B,) whole numbers of B >= {FEWEST} images; got {ranks.dtype} {tuple(ranks.shape)}."
        )
    if not 0 <= int(ranks.min()) <= int(ranks.max()) <= n:
        raise ValueError(f"ranks among {n} samples are 0 to {n}; got {int(ranks.min())} to {int(ranks.max())}.")
    below = F.pad(torch.bincount(ranks, minlength=n + 1).cumsum(0), (1, 0))
    return torch.linspace(0, 1, n + 2, dtype=torch.float64), below.double() / len(ranks)


def _check(samples: Tensor, truth: Tensor, least: int) -> None:
    if samples.ndim != 5 or truth.shape != (len(samples), *samples.shape[2:]) or samples.shape[1] < least:
        raise ValueError(
            f"Give samples (B, n, C, H, W), n >= {least}, of truths (B, C, H, W); got {tuple(samples.shape)} and "
            f"{tuple(truth.shape)}."
        )
    for name, images in (("samples", samples), ("truth", truth)):
        if not images.isfinite().all():
            raise ValueError(f"The {name} hold {int((~images.isfinite()).sum())} values that are NaN or infinite.")
