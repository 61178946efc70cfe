"""Samplers against the exact posterior of Gaussian priors, 8 x 8, for every operator.

The figures, and their standard errors, are those of `genprior.truth.gaussian`; 3.3 of them, which chance exceeds once
in a thousand, bound each.
"""

import math

import pytest
import torch
from test_diffusion_sampler_errors import strays

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.posteriors.exact import posterior_of
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.mixture import GaussianMixture
from genprior.samplers.annealing.dpir import DPIR
from genprior.samplers.exact import Exact, ExactMean
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.guidance.probed_covariance import ProbedCovariance
from genprior.truth.gaussian import PRIORS, SHAPE, correlated, independent, judge, moments, operators

N = 1000  # draws of an exact method
FEWER = 250  # of an approximate one, whose figures are pinned to their own standard errors
OPERATORS = operators()


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_exact_draws_match_the_gaussian_posterior(prior, operator):
    operator = OPERATORS[operator]
    judged = judge(Exact(), PRIORS[prior](operator.image_shape), operator, N)
    for part in filter(None, (judged.seen, judged.unseen)):
        assert not strays(part, (0.0, 1.0))
        # the pin is no wider than what one direction would give
        assert part.error.value < 3.3 / math.sqrt(N)
        assert abs(part.ratio.value - 1) < 3.3 * math.sqrt(2 / N)


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("prior", PRIORS)
def test_exact_mean_is_the_mean_whoever_asks(prior, operator):
    """In closed form, for every chain of every image, whatever its noise."""
    A = OPERATORS[operator]
    prior = PRIORS[prior](A.image_shape)
    y = A(prior.sample(2, seed=1))
    y = (y + 0.1 * Noise(2, [0, 1])(y))[torch.tensor([0, 1, 0])]
    x = ExactMean()(prior, Measurement(y, A, 0.1), Noise(7, [0, 1, 0], [0, 0, 1]))
    for i in range(2):
        wanted = moments(posterior_of(prior, Measurement(y[i : i + 1], A, 0.1)))[0]
        torch.testing.assert_close(x[i].flatten(), wanted.flatten(), rtol=0, atol=1e-9)
    assert torch.equal(x[2], x[0])
    again = ExactMean()(prior, Measurement(y, A, 0.1), Noise(8, [5, 6, 5], [3, 4, 5]))
    assert torch.equal(again, x)


def test_exact_mean_of_a_mixture_is_that_of_all_components():
    """Two far from each other, of which y = 0.2 between them leaves both: its mean, not that of the likelier one."""
    means, variance, noise, y = torch.tensor([-1.0, 1.5], dtype=torch.float64), 0.09, 0.5, 0.2
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    prior = GaussianMixture(weights, means.reshape(2, 1, 1, 1), torch.full((1, 1, 1), variance, dtype=torch.float64))
    x = torch.linspace(-4, 4, 20001, dtype=torch.float64)
    density = (weights * torch.exp(-((x[:, None] - means) ** 2) / (2 * variance))).sum(1)
    density = density * torch.exp(-((y - x) ** 2) / (2 * noise**2))
    wanted = (x * density).sum() / density.sum()
    measured = Measurement(torch.full((1, 1, 1, 1), y, dtype=torch.float64), Denoise((1, 1, 1)), noise)
    found = ExactMean()(prior, measured, Noise(0, [0]))
    assert float(found) == pytest.approx(float(wanted), abs=1e-9)


@pytest.mark.parametrize(("steps", "known"), [(120, 0.94), (480, 1.0)])
def test_mmps_variance_converges_in_steps(steps, known):
    """Independent pixels, 32 seen and 32 not: the ratio has sd sqrt(2 / (32 n)), and 3.3 of it are 0.026 for n = 1000.

    The ancestral steps leave an error of first order in the step: there at 120, within Monte-Carlo error gone at 480.
    """
    judged = judge(MMPS(steps=steps, iterations=8, integrator="ancestral"), independent(SHAPE), OPERATORS["inpaint"])
    for part in (judged.seen, judged.unseen):
        assert abs(part.ratio.value - known) < 3.3 * math.sqrt(2 / (32 * N))


@pytest.mark.parametrize(
    ("sampler", "least", "most"),
    [(OptimalCovariance(steps=40, iterations=40), 0.99, 1.01), (OptimalCovariance(), 0.98, 1.01)],
)
@pytest.mark.parametrize("operator", ["inpaint", "super-resolution"])
def test_few_steps_of_optimal_covariance_keep_the_variance(operator, sampler, least, most):
    """By the second order of its steps, where 120 ancestral ones of MMPS lose 7 % (below); measured on 4000 draws."""
    operator = OPERATORS[operator]
    judged = judge(sampler, correlated(operator.image_shape), operator, N)
    for part in (judged.seen, judged.unseen):
        assert least - 3.3 * part.ratio.error < part.ratio.value < most + 3.3 * part.ratio.error
        assert part.square.value < 0.03**2 + 3.3 * part.square.error


# (error, ratio) of the seen and of the unseen part, measured on 1000 to 4000 draws by `judge` itself.
# MMPS is exact up to its steps, which lose 5 to 8 % of the variance. DiffPIR's means are near, its variances half of
# what they should be. DPS all but ignores the noise where A sees. OptimalCovariance is exact up to its steps and its
# iterations; what ProbedCovariance errs, its bands do, of 8 x 8 pixels that are not all alike.
ANCESTRAL = MMPS(steps=120, iterations=8, integrator="ancestral")
KNOWN_ERRORS = [
    (ANCESTRAL, "independent", "inpaint", (0.00, 0.93), (0.01, 0.95)),
    (ANCESTRAL, "independent", "super-resolution", (0.01, 0.95), (0.00, 0.94)),
    (ANCESTRAL, "independent", "circular blur", (0.00, 0.94), None),
    (ANCESTRAL, "independent", "valid blur", (0.01, 0.95), (0.00, 0.94)),
    (ANCESTRAL, "independent", "colorize", (0.00, 0.94), (0.00, 0.94)),
    (ANCESTRAL, "independent", "denoise", (0.00, 0.94), None),
    (ANCESTRAL, "independent", "matrix", (0.00, 0.93), (0.00, 0.95)),
    (ANCESTRAL, "correlated", "inpaint", (0.02, 0.92), (0.00, 0.93)),
    (ANCESTRAL, "correlated", "super-resolution", (0.01, 0.92), (0.00, 0.92)),
    (ANCESTRAL, "correlated", "circular blur", (0.00, 0.92), None),
    (ANCESTRAL, "correlated", "valid blur", (0.01, 0.93), (0.00, 0.92)),
    (ANCESTRAL, "correlated", "colorize", (0.00, 0.92), (0.00, 0.93)),
    (ANCESTRAL, "correlated", "denoise", (0.01, 0.92), None),
    (ANCESTRAL, "correlated", "matrix", (0.00, 0.92), (0.00, 0.94)),
    (DiffPIR(), "independent", "inpaint", (0.03, 0.45), (0.01, 0.46)),
    (DiffPIR(), "independent", "super-resolution", (0.11, 0.44), (0.01, 0.46)),
    (DiffPIR(), "independent", "circular blur", (0.07, 0.46), None),
    (DiffPIR(), "independent", "valid blur", (0.1, 0.45), (0.02, 0.47)),
    (DiffPIR(), "independent", "colorize", (0.04, 0.45), (0.02, 0.46)),
    (DiffPIR(), "independent", "denoise", (0.03, 0.45), None),
    (DiffPIR(), "independent", "matrix", (0.04, 0.45), (0.04, 0.46)),
    (DiffPIR(), "correlated", "inpaint", (0.07, 0.45), (0.15, 0.5)),
    (DiffPIR(), "correlated", "super-resolution", (0.12, 0.44), (0.01, 0.46)),
    (DiffPIR(), "correlated", "circular blur", (0.06, 0.46), None),
    (DiffPIR(), "correlated", "valid blur", (0.1, 0.45), (0.06, 0.47)),
    (DiffPIR(), "correlated", "colorize", (0.04, 0.44), (0.06, 0.47)),
    (DiffPIR(), "correlated", "denoise", (0.07, 0.44), None),
    (DiffPIR(), "correlated", "matrix", (0.16, 0.45), (0.32, 0.52)),
    (OptimalCovariance(steps=40, iterations=40), "independent", "inpaint", (0.00, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "independent", "super-resolution", (0.00, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "independent", "circular blur", (0.00, 1.00), None),
    (OptimalCovariance(steps=40, iterations=40), "independent", "valid blur", (0.00, 1.00), (0.00, 1.01)),
    (OptimalCovariance(steps=40, iterations=40), "independent", "colorize", (0.01, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "independent", "denoise", (0.00, 1.00), None),
    (OptimalCovariance(steps=40, iterations=40), "independent", "matrix", (0.02, 1.00), (0.00, 1.01)),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "inpaint", (0.01, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "super-resolution", (0.01, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "circular blur", (0.00, 1.00), None),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "valid blur", (0.00, 1.00), (0.00, 1.01)),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "colorize", (0.01, 1.00), (0.00, 1.00)),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "denoise", (0.00, 1.00), None),
    (OptimalCovariance(steps=40, iterations=40), "correlated", "matrix", (0.02, 1.00), (0.00, 1.01)),
    (OptimalCovariance(), "independent", "inpaint", (0.01, 0.99), (0.00, 1.00)),
    (OptimalCovariance(), "independent", "super-resolution", (0.00, 0.99), (0.00, 1.00)),
    (OptimalCovariance(), "independent", "circular blur", (0.01, 1.00), None),
    (OptimalCovariance(), "independent", "valid blur", (0.02, 1.00), (0.01, 1.00)),
    (OptimalCovariance(), "independent", "colorize", (0.00, 1.00), (0.00, 0.99)),
    (OptimalCovariance(), "independent", "denoise", (0.00, 1.00), None),
    (OptimalCovariance(), "independent", "matrix", (0.07, 1.01), (0.02, 1.00)),
    (OptimalCovariance(), "correlated", "inpaint", (0.01, 0.99), (0.00, 1.00)),
    (OptimalCovariance(), "correlated", "super-resolution", (0.00, 0.98), (0.01, 0.99)),
    (OptimalCovariance(), "correlated", "circular blur", (0.02, 0.99), None),
    (OptimalCovariance(), "correlated", "valid blur", (0.03, 0.99), (0.02, 0.99)),
    (OptimalCovariance(), "correlated", "colorize", (0.00, 0.98), (0.01, 0.98)),
    (OptimalCovariance(), "correlated", "denoise", (0.00, 0.99), None),
    (OptimalCovariance(), "correlated", "matrix", (0.07, 1.00), (0.05, 1.01)),
    (MMPS(iterations=8), "independent", "inpaint", (0.00, 1.00), (0.00, 1.00)),
    (MMPS(iterations=8), "correlated", "super-resolution", (0.01, 1.00), (0.00, 1.00)),
    (MMPS(iterations=8), "correlated", "valid blur", (0.01, 1.00), (0.00, 1.01)),
    (MMPS(iterations=8), "correlated", "colorize", (0.01, 1.00), (0.00, 1.00)),
    (ProbedCovariance(), "independent", "inpaint", (0.05, 1.00), (0.08, 1.00)),
    (ProbedCovariance(), "independent", "valid blur", (0.06, 1.00), (0.03, 1.00)),
    (ProbedCovariance(), "correlated", "inpaint", (0.08, 1.01), (0.14, 1.07)),
    (ProbedCovariance(), "correlated", "super-resolution", (0.09, 1.04), (0.07, 1.00)),
    (ProbedCovariance(), "correlated", "circular blur", (0.07, 1.01), None),
    (ProbedCovariance(), "correlated", "valid blur", (0.07, 1.01), (0.11, 1.03)),
    (ProbedCovariance(), "correlated", "colorize", (0.07, 0.99), (0.03, 0.96)),
    (ProbedCovariance(), "correlated", "denoise", (0.06, 0.99), None),
    (ProbedCovariance(), "correlated", "matrix", (0.16, 1.03), (0.24, 1.09)),
    (DPS(steps=250), "independent", "inpaint", (0.65, 0.02), (0.0, 0.96)),
    (DPS(steps=250), "independent", "super-resolution", (1.53, 0.01), (0.05, 0.96)),
    (DPS(steps=250), "independent", "circular blur", (0.37, 0.76), None),
    (DPS(steps=250), "correlated", "inpaint", (0.82, 0.03), (0.27, 0.77)),
    (DPS(steps=250), "correlated", "super-resolution", (1.34, 0.11), (0.08, 0.91)),
    (DPS(steps=250), "correlated", "circular blur", (0.21, 0.75), None),
    (DPS(steps=250), "independent", "valid blur", (0.66, 0.35), (0.03, 0.96)),
    (DPS(steps=250), "independent", "colorize", (0.62, 0.0), (0.05, 0.95)),
    (DPS(steps=250), "independent", "denoise", (0.57, 0.01), None),
    (DPS(steps=250), "independent", "matrix", (0.82, 0.14), (0.13, 0.94)),
    (DPS(steps=250), "correlated", "valid blur", (0.58, 0.43), (0.16, 0.87)),
    (DPS(steps=250), "correlated", "colorize", (0.73, 0.01), (0.17, 0.82)),
    (DPS(steps=250), "correlated", "denoise", (0.87, 0.02), None),
    (DPS(steps=250), "correlated", "matrix", (1.08, 0.14), (0.3, 0.79)),
    (DPS(), "correlated", "inpaint", (0.82, 0.03), (0.55, 0.78)),
]


@pytest.mark.parametrize(("sampler", "prior", "operator", "seen", "unseen"), KNOWN_ERRORS)
def test_approximate_sampler_errs_as_known(sampler, prior, operator, seen, unseen):
    # To tell a hundredth of the variance, spread over few directions, from two takes more draws.
    n = N if isinstance(sampler, DPS) and operator in ("super-resolution", "colorize") else FEWER
    operator = OPERATORS[operator]
    judged = judge(sampler, PRIORS[prior](operator.image_shape), operator, n)
    for known, part in zip((seen, unseen), (judged.seen, judged.unseen)):
        assert (known is None) == (part is None)
        assert known is None or not strays(part, known)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(
    "sampler",
    [DiffPIR(), MMPS(steps=20), MMPS(steps=20, start=4.0), DPIR(), OptimalCovariance(steps=5), ExactMean()],
)
def test_units_do_not_matter(sampler, scale):
    """A prior and a measurement in other units give the same draws in those units."""
    operator = OPERATORS["inpaint"]
    one = independent(SHAPE)
    other = Gaussian(scale * one.mean, scale**2 * one.covariance.eigenvalues)
    y = operator(one.sample(4, seed=1))
    draws = sampler(one, Measurement(y, operator, 0.05), Noise(0, range(4)))
    scaled = sampler(other, Measurement(scale * y, operator, scale * 0.05), Noise(0, range(4)))
    assert torch.allclose(scaled / scale, draws, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: DPS(zeta=-1),
        lambda: DPS(steps=0),
        lambda: DiffPIR(eta=1.5),
        lambda: DiffPIR(weight=0),
        lambda: MMPS(iterations=0),
        lambda: MMPS(eta=2),
        lambda: OptimalCovariance(iterations=0),
        lambda: OptimalCovariance(steps=0),
        lambda: DPIR(steps=0),
        lambda: DPIR(weight=0),
        lambda: DPIR(first=-1),
        lambda: DiffPIR(start=1e-6)(
            independent(SHAPE), Measurement(torch.zeros(1, *SHAPE), Denoise(SHAPE), 0.1), Noise(0, [0])
        ),
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"zeta|steps|weight|iterations|eta|start|first"):
        wrong()


def test_exact_measurement_is_kept():
    """noise = 0 divides by nothing: where A sees, the draws are y."""
    operator = OPERATORS["inpaint"]
    x = correlated(SHAPE).sample(2, seed=1)
    for sampler in (DiffPIR(), MMPS(steps=30), Exact(), ExactMean(), DPIR(), OptimalCovariance()):
        draws = sampler(correlated(SHAPE), Measurement(operator(x), operator, 0.0), Noise(0, [0, 1]))
        # a fifth of sigma_min is taken for noise, and sigma_min is the last level
        assert (operator(draws) - operator(x)).abs().max() < 5 * correlated(SHAPE).sigma_min


def test_image_of_a_batch_does_not_depend_on_its_company():
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    operator = Inpaint(masks, SHAPE)
    prior = correlated(SHAPE)
    noise = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(operator(prior.sample(3, seed=1)), operator, noise)
    for sampler in (
        DPS(steps=20), DiffPIR(steps=10), MMPS(steps=10), Exact(), ExactMean(), DPIR(), OptimalCovariance(steps=10)
    ):  # fmt: skip
        together = sampler(prior, measurement, Noise(0, [0, 1, 2]))
        for i in range(3):
            alone = sampler(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
            assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)


def table(samplers):
    """Print, for each sampler, the range over priors and operators of both figures, where A sees and where not."""
    print("| sampler | error, seen | ratio, seen | error, unseen | ratio, unseen |\n|---|---|---|---|---|")
    for name, sampler in samplers.items():
        parts = ([], [])
        for prior in PRIORS.values():
            for operator in OPERATORS.values():
                judged = judge(sampler, prior(operator.image_shape), operator)
                for figures, part in zip(parts, (judged.seen, judged.unseen)):
                    figures.extend([(part.error.value, part.ratio.value)] if part else [])
        columns = [values for part in parts for values in zip(*part)]
        cells = [f"{min(values):.2f} - {max(values):.2f}" for values in columns]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    table(
        {
            "exact": Exact(),
            "mmps, 8 iterations": MMPS(iterations=8),
            "diffpir": DiffPIR(),
            "optimal-covariance": OptimalCovariance(),
            "optimal-covariance, 40 steps, 40 iterations": OptimalCovariance(steps=40, iterations=40),
            "dps, 250 steps": DPS(steps=250),
        }
    )
