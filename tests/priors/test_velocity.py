"""Velocities of flow matching as priors, against the velocity of Gaussian data in closed form; in float64."""

import math

import numpy as np
import pytest
import torch
from skimage import data
from torch import nn

import genprior
from genprior.checks import UnsupportedError
from genprior.operators import Inpaint, random_mask
from genprior.operators.measurement import Measurement
from genprior.posteriors.exact import posterior_of
from genprior.priors.ddpm import DDPM
from genprior.priors.foreign.velocity import CONVENTIONS, Reading, VelocityPrior
from genprior.priors.gaussian.gaussian import Gaussian

SHAPE = (1, 4, 4)


def read_as(convention):
    """As `from_velocity` reads a model of that convention, on [-1, 1], but without a look at whether it is one."""
    return Reading(*CONVENTIONS[convention], end=1.0, zero=0.5, unit=0.5)


def gaussian(noise=0.0):
    i = torch.arange(16, dtype=torch.float64)
    mean = torch.linspace(0.3, 0.7, 16, dtype=torch.float64).reshape(SHAPE)
    return Gaussian(mean, 0.04 * torch.exp(-(i[:, None] - i).abs() / 3) + noise**2 * torch.eye(16))


class Optimal(nn.Module):
    """E[u - n | z], or its opposite, of Gaussian u, from the joint Gaussian of u - n and z, by linear algebra.

    With a the share of the image in z and b that of the noise, Cov(u - n, z) = a S - b I, Cov z = a^2 S + b^2 I.
    """

    def __init__(self, truth, convention, end=1.0, values=(-1.0, 1.0)):
        super().__init__()
        black, white = values
        self.mean = (black + (white - black) * truth.mean).flatten()
        self.S = (white - black) ** 2 * dense(truth)
        self.convention, self.end = convention, end
        self.heard = []

    def forward(self, z, t):
        assert t.shape == (len(z),)
        self.heard.append(t)
        v = []
        for z_i, time in zip(z.flatten(1), t.double() / self.end):
            a, b = (time, 1 - time) if self.convention == "noise-to-data" else (1 - time, time)
            eye = torch.eye(len(z_i), dtype=torch.float64)
            gain = torch.linalg.solve(a**2 * self.S + b**2 * eye, a * self.S - b * eye)
            v_i = self.mean + gain @ (z_i.double() - a * self.mean)
            v.append(v_i if self.convention == "noise-to-data" else -v_i)
        return torch.stack(v).reshape(z.shape).to(z.dtype)


def dense(truth):
    """Its covariance, from what it makes of noise of sd 1: D(x) = mean + S (S + I)^-1 (x - mean)."""
    eye = torch.eye(16, dtype=torch.float64)
    gain = (truth.denoise(truth.mean + eye.reshape(16, *SHAPE), 1.0) - truth.mean).flatten(1)
    return torch.linalg.solve(eye - gain, gain)


def prior_of(truth, convention, end=1.0, values=(-1.0, 1.0), **options):
    velocity = Optimal(truth, convention, end, values)
    options = {"end": end, "values": values, **options}
    return genprior.from_velocity(velocity, SHAPE, convention=convention, **options)


def noisy(sigma):
    x = gaussian().sample(4, seed=1)
    return x + sigma * torch.randn(x.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


# ---- exact on Gaussian data ----


@pytest.mark.parametrize("values", [(-1.0, 1.0), (0.0, 1.0)])
@pytest.mark.parametrize("end", [1.0, 1000.0])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_denoiser_of_gaussian_data_is_the_posterior_mean(convention, end, values):
    """To rounding: of float64, grown by 1 / (1 - t) of the low levels."""
    prior, truth = prior_of(gaussian(), convention, end, values), gaussian()
    for sigma in (prior.sigma_min, 0.02, 0.3, 2.0, prior.sigma_max):
        torch.testing.assert_close(
            prior.denoise(noisy(sigma), sigma), truth.denoise(noisy(sigma), sigma), atol=1e-9, rtol=0
        )
    levels = torch.tensor([0.01, 0.1, 1.0, 10.0], dtype=torch.float64).reshape(4, 1, 1, 1)
    torch.testing.assert_close(prior.denoise(noisy(1.0), levels), truth.denoise(noisy(1.0), levels), atol=1e-9, rtol=0)


def test_time_runs_to_its_end_as_the_convention_says():
    """At sigma = 0.25, s is 0.5 on [-1, 1], and t = 2 / 3."""
    for convention, end, time in (("noise-to-data", 1.0, 2 / 3), ("data-to-noise", 1000.0, 1000 / 3)):
        prior = prior_of(gaussian(), convention, end)
        prior.denoise(noisy(0.25), 0.25)
        assert prior.velocity.heard[-1].tolist() == pytest.approx([time] * 4)


def test_draws_have_the_law_of_the_data():
    """Of 2000, means within 5 standard errors; the mean variance within 5 sqrt(2 / 2000), and 3 % for the steps."""
    prior, truth = prior_of(gaussian(), "noise-to-data"), gaussian()
    prior.velocity.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # says in which precision to draw
    prior.velocity.forward = batched(prior.velocity)
    x = prior.sample(2000, seed=0)
    assert float((x.mean(0) - truth.mean).abs().max()) < 5 * 0.2 / math.sqrt(2000)
    assert float(x.var(0).mean()) == pytest.approx(0.04, rel=5 * math.sqrt(2 / 2000) + 0.03)
    torch.testing.assert_close(prior.sample(3, seed=0, steps=5)[1:2], prior.sample(2, seed=0, steps=5)[1:])


def batched(optimal):
    """Of one time for all rows, at once."""
    one = type(optimal).forward

    def forward(z, t):
        points = torch.cat([torch.zeros(1, 16), torch.eye(16)]).reshape(17, *SHAPE).to(z)
        at = one(optimal, points, t[:1].expand(17))
        return at[:1] + (z.flatten(1) @ (at[1:] - at[:1]).flatten(1)).reshape(z.shape)

    return forward


def test_density_is_that_of_the_data_within_its_stated_error():
    prior, truth = prior_of(gaussian(), "data-to-noise", spread=0.2), gaussian(noise=0.001)
    x = truth.sample(3, seed=2)
    found = prior.flow_log_prob(x, steps=60, probes=8)
    # the law of x_T: 16 spread^2 / sigma_max^2 is below 1e-3
    assert ((found.value - truth.log_prob(x)).abs() < 5 * found.probe_error + found.step_error + 1e-3).all()


@pytest.mark.parametrize("sampler", ["mmps", "dps", "daps", "diffpir", "probed-covariance", "reddiff", "ddrm"])
def test_samplers_cannot_tell_it_from_the_gaussian(sampler):
    truth = gaussian()
    prior = prior_of(truth, "noise-to-data", sigma_min=truth.sigma_min, sigma_max=truth.sigma_max, spread=truth.spread)
    prior.centre = truth.centre
    A = Inpaint(random_mask(SHAPE[1:], 0.5, 0), SHAPE)
    y = Measurement(A(truth.sample(1, seed=1)), A, 0.05)
    options = {"sampler": sampler, "steps": 5, "n": 2, "seed": 0, "progress": False}
    found, wanted = (genprior.restore(y, prior=p, **options).samples for p in (prior, truth))
    # 5 steps of float32, of numbers of the size of sigma_max, each with a few operations
    torch.testing.assert_close(found, wanted, rtol=0, atol=5 * 4 * truth.sigma_max * 2**-24)


def test_guidance_by_its_measured_covariance_has_the_posterior():
    """`optimal-covariance`, once the covariance was measured: mean and variance of 300 draws of the Gaussian posterior.

    Means within 4 standard errors and 5 % of a standard deviation for the steps; variances within 4 sqrt(2 / 300) and
    10 %.
    """
    truth = gaussian()
    prior = prior_of(truth, "noise-to-data", sigma_min=truth.sigma_min, sigma_max=truth.sigma_max, spread=truth.spread)
    prior.velocity.forward = batched(prior.velocity)
    with pytest.raises(UnsupportedError, match="never measured"):
        prior.posterior_covariance(0.1)
    prior.fit_covariance(truth.sample(2000, seed=3), "full")
    A = Inpaint(random_mask(SHAPE[1:], 0.5, 0), SHAPE)
    y = Measurement(A(truth.sample(1, seed=1)), A, 0.05)
    found = genprior.restore(
        y, prior=prior, sampler="optimal-covariance", steps=40, n=300, seed=0, progress=False
    ).samples
    law = posterior_of(truth, y)
    mean, sd = law.mean[0], law.sample(4000, seed=0).std(0)
    assert float(((found.mean(0) - mean) / sd).abs().max()) < 4 / math.sqrt(300) + 0.05
    assert float((found.var(0) / sd**2).mean()) == pytest.approx(1, rel=4 * math.sqrt(2 / 300) + 0.1)


# ---- the wrong convention ----


def photograph():
    """Crops of a photograph, as a Gaussian: smoother than noise."""
    grey = torch.from_numpy(data.camera().astype(np.float64) / 255)
    crops = grey.unfold(0, 4, 4).unfold(1, 4, 4).reshape(-1, 16)
    return Gaussian(crops.mean(0).reshape(SHAPE), crops.T.cov())


@pytest.mark.parametrize("truth", [gaussian, photograph])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_other_convention_is_no_posterior_mean_and_is_told(convention, truth):
    other = next(c for c in CONVENTIONS if c != convention)
    velocity = Optimal(truth(), convention)
    wrong = VelocityPrior(velocity, SHAPE, read_as(other))
    assert (wrong.denoise(noisy(0.3), 0.3) - truth().denoise(noisy(0.3), 0.3)).abs().max() > 0.1
    with pytest.raises(ValueError, match=f'other convention.*Give convention="{convention}"'):
        genprior.from_velocity(velocity, SHAPE, convention=other)


@pytest.mark.parametrize("truth", [gaussian, photograph])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_half_of_the_other_convention_is_told(convention, truth):
    velocity = Optimal(truth(), convention)
    for wrong in (lambda z, t: -velocity(z, t), lambda z, t: velocity(z, 1 - t)):
        with pytest.raises(ValueError, match="its time or its sign, but not both"):
            genprior.from_velocity(wrong, SHAPE, convention=convention)


@pytest.mark.parametrize(("own", "said"), [(1000.0, 1.0), (1.0, 1000.0)])
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_time_of_another_scale_is_told(convention, own, said):
    """As of networks that look up or clamp their time."""
    velocity = Optimal(gaussian(), convention, own)

    def clamped(z, t):
        return velocity(z, t.clamp(0, own))

    with pytest.raises(ValueError, match=f"give end={own:g}"):
        genprior.from_velocity(clamped, SHAPE, convention=convention, end=said)


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_white_noise_of_unit_variance_is_the_same_either_way(convention):
    """Image and noise then are exchangeable: nothing is wrong, and nothing is said."""
    truth = Gaussian(torch.full(SHAPE, 0.5).double(), torch.full(SHAPE, 0.25).double())
    for said in CONVENTIONS:
        prior = genprior.from_velocity(Optimal(truth, convention), SHAPE, convention=said, spread=0.5)
        torch.testing.assert_close(prior.denoise(noisy(0.3), 0.3), truth.denoise(noisy(0.3), 0.3), atol=1e-9, rtol=0)


def test_velocity_of_a_trained_network_is_taken_as_it_is_and_reversed_is_told():
    """The bundled diffusion of photographs, whose denoiser is a velocity: v = (u_hat - z) / (1 - t)."""
    ddpm = genprior.load_prior("ddpm-photo")
    ddpm.autocast = None

    def velocity(z, t):
        t = t.reshape(-1, 1, 1, 1)
        sigma = 0.5 * (1 - t) / t
        return (2 * ddpm.denoise(0.5 + 0.5 * z / t, sigma) - 1 - z) / (1 - t)

    prior = genprior.from_velocity(velocity, (3, None, None), convention="noise-to-data")
    x_t = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(prior.denoise(x_t, 0.2), ddpm.denoise(x_t, 0.2), atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match='Give convention="noise-to-data"'):
        genprior.from_velocity(velocity, (3, None, None), convention="data-to-noise")


# ---- what is given ----


def test_network_of_half_precision_is_given_that_and_samplers_see_float32():
    network = nn.Conv2d(1, 1, 3, padding=1, dtype=torch.bfloat16)
    prior = VelocityPrior(lambda z, t: network(z), SHAPE, read_as("noise-to-data"))
    prior.network = network
    assert prior.denoise(torch.rand(2, *SHAPE), 0.1).dtype == torch.float32


def test_ddpm_of_flow_matching_is_the_prior_of_its_bare_network():
    """`train ddpm --objective flow-matching`: the network is a velocity of noise to data, told ln s / 4."""
    ddpm = DDPM((1, 8, 8), widths=(8,), prediction="velocity").eval().requires_grad_(False)
    for parameter in ddpm.net.parameters():
        parameter.normal_(std=0.2)

    def velocity(z, t):
        return ddpm.net(z, 0.25 * ((1 - t) / t).log(), None)

    prior = VelocityPrior(velocity, (1, 8, 8), read_as("noise-to-data"))
    x_t = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for sigma in (0.01, 0.3, 5.0):
        torch.testing.assert_close(prior.denoise(x_t, sigma), ddpm.denoise(x_t, sigma), rtol=1e-5, atol=1e-5)


WRONG = {
    "no function": (lambda: genprior.from_velocity(3, SHAPE, convention="noise-to-data"), TypeError, "is a int"),
    "no such convention": (lambda: make(convention="noise"), ValueError, "Unknown convention 'noise'.*data-to-noise"),
    "values": (lambda: make(values=(1, -1)), ValueError, "values is .*such as"),
    "levels": (lambda: make(sigma_min=3.0, sigma_max=2.0), ValueError, "0 < sigma_min < sigma_max"),
    "end": (lambda: make(end=0), ValueError, "end is 0: give a positive number"),
    "spread": (lambda: make(spread=0), ValueError, "spread is 0: give a positive number"),
    "shape": (lambda: make(image_shape=(8, 8)), ValueError, "image_shape is .*give"),
    "no tensor": (
        lambda: make(velocity=lambda z, t: [z]),
        TypeError,
        r"made a list.*\.sample for a model of diffusers",
    ),
    "another shape": (lambda: make(velocity=lambda z, t: z[:, :, 1:]), ValueError, "has to be as they are"),
}


def make(velocity=lambda z, t: -z, image_shape=SHAPE, convention="noise-to-data", **options):
    return genprior.from_velocity(velocity, image_shape, convention=convention, **options)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_velocity_is_one_clear_error(name):
    given, kind, message = WRONG[name]
    with pytest.raises(kind, match=message):
        given()


def test_convention_has_to_be_said():
    with pytest.raises(TypeError, match="convention"):
        genprior.from_velocity(lambda z, t: z, SHAPE)
