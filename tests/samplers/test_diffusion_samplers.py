"""Samplers for diffusion priors: what holds of them exactly, or at any number of steps."""

import math

import pytest
import torch
from quick import DIFFUSION, quick

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Inpaint, Measurement, random_mask
from genprior.priors.base import Prior
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.annealing.daps import DAPS, DAPSHMC, DAPSLangevin
from genprior.samplers.annealing.ddnm import DDNM
from genprior.samplers.annealing.ddrm import DDRM, spectral_step
from genprior.samplers.annealing.gibbs import SplitGibbs, gaussian_draw
from genprior.samplers.annealing.reddiff import REDDiff
from genprior.samplers.annealing.repaint import RePaint
from genprior.samplers.annealing.sitcom import SITCOM
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.guidance.pigdm import PiGDM, pseudo_inverse
from genprior.samplers.guidance.tmpd import TMPD, row_sums
from genprior.truth.gaussian import PRIORS, SHAPE, correlated, independent, judge, operators

OPERATORS = operators()
# Every sampler at the least cost at which each of its parts is at work: for what must hold at any number of steps.
QUICK = {
    "pigdm": PiGDM(steps=8),
    "tmpd": TMPD(steps=8),
    "ddrm": DDRM(steps=8),
    "ddnm": DDNM(steps=8, travel=2, repeats=2),
    "repaint": RePaint(steps=8, jump=3, resamplings=2),
    "reddiff": REDDiff(steps=8),
    "daps": DAPS(steps=4, ode_steps=2),
    "daps-langevin": DAPSLangevin(steps=4, iterations=4),
    "daps-hmc": DAPSHMC(steps=4, iterations=4),
    "gibbs": SplitGibbs(steps=4, prior_steps=4),
    "sitcom": SITCOM(steps=4, iterations=6, rate=0.1),
}
BY_SVD = ("ddrm", "ddnm", "repaint")
MASKS_ONLY = ("repaint",)


def takes(name, operator):
    """Whether the sampler works with that operator of `OPERATORS`."""
    if name in MASKS_ONLY:
        return operator in ("inpaint", "denoise")
    return name not in BY_SVD or operator != "valid blur"


def white(shape=SHAPE):
    return Gaussian(torch.full(shape, 0.5, dtype=torch.float64), torch.full(shape, 0.06, dtype=torch.float64))


def dense(operator):
    size = math.prod(operator.image_shape)
    return operator(torch.eye(size, dtype=torch.float64).reshape(size, *operator.image_shape)).flatten(1).T


def expectation_given_both(prior, measurement, x_t, sigma):
    """E[x | x_t, y] of a Gaussian prior, (B, C, H, W), from its normal equations."""
    eye = torch.eye(x_t[0].numel(), dtype=torch.float64)
    S = prior.covariance.filter(eye.reshape(-1, *prior.image_shape), prior.covariance.eigenvalues).flatten(1)
    A = dense(measurement.operator)
    precision = torch.linalg.inv(S) + eye / sigma**2 + A.T @ A / measurement.noise**2
    rest = x_t.flatten(1) - prior.mean.flatten()
    residual = measurement.y.flatten(1) - prior.mean.flatten() @ A.T
    shift = rest / sigma**2 + residual @ A / measurement.noise**2
    return prior.mean + torch.linalg.solve(precision, shift.T).T.reshape(x_t.shape)


def measured(prior, operator, noise=0.1, n=3):
    y = operator(prior.sample(n, seed=1))
    return Measurement(y + noise * Noise(2, range(n))(y), operator, noise)


@pytest.mark.parametrize("sigma", [0.02, 0.3, 3.0])
@pytest.mark.parametrize("operator", OPERATORS)
def test_pigdm_guidance_is_exact_for_white_priors(operator, sigma):
    """To rounding; the valid blur solves by conjugate gradients, to 1e-4 (see `Blur`), of a shift of about 1."""
    operator, tolerance = OPERATORS[operator], 1e-4 if operator == "valid blur" else 1e-9
    prior = white(operator.image_shape)
    one = measured(prior, operator)
    x_t = prior.sample(3, seed=1) + sigma * Noise(3, range(3))(prior.sample(3))
    x_hat, g = pseudo_inverse(prior.denoise, one, prior.spread)(x_t, sigma)
    assert torch.allclose(x_hat + sigma**2 * g, expectation_given_both(prior, one, x_t, sigma), rtol=0, atol=tolerance)


@pytest.mark.parametrize(("prior", "operator", "exact"), [
    ("independent", "inpaint", True),
    ("independent", "denoise", True),
    ("correlated", "inpaint", False),
    ("independent", "matrix", False),
])  # fmt: skip
def test_tmpd_guidance_is_exact_where_the_covariance_of_y_is_diagonal(prior, operator, exact):
    """And nowhere else: there it errs by more than a hundredth of the prior's spread."""
    prior, operator = PRIORS[prior](SHAPE), OPERATORS[operator]
    one = measured(prior, operator)
    x_t = prior.sample(3, seed=1) + 0.3 * Noise(3, range(3))(prior.sample(3))
    error = (row_sums(prior.denoise, one)(x_t, 0.3) - expectation_given_both(prior, one, x_t, 0.3)).abs().max()
    assert error < 1e-9 if exact else error > 0.01 * prior.spread


@pytest.mark.parametrize("operator", ["inpaint", "super-resolution", "circular blur", "colorize", "matrix"])
def test_gaussian_draw_has_the_mean_and_covariance_of_the_product(operator):
    """A draw is affine in its two noises: its matrix, column by column, gives its covariance, to rounding."""
    operator = OPERATORS[operator]
    D, m = math.prod(operator.image_shape), math.prod(operator.measurement_shape)
    mean, y = white(operator.image_shape).sample(1), torch.randn(1, *operator.measurement_shape, dtype=torch.float64)

    class Columns:
        """Noise whose rows are the unit vectors of both noises together, and one row of zeros."""

        def __init__(self):
            first = torch.cat([torch.eye(D), torch.zeros(m + 1, D)]).double()
            second = torch.cat([torch.zeros(D, m), torch.eye(m), torch.zeros(1, m)]).double()
            self.parts = iter((first, second))

        def __call__(self, like):
            return next(self.parts).reshape(like.shape)

    rows = torch.zeros(D + m + 1, dtype=torch.long)
    draws = gaussian_draw(Measurement(y, operator, 0.1).select(rows), mean[rows], 0.2, Columns()).flatten(1)
    matrix = (draws[:-1] - draws[-1]).T
    A = dense(operator)
    covariance = torch.linalg.inv(torch.eye(D, dtype=torch.float64) / 0.2**2 + A.T @ A / 0.1**2)
    centre = covariance @ (mean.flatten() / 0.2**2 + A.T @ y.flatten() / 0.1**2)
    assert torch.allclose(matrix @ matrix.T, covariance, rtol=0, atol=1e-12)
    assert torch.allclose(draws[-1], centre, rtol=0, atol=1e-10)


@pytest.mark.parametrize("operator", ["inpaint", "super-resolution", "circular blur", "valid blur"])
def test_daps_is_exact_for_white_priors_in_a_few_steps(operator):
    """Each level is a draw from p(x_t | y), whatever the level before: 1500 draws, 3.3 standard deviations."""
    n, operator = 1500, OPERATORS[operator]
    judged = judge(DAPS(steps=4), white(operator.image_shape), operator, n=n)
    for part in filter(None, (judged.seen, judged.unseen)):
        assert part.error.value < 3.3 / math.sqrt(n)
        assert abs(part.ratio.value - 1) < 3.3 * math.sqrt(2 / n)


@pytest.mark.parametrize("eta_b", [1.0, 0.6])
@pytest.mark.parametrize("sigma_next", [0.02, 0.3, 2.0])
@pytest.mark.parametrize("operator", ["inpaint", "super-resolution", "circular blur", "colorize", "matrix"])
def test_spectral_step_keeps_the_level_of_the_noise(operator, sigma_next, eta_b):
    """Were x_hat the truth, x' = x + sigma' n: in each coordinate with its own noise, in none of them with another's.

    x' is then affine in three noises, those of y, of x_t and of the step: their matrices, column by column, give its
    covariance sigma'^2 I, to rounding. A factor sqrt(2) between transforms would show as one of 2.
    """
    operator = OPERATORS[operator]
    sigma, level, D, m = 2.5, 0.1, math.prod(operator.image_shape), math.prod(operator.measurement_shape)
    x = white(operator.image_shape).sample(1)
    size = 2 * D + m
    units = torch.eye(size, dtype=torch.float64)
    of_y, of_x_t, of_step = (part.reshape(size, *shape) for part, shape in zip(
        units.split([m, D, D], dim=1),
        (operator.measurement_shape, operator.image_shape, operator.image_shape),
    ))  # fmt: skip
    rows = torch.zeros(size, dtype=torch.long)
    measurement = Measurement((operator(x)[rows] + level * of_y), operator, level)
    step = spectral_step(operator.svd(), measurement, lambda like: of_step, 0.85, eta_b, 0.85)
    matrix = (step(x[rows] + sigma * of_x_t, x[rows], sigma, sigma_next) - x).flatten(1).T
    expected = sigma_next**2 * torch.eye(D, dtype=torch.float64)
    assert torch.allclose(matrix @ matrix.T, expected, rtol=0, atol=1e-9)


def test_sitcom_stops_at_the_noise():
    """Fitted for long, |y - A x|^2 falls to noise^2 times the 32 values seen, and by a last step of Adam below it."""
    operator, prior = OPERATORS["inpaint"], independent(SHAPE)
    measurement = measured(prior, operator)
    x = SITCOM(steps=3, iterations=80, rate=0.02, weight=0)(prior, measurement, Noise(0, range(3)))
    misfit = operator(measurement.y - x).square().sum((1, 2, 3)) / (32 * 0.1**2)
    assert (misfit <= 1).all()
    assert (misfit > 0.8).all()


class Counted(Prior):
    """A prior that counts the calls of its denoiser and the passes back through it."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.forward_passes, self.backward_passes = prior, 0, 0
        for name in ("image_shape", "centre", "spread", "sigma_min", "sigma_max"):
            setattr(self, name, getattr(prior, name))

    def denoise(self, x_t, sigma):
        self.forward_passes += 1
        x_hat = self.prior.denoise(x_t, sigma)
        if x_hat.requires_grad:
            x_hat.register_hook(self._passed_back)
        return x_hat

    def _passed_back(self, gradient):
        self.backward_passes += 1


@pytest.mark.parametrize("name", QUICK)
def test_calls_and_evaluations_are_what_is_done(name):
    prior = Counted(independent(SHAPE))
    QUICK[name](prior, measured(independent(SHAPE), OPERATORS["inpaint"]), Noise(0, range(3)))
    assert QUICK[name].calls == prior.forward_passes
    assert QUICK[name].evaluations == prior.forward_passes + prior.backward_passes


@pytest.mark.parametrize("name", QUICK)
def test_image_of_a_batch_does_not_depend_on_its_company(name):
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    operator, prior = Inpaint(masks, SHAPE), correlated(SHAPE)
    noise = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(operator(prior.sample(3, seed=1)), operator, noise)
    together = QUICK[name](prior, measurement, Noise(0, [0, 1, 2]))
    for i in range(3):
        alone = QUICK[name](prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
        assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)


@pytest.mark.parametrize("blurred", [False, True])
@pytest.mark.parametrize("name", DIFFUSION)
def test_what_y_holds_under_the_holes_means_nothing(name, blurred):
    """Of a blur that is then masked, conjugate gradients solve what a mask alone has in closed form."""
    mask, prior = OPERATORS["inpaint"], correlated(SHAPE)
    operator = mask @ OPERATORS["circular blur"] if blurred else mask
    y = operator(prior.sample(3, seed=1))
    filled = torch.where(mask.mask, 7.0, y)
    try:
        draws = [quick(name)(prior, Measurement(each, operator, 0.1), Noise(0, range(3))) for each in (y, filled)]
    except UnsupportedError:
        assert blurred
        assert quick(name).needs_operator
        return
    assert torch.allclose(*draws, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1e-3, 1e3])
@pytest.mark.parametrize("name", QUICK)
def test_units_do_not_matter(name, scale):
    """A prior and a measurement in other units give the same draws in those units."""
    operator, one = OPERATORS["inpaint"], independent(SHAPE)
    other = Gaussian(scale * one.mean, scale**2 * one.covariance.eigenvalues)
    y = operator(one.sample(4, seed=1))
    draws = QUICK[name](one, Measurement(y, operator, 0.05), Noise(0, range(4)))
    scaled = QUICK[name](other, Measurement(scale * y, operator, scale * 0.05), Noise(0, range(4)))
    assert torch.allclose(scaled / scale, draws, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", QUICK)
def test_any_noise_and_operator_gives_draws_in_the_range_of_the_images(name):
    """Noise from none to four spreads, few steps: within 12 spreads of the centre, y's largest noise; no blow-up."""
    for kind, operator in OPERATORS.items():
        if not takes(name, kind):
            continue
        prior = correlated(operator.image_shape)
        y = operator(prior.sample(4, seed=1))
        noise = torch.tensor([0.0, 0.01, 0.1, 1.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
        y = y + noise * Noise(2, range(4))(y)
        draws = QUICK[name](prior, Measurement(y, operator, noise), Noise(0, range(4)))
        assert torch.isfinite(draws).all()
        assert (draws - prior.centre).abs().max() < 12 * prior.spread, kind


@pytest.mark.parametrize("name", BY_SVD)
@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_that_a_sampler_cannot_take_are_refused(name, kind):
    operator = OPERATORS[kind]
    measurement = Measurement(torch.zeros(1, *operator.measurement_shape, dtype=torch.float64), operator, 0.1)
    if takes(name, kind):
        QUICK[name](independent(operator.image_shape), measurement, Noise(0, [0]))
    else:
        with pytest.raises(UnsupportedError, match=r"SVD in closed form|singular values 0 and 1"):
            QUICK[name](independent(operator.image_shape), measurement, Noise(0, [0]))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: PiGDM(eta=2),
        lambda: TMPD(eta=-1),
        lambda: DDRM(eta_b=1.5),
        lambda: DDNM(repeats=0),
        lambda: RePaint(jump=0),
        lambda: RePaint(resamplings=0.5),
        lambda: REDDiff(rate=0),
        lambda: DAPS(ode_steps=0),
        lambda: DAPSLangevin(step=2),
        lambda: DAPSHMC(momentum=1),
        lambda: SplitGibbs(decay=1.1),
        lambda: SplitGibbs(rho_min=0),
        lambda: SITCOM(iterations=0),
        lambda: SITCOM(steps=0),
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=r"eta|repeats|jump|resamplings|rate|step|momentum|decay|rho|iterations"):
        wrong()


class Repelling(Prior):
    """No denoiser of any law: its Jacobian is negative, where sigma^2 times it is a covariance."""

    image_shape, centre, spread, sigma_min, sigma_max = (1, 4, 4), 0.5, 0.3, 0.01, 10.0

    def denoise(self, x_t, sigma):
        return 0.5 - 0.1 * (x_t - 0.5)


def test_mmps_leaves_the_denoised_image_where_its_covariance_is_none():
    A = Inpaint(random_mask((1, 4, 4), 0.5), (1, 4, 4))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    guided = MMPS().guided(Repelling(), Measurement(A(x), A, 0.05))
    assert torch.equal(guided(x, 2.0), Repelling().denoise(x, 2.0))
