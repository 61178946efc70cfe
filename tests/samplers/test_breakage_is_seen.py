"""The pinned errors notice a broken sampler, whichever it is: each diffusion sampler is broken in two ways.

    weak noise      all of its noise is 0.7 of what it should be: half of the variance
    half of y       y is replaced by the middle of y and A E x: half of the residual, half of the guidance

A sampler that passes its pin (`test_diffusion_sampler_errors`, `test_gaussian_posterior`) must not when so broken.
"""

import pytest
from test_diffusion_sampler_errors import KNOWN_ERRORS, OPERATORS, N, strays
from test_gaussian_posterior import KNOWN_ERRORS as MORE_KNOWN_ERRORS

from genprior.noise import Noise
from genprior.operators import Measurement
from genprior.posteriors.exact import posterior_of
from genprior.samplers import SAMPLERS
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.particles.mcgdiff import MCGDiff
from genprior.samplers.particles.smc import SMC
from genprior.samplers.particles.tds import TDS, TDSMoments
from genprior.truth.gaussian import CLOUDS, PRIORS, compare, draw, judge, measure

# Those without a pin elsewhere, or without one as narrow: sampler, prior, operator, (error, ratio) of the seen and of
# the unseen part. To run this file prints them, of 2000 draws, or of 100 clouds of 10.
OWN = [
    (DPS(steps=250), "correlated", "inpaint", (0.82, 0.03), (0.27, 0.77)),
    (MMPS(steps=60, iterations=8, integrator="ancestral"), "correlated", "inpaint", (0.00, 0.86), (0.02, 0.86)),
    (TDS(steps=30, particles=100), "correlated", "inpaint", (0.21, 0.94), (0.13, 0.77)),
    (TDSMoments(steps=15, particles=50), "correlated", "super-resolution", (0.28, 0.72), (0.00, 0.56)),
    (SMC(steps=30, particles=100), "correlated", "inpaint", (0.18, 0.92), (0.06, 0.76)),
    (MCGDiff(steps=30, particles=200), "correlated", "inpaint", (0.19, 0.67), (0.24, 0.82)),
]
# Point estimates have no noise and no variance to pin: test_posterior_mean.py compares that of denoising with the exact
# one, test_by_hand.py DPIR with its formula, which no weaker guidance has, test_quantised.py those of rounded images.
POINTS = ("posterior-mean", "quantised", "quantised-mean", "dpir")
DIFFUSION = {name: sampler for name, sampler in SAMPLERS.items() if sampler.needs == "denoise" and name not in POINTS}


def pin(sampler):
    """The first pin of that class with a correlated prior, which most samplers find harder."""
    pins = [known for known in (*OWN, *KNOWN_ERRORS, *MORE_KNOWN_ERRORS) if type(known[0]) is sampler]
    assert pins, f"{sampler.__name__} has no pinned error: add one to OWN"
    return next(known for known in pins if known[1] == "correlated")


def as_pinned(known, change=lambda prior, one: one):
    """Whether draws for a measurement, perhaps a changed one, err as known."""
    sampler, prior, operator, *parts = known
    operator = OPERATORS[operator]
    prior = PRIORS[prior](operator.image_shape)
    one = measure(prior, operator, 0.1)
    n = 10 * CLOUDS if sampler.clouds else N
    found = compare(draw(sampler, prior, change(prior, one), n), posterior_of(prior, one), operator)
    return not any(part and strays(part, figures) for part, figures in zip((found.seen, found.unseen), parts))


def half_of_y(prior, one):
    return Measurement((one.y + one.operator(prior.mean[None])) / 2, one.operator, one.noise)


@pytest.mark.parametrize("name", DIFFUSION)
def test_sampler_errs_as_known(name):
    assert as_pinned(pin(DIFFUSION[name]))


@pytest.mark.parametrize("name", DIFFUSION)
def test_weak_noise_is_seen(name, monkeypatch):
    known = pin(DIFFUSION[name])
    draws_noise = Noise.__call__

    def change(prior, one):
        monkeypatch.setattr(Noise, "__call__", lambda noise, like: 0.7 * draws_noise(noise, like))
        return one

    assert not as_pinned(known, change)


@pytest.mark.parametrize("name", DIFFUSION)
def test_weak_guidance_is_seen(name):
    assert not as_pinned(pin(DIFFUSION[name]), half_of_y)


if __name__ == "__main__":
    for sampler, prior, kind, *_ in OWN:
        shape = OPERATORS[kind].image_shape
        seeds = range(10 if sampler.clouds else 1)
        n = 10 * CLOUDS if sampler.clouds else 2000
        judged = [judge(sampler, PRIORS[prior](shape), OPERATORS[kind], n, seed=seed) for seed in seeds]
        for parts in ([each.seen for each in judged], [each.unseen for each in judged]):
            square, ratio = (sum((part.square, part.ratio)[k].value for part in parts) / len(parts) for k in range(2))
            print(sampler, prior, kind, f"({max(square, 0) ** 0.5:.2f}, {ratio:.2f})", flush=True)
