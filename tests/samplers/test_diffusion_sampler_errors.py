"""How far samplers for diffusion priors are from the exact posterior of Gaussian priors, pinned from both sides.

The figures are those of `genprior.evaluation.truth`, with m_i and C the mean and covariance of n draws along the d
directions of a part, each less its exact mean and in units of its exact standard deviation:

    error^2 = mean_i m_i^2 - tr C / (n d)          sd^2 = 4 m^T C m / (n d^2) + 2 |C|^2 / (n d)^2
    ratio   = tr C / d                             sd^2 = 2 |C|^2 / (n d^2)

|C| the Frobenius norm. The second term of error^2 is what chance adds to the first; what is left may be negative. The
standard deviations hold for Gaussian draws, and the estimate of |C| is a little too large.
"""

import math

import pytest
import torch

from genprior.evaluation.truth import PRIORS, operators
from genprior.noise import Noise
from genprior.operators import Measurement
from genprior.samplers.daps import DAPS, DAPSHMC, DAPSLangevin
from genprior.samplers.ddnm import DDNM
from genprior.samplers.ddrm import DDRM
from genprior.samplers.gibbs import SplitGibbs
from genprior.samplers.pigdm import PiGDM
from genprior.samplers.reddiff import REDDiff
from genprior.samplers.repaint import RePaint
from genprior.samplers.sitcom import SITCOM
from genprior.samplers.tmpd import TMPD

OPERATORS = operators()
KINDS = ("inpaint", "super-resolution", "circular blur")
# Draws of a test. The figures of the table are those of the first 8 N draws, of which the tests take the first N: they
# differ from the table by less than their own standard deviation.
N = 60


def parts(prior, operator, exact):
    """Directions that A sees and that it does not, each with its exact mean and standard deviation."""
    size = math.prod(operator.image_shape)
    eye = torch.eye(size, dtype=torch.float64).reshape(size, *operator.image_shape)
    _, s, Vt = torch.linalg.svd(operator(eye).flatten(1).T, full_matrices=True)
    rank = int((s > 1e-9 * s.max()).sum())
    S = exact.covariance.filter(eye, exact.covariance.eigenvalues).flatten(1)
    for V in (Vt[:rank], Vt[rank:]):
        yield V, V @ exact.mean.flatten(), ((V @ S) * V).sum(1).sqrt()


def errors(sampler, prior, operator, n, noise=0.1):
    """(error^2, its sd, ratio, its sd) of the seen and of the unseen part, None for an empty one."""
    prior = PRIORS[prior](operator.image_shape)
    y = operator(prior.sample(1, seed=7))
    one = Measurement(y + noise * Noise(8, [0])(y), operator, noise)
    rows = torch.zeros(n, dtype=torch.long)
    with torch.no_grad():
        draws = sampler(prior, one.select(rows), Noise(0, rows, torch.arange(n))).flatten(1)
    found = []
    for V, mean, sd in parts(prior, operator, prior.posterior(one)):
        d = len(V)
        e = (draws @ V.T - mean) / sd
        m, C = e.mean(0), e.T.cov().reshape(d, d)
        size = C.square().sum()
        error = m.square().mean() - C.trace() / (n * d) if d else None
        error_sd = (4 * m @ C @ m / (n * d**2) + 2 * size / (n * d) ** 2).sqrt() if d else None
        found.append((error, error_sd, C.trace() / d, (2 * size / n).sqrt() / d) if d else None)
    return found


# Sampler, prior, operator, then (error, ratio) of the seen and of the unseen part.
KNOWN_ERRORS = [
    (PiGDM(), "independent", "inpaint", (0.11, 0.93), (0.00, 0.93)),
    (PiGDM(), "independent", "super-resolution", (0.01, 0.92), (0.00, 0.92)),
    (PiGDM(), "independent", "circular blur", (0.04, 0.93), None),
    (PiGDM(), "correlated", "inpaint", (0.23, 0.97), (0.21, 0.93)),
    (PiGDM(), "correlated", "super-resolution", (0.16, 0.84), (0.00, 0.90)),
    (PiGDM(), "correlated", "circular blur", (0.07, 0.89), None),
    (TMPD(), "independent", "inpaint", (0.00, 0.93), (0.00, 0.93)),
    (TMPD(), "independent", "super-resolution", (0.14, 0.92), (0.01, 0.92)),
    (TMPD(), "independent", "circular blur", (0.20, 0.91), None),
    (TMPD(), "correlated", "inpaint", (0.16, 0.86), (0.17, 0.86)),
    (TMPD(), "correlated", "super-resolution", (0.18, 0.82), (0.01, 0.90)),
    (TMPD(), "correlated", "circular blur", (0.14, 0.86), None),
    (DDRM(), "independent", "inpaint", (0.09, 0.24), (0.00, 0.63)),
    (DDRM(), "independent", "super-resolution", (0.32, 0.22), (0.02, 0.63)),
    (DDRM(), "independent", "circular blur", (0.76, 0.26), None),
    (DDRM(), "correlated", "inpaint", (0.28, 0.30), (0.69, 0.80)),
    (DDRM(), "correlated", "super-resolution", (0.37, 0.24), (0.03, 0.60)),
    (DDRM(), "correlated", "circular blur", (0.76, 0.27), None),
    (DDRM(steps=100), "independent", "inpaint", (0.45, 0.07), (0.00, 0.73)),
    (DDNM(), "independent", "inpaint", (0.45, 0.07), (0.00, 0.73)),
    (DDNM(), "independent", "super-resolution", (0.97, 0.08), (0.00, 0.74)),
    (DDNM(), "independent", "circular blur", (1.78, 0.22), None),
    (DDNM(), "correlated", "inpaint", (0.50, 0.09), (0.09, 0.75)),
    (DDNM(), "correlated", "super-resolution", (1.06, 0.09), (0.04, 0.73)),
    (DDNM(), "correlated", "circular blur", (1.81, 0.24), None),
    (RePaint(steps=100, resamplings=1), "independent", "inpaint", (0.00, 0.97), (0.00, 0.92)),
    (RePaint(steps=100, resamplings=1), "correlated", "inpaint", (0.30, 1.09), (0.55, 1.11)),
    (RePaint(resamplings=4), "correlated", "inpaint", (0.07, 0.97), (0.18, 1.06)),
    (REDDiff(steps=100), "independent", "inpaint", (0.67, 0.03), (0.00, 0.32)),
    (REDDiff(steps=100), "independent", "super-resolution", (1.58, 0.02), (0.05, 0.26)),
    (REDDiff(steps=100), "independent", "circular blur", (0.62, 0.21), None),
    (REDDiff(steps=100), "correlated", "inpaint", (0.86, 0.03), (0.16, 0.36)),
    (REDDiff(steps=100), "correlated", "super-resolution", (2.10, 0.02), (0.12, 0.13)),
    (REDDiff(steps=100), "correlated", "circular blur", (0.53, 0.14), None),
    (DAPS(), "independent", "inpaint", (0.02, 1.00), (0.02, 0.99)),
    (DAPS(), "independent", "super-resolution", (0.04, 1.00), (0.01, 0.99)),
    (DAPS(), "independent", "circular blur", (0.02, 0.99), None),
    (DAPS(), "correlated", "inpaint", (0.08, 1.01), (0.14, 1.02)),
    (DAPS(), "correlated", "super-resolution", (0.14, 1.01), (0.04, 1.00)),
    (DAPS(), "correlated", "circular blur", (0.07, 1.00), None),
    (DAPS(steps=50, ode_steps=5), "independent", "inpaint", (0.19, 1.07), (0.00, 1.45)),
    (DAPS(steps=50, ode_steps=5), "correlated", "inpaint", (0.18, 1.13), (0.27, 1.51)),
    (DAPSLangevin(steps=20, iterations=20), "independent", "super-resolution", (0.11, 1.10), (0.01, 1.02)),
    (DAPSLangevin(steps=20, iterations=20), "correlated", "inpaint", (0.35, 1.12), (0.65, 1.22)),
    (DAPSLangevin(steps=20, iterations=20), "correlated", "circular blur", (0.18, 1.10), None),
    (DAPSHMC(steps=20, iterations=15), "independent", "super-resolution", (0.29, 0.94), (0.04, 0.88)),
    (DAPSHMC(steps=20, iterations=15), "correlated", "inpaint", (0.34, 0.94), (0.65, 1.06)),
    (DAPSHMC(steps=20, iterations=15), "correlated", "circular blur", (0.33, 1.02), None),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "inpaint", (0.12, 0.79), (0.02, 0.68)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "super-resolution", (0.11, 0.71), (0.02, 0.69)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "independent", "circular blur", (0.08, 0.69), None),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "inpaint", (0.16, 0.76), (0.18, 0.72)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "super-resolution", (0.10, 0.71), (0.03, 0.69)),
    (SplitGibbs(steps=40, prior_steps=8, decay=0.85), "correlated", "circular blur", (0.06, 0.70), None),
    (
        SplitGibbs(steps=40, prior_steps=8, rho_min=0.6, decay=0.85),
        "independent",
        "inpaint",
        (0.80, 1.21),
        (0.01, 0.66),
    ),
    (SplitGibbs(steps=40, prior_steps=8, rho_min=0.6, decay=0.85), "correlated", "inpaint", (0.76, 1.14), (0.25, 0.75)),
    (SITCOM(iterations=10), "independent", "inpaint", (1.94, 1.31), (0.00, 0.41)),
    (SITCOM(iterations=10), "independent", "super-resolution", (0.72, 0.34), (0.12, 0.42)),
    (SITCOM(iterations=10), "independent", "circular blur", (0.33, 0.44), None),
    (SITCOM(iterations=10), "correlated", "inpaint", (1.85, 1.37), (0.78, 0.63)),
    (SITCOM(iterations=10), "correlated", "super-resolution", (1.18, 0.79), (0.16, 0.36)),
    (SITCOM(iterations=10), "correlated", "circular blur", (0.83, 0.80), None),
]


@pytest.mark.parametrize(("sampler", "prior", "operator", "seen", "unseen"), KNOWN_ERRORS)
def test_sampler_errs_as_known(sampler, prior, operator, seen, unseen):
    """Within 3.3 standard deviations, which chance exceeds once in a thousand, and half a unit of the last digit."""
    for known, found in zip((seen, unseen), errors(sampler, prior, OPERATORS[operator], N)):
        assert (known is None) == (found is None)
        if known is not None:
            square, square_sd, ratio, ratio_sd = found
            lowest, highest = max(known[0] - 0.005, 0) ** 2, (known[0] + 0.005) ** 2
            assert lowest - 3.3 * square_sd < square < highest + 3.3 * square_sd
            assert abs(ratio - known[1]) < 0.005 + 3.3 * ratio_sd


def table(samplers):
    """Print the rows of `KNOWN_ERRORS` of those samplers, of 8 N draws."""
    for sampler in samplers:
        for prior in PRIORS:
            for kind in ("inpaint",) if isinstance(sampler, RePaint) else KINDS:
                found = errors(sampler, prior, OPERATORS[kind], 8 * N)
                figures = [f and f"({max(float(f[0]), 0) ** 0.5:.2f}, {float(f[2]):.2f})" for f in found]
                print(f'    ({sampler}, "{prior}", "{kind}", {figures[0]}, {figures[1]}),', flush=True)


if __name__ == "__main__":
    table(
        [
            PiGDM(),
            TMPD(),
            DDRM(),
            DDRM(steps=100),
            DDNM(),
            RePaint(),
            RePaint(steps=100, resamplings=1),
            RePaint(steps=250, resamplings=4),
            REDDiff(),
            REDDiff(steps=100),
            DAPS(),
            DAPS(steps=50, ode_steps=5),
            DAPSLangevin(steps=20, iterations=20),
            DAPSHMC(steps=20, iterations=15),
            SplitGibbs(),
            SplitGibbs(rho_min=0.6),
            SplitGibbs(steps=40, prior_steps=8, decay=0.85),
            SplitGibbs(steps=40, prior_steps=8, decay=0.85, rho_min=0.6),
            SITCOM(),
            SITCOM(iterations=10),
        ]
    )
