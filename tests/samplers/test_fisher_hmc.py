"""FisherHMC against the exact posterior of linear decoders, with figures and tolerances of `linear.py`."""

import pytest
import torch
from linear import NOISE, OPERATORS, LinearDecoder, deviations, draw, measure

import genprior
from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, PhaseRetrieval
from genprior.priors.base import Prior
from genprior.priors.flow import Flow
from genprior.samplers import automatic
from genprior.samplers.latents.fisher_hmc import FisherHMC, begin, information_metric
from genprior.scores.metrics import psnr


class Stretch(Prior):
    """x = scale z, as many latents as values: the posterior of each is a Gaussian of its own."""

    centre, spread, decoder_variance = 0.0, 1.0, 0.0

    def __init__(self, scale):
        super().__init__()
        self.scale = torch.as_tensor(scale, dtype=torch.float64)
        self.image_shape, self.latent_shape = (1, 1, len(scale)), (len(scale),)
        self.calls = 0

    def decode(self, z):
        self.calls += 1
        return (self.scale * z).reshape(len(z), 1, 1, -1)

    def log_prob(self, x):
        return -(x.flatten(1) / self.scale).square().sum(1) / 2


def test_mass_is_the_fisher_information():
    """I + scale^2 / noise^2 on the diagonal; of 4000 probes each square has a relative sd sqrt(2 / 4000)."""
    prior = Stretch([0.01, 0.3, 2.0, 1.0])
    operator = Inpaint(torch.tensor([[[False, False, False, True]]]), (1, 1, 4))
    measurement = Measurement(torch.zeros(1, 1, 1, 4, dtype=torch.float64), operator, torch.full((1, 1, 1, 1), 0.1))
    z = torch.zeros(1, 4, dtype=torch.float64)
    mass = information_metric(prior, prior.decoder_variance, measurement, z, Noise(0, [0]), 4000)
    found = 1 / mass.velocity(torch.ones_like(z))[0]
    expected = 1 + torch.tensor([0.01, 0.3, 2.0, 0.0], dtype=torch.float64).square() / 0.01
    torch.testing.assert_close(found - 1, expected - 1, rtol=3.5 * (2 / 4000) ** 0.5, atol=0)


def test_stiff_posterior_is_met_where_scales_differ_a_thousandfold():
    """Posterior sds from 0.001 to 1: with one step size for all, the widest would not move in these few transitions.

    Means and variances of 500 independent chains, 3.5 standard errors of each; burn-in leaves no more than that.
    """
    n, scale = 500, [1.0, 0.3, 0.05, 1e-3]
    prior, operator, noise = Stretch(scale), Denoise((1, 1, 4)), 1e-3 * 5
    y = torch.tensor([1.0, -0.2, 0.01, 0.0], dtype=torch.float64).expand(n, 1, 1, 4)
    rows = torch.zeros(n, dtype=torch.long)
    sampler = FisherHMC(burn_in=40)
    draws, told = sampler.draw(prior, Measurement(y, operator, noise), Noise(0, rows, torch.arange(n)))
    s = torch.tensor(scale, dtype=torch.float64)
    floor = max(noise, 1 / 150)  # see `Sampler.floor`
    variance = 1 / (1 / s**2 + 1 / floor**2)
    mean = variance * y[0].flatten() / floor**2
    z = (draws.flatten(1) - mean) / variance.sqrt()
    assert (z.mean(0).abs() < 3.5 / n**0.5).all()
    assert ((z.var(0) - 1).abs() < 3.5 * (2 / n) ** 0.5).all()
    assert 0.6 < float(told["acceptance"].mean()) < 0.98
    assert float(told["rhat"].max()) < 1.3


@pytest.mark.parametrize("v", [0.0, 0.01])
@pytest.mark.parametrize("operator", OPERATORS)
def test_fisher_hmc_matches_linear_posterior(operator, v):
    """Of n exact draws, both figures are within 3.3 of 0; see `linear`."""
    prior = LinearDecoder(OPERATORS[operator].image_shape, v=v)
    one = measure(prior, OPERATORS[operator])
    # a valid blur solves by conjugate gradients, in every leapfrog step where v > 0
    n = 60 if (operator, v) == ("valid blur", 0.01) else 300
    draws, _ = draw(FisherHMC(burn_in=24, steps=8, leapfrog=5, descend=60), prior, one, n)
    off_mean, off_covariance = deviations(draws, *prior.exact(one))
    assert off_mean < 3.3
    assert off_covariance < 3.3


def test_calls_are_counted():
    prior = Stretch([1.0, 0.5])
    one = Measurement(torch.ones(1, 1, 1, 2, dtype=torch.float64), Denoise((1, 1, 2)), NOISE)
    sampler = FisherHMC(descend=7, burn_in=9, refreshes=2, steps=4, leapfrog=3)
    sampler(prior, one, Noise(0, [0]))
    assert prior.calls == sampler.calls


def test_automatic_takes_it_for_flows():
    assert automatic(Stretch([1.0])) == FisherHMC()


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"descend": 0}, {"probes": 0}, {"lr": 0}, {"burn_in": 3}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FisherHMC(**wrong)


def test_search_starts_at_the_latents_of_a_filled_image_if_every_image_has_latents():
    """From z = 0, the flow of flowers comes to 8 dB in that many steps: each of its latents has a scale of its own."""
    i, j = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    x = torch.stack([0.5 + 0.3 * torch.sin((i + k * j) / 9) for k in range(3)])
    y = genprior.degrade(x, "inpaint", mask="random", fraction=0.7, noise=0.025, seed=0)
    sampler = FisherHMC(descend=20, steps=4, burn_in=4, probes=1, leapfrog=1)
    result = genprior.restore(y, prior="nf-flowers", sampler=sampler, n=1, seed=0, device="cpu", progress=False)
    assert psnr(result.samples, x[None]) > 22


def test_search_starts_at_0_where_images_beyond_0_to_1_or_of_y_have_no_latents():
    flows = {pixels: Flow((1, 4, 4), widths=(4,), steps=(1,), pixels=pixels) for pixels in ("linear", "logit")}
    x = torch.full((1, 1, 4, 4), 0.7)
    linear, cube = Denoise((1, 4, 4)), PhaseRetrieval((1, 4, 4))
    for pixels, operator, somewhere in (("linear", linear, True), ("linear", cube, False), ("logit", linear, False)):
        z, _ = begin(flows[pixels], Measurement(operator(x), operator, 0.1))
        assert (z.abs().max() > 0.1) == somewhere
