"""Whether a sampler's spread is that of the posterior: samples x_1 … x_n of p(x | y) against the truth x* of each y.

If x* is a draw from the prior and the sampler is exact, x* and its samples are n + 1 draws from one p(x | y). Coverage
(`scores`), simulation-based calibration and TARP (`ranks`) test this through different functions of the images. They
need no limit n -> infinity: what they expect of an exact sampler holds for every n.

Notation: B images; n samples of each.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import as_integer
from genprior.likelihoods import Gaussian, Likelihood
from genprior.linalg import norm
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior, supports
from genprior.restoration import MEASURED
from genprior.samplers.base import Sampler, begin
from genprior.scores.uncertainty import coverage, crps, energy_score, spread_error_correlation, widest
from genprior.table import Estimate
from genprior.truth.ranks import FEWEST, ExpectedCoverage, Quantity, distance_from, expected_coverage, ranks, sbc

LEVELS = (0.5, 0.9, 0.99)  # of coverage, each used from 3, 19 or 199 samples on
PROJECTIONS = 3
PIXELS = 3
REFERENCE_NOISE = 0.1  # in multiples of the prior's spread; more would drown the posterior's own width
REFERENCED = "distance from the reference"
TESTING = MEASURED - 1  # the sample number of the tests' noise; like MEASURED, no draw has it


@settled
def standard_quantities(prior: Prior, measurement: Measurement, seed: int) -> dict[str, Quantity]:
    """Quantities by which to rank images: each detects errors that another misses.

    Projections on white noise; single pixels; the mean over the image; |x - centre|, which detects a wrong variance of
    all pixels at once; the roughness |differences of neighbours|, which detects wrong correlations; the misfit
    |A x - y|, without which a sampler that ignores y would pass; and the energy -ln p(x) if the prior has one.

    Arguments:
        prior: of images of the operator's size.
        measurement: y of B images.
        seed: of the projections and pixels, which are the same for every measurement.

    References: M. Modrák et al., Simulation-based calibration checking for Bayesian computation: the choice of test
    quantities shapes sensitivity, 2023.
    """
    shape = measurement.operator.image_shape
    centre = torch.as_tensor(prior.centre, dtype=measurement.y.dtype, device=measurement.y.device)
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
    """The calibration of a sampler on B images, with n samples of each.

    Attributes:
        figures: name -> value and standard error: means of `scores`, with the error for B independent images, and two
            p-values, which have none. "SBC p" is the smallest of the p-values of `sbc`, of both tests and of all test
            quantities, times their number (Bonferroni), at most 1. "TARP p" is that of `tarp`.
        scores: name -> one number per image, (B,): compare two samplers on the same images by their differences image
            by image.
        ranks: test quantity -> (B,), see `ranks`.
        tarp: the curve.
    """

    figures: dict[str, Estimate]
    scores: dict[str, Tensor]
    ranks: dict[str, Tensor]
    tarp: ExpectedCoverage


@torch.no_grad()  # samplers that need gradients enable them
@settled
def calibrate(
    prior: Prior,
    sampler: Sampler,
    operator: LinearOperator,
    noise: float | Likelihood,
    n_images: int,
    n_samples: int,
    seed: int,
    truth: Tensor | None = None,
    *,
    batch: int = 16,
) -> Calibration:
    """Measure n_images truths, y ~ p(y | A x*), draw n_samples from p(x | y) for each, and compare.

    With x* drawn from the prior, an exact sampler fails a test only with the probability that its p-value states. With
    given images, prior and sampler are judged together. Dependence between draws, as possible within one cloud of
    particles, is an error too, which more draws do not dilute. The references of TARP depend on y: they are its
    regularised inverse plus noise of a tenth of the prior's spread.

    Arguments:
        prior: has `sample`, unless images are given, and what the sampler needs.
        operator: A, with `batch` 1 or n_images.
        noise: standard deviation > 0, in the units of x, or a likelihood. Without noise the posterior is singular, and
            where it has no width, rounding would decide the ranks. A truth that the likelihood deems impossible, such
            as values below 0 under photon noise, lies outside every posterior and fails the tests.
        n_images: B, at least 10.
        n_samples: n, at least 2; coverage at 50, 90 and 99 % takes 3, 19 and 199, and is left out for fewer.
        seed: of everything; image i is the same for every `batch` and every n_images.
        truth: images, at least n_images, (·, C, H, W), in the dtype and on the device of the prior; None for draws.
        batch: images at once, each with all its samples.

    Raises:
        UnsupportedError: the prior lacks `sample` or what the sampler needs.
        ValueError: an argument is not as described, or the sampler diverged.
    """
    as_integer("n_images", n_images, FEWEST, math.inf)
    as_integer("n_samples", n_samples, 2, TESTING)
    as_integer("batch", batch, 1, math.inf)
    if not isinstance(noise, Likelihood) and not 0 < noise < math.inf:
        raise ValueError(f"noise is a standard deviation > 0 in the units of x, for calibration; got {noise!r}.")
    law = noise if isinstance(noise, Likelihood) else Gaussian(noise)
    prior = prior.sized(*operator.image_shape[1:])
    x = prior.sample(n_images, seed=seed) if truth is None else truth[:n_images]
    if len(x) < n_images:
        raise ValueError(f"There are {len(x)} images, of which n_images={n_images} were asked for.")

    parts = [
        _compare(prior, sampler, operator.select(rows), law.select(rows), x[rows], rows + 1, n_samples, seed)
        for rows in torch.arange(n_images).split(batch)
    ]
    scores, found = (_joined(each) for each in zip(*parts))
    curve = expected_coverage(found.pop(REFERENCED), n_samples)
    tests = [sbc(each, n_samples) for each in found.values()]
    p_values = [p for test in tests for p in (test.chi2_p, test.ks_p)]
    figures = {
        **{name: Estimate.mean(each) for name, each in scores.items()},
        "SBC p": Estimate(min(1.0, len(p_values) * min(p_values))),
        "TARP p": Estimate(curve.ks_p),
    }
    return Calibration(figures, scores, found, curve)


def _compare(
    prior: Prior,
    sampler: Sampler,
    A: LinearOperator,
    law: Likelihood,
    truth: Tensor,
    image: Tensor,
    n: int,
    seed: int,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Scores and ranks of some images, numbered from 1, since `prior.sample` uses 0."""
    z = A(truth)
    y = law.to(z).sample(z, Noise(seed, image, torch.full_like(image, MEASURED)))
    measurement = Measurement(y, A, law.to(z))
    rows = torch.arange(len(image)).repeat_interleave(n)
    chains = Noise(seed, image[rows], torch.arange(n).repeat(len(image)))
    samples = rearrange(sampler(prior, measurement.select(rows), chains), "(b n) ... -> b n ...", n=n)

    testing = Noise(seed, image, torch.full_like(image, TESTING))
    references = begin(prior, measurement, REFERENCE_NOISE * prior.spread, testing)
    quantities = {**standard_quantities(prior, measurement, seed), REFERENCED: distance_from(references)}
    scores = {
        **{f"coverage {level:.0%}": coverage(samples, truth, level) for level in LEVELS if level <= widest(n)},
        "CRPS": crps(samples, truth),
        "energy score": energy_score(samples, truth),
        "spread-error correlation": spread_error_correlation(samples, truth),
    }
    return {name: each.cpu() for name, each in scores.items()}, ranks(samples, truth, quantities, testing)


def _joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
