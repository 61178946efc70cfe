"""The learned posterior: its pairs, what it minimises, what it refuses, and its chain on a case that is known."""

import math
import subprocess
import sys
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

import genprior
from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Colorize, Denoise, Inpaint, Measurement, SuperResolution
from genprior.posteriors.amortized import is_learned, observe
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.ddpm import DDPM
from genprior.priors.folder import read_prior, write_prior
from genprior.samplers import automatic
from genprior.samplers.amortized import Amortized
from genprior.samplers.integrate import geometric
from genprior.training.amortization import Amortization
from genprior.training.objectives import Denoising

SHAPE = (1, 4, 4)
SR = {"name": "SuperResolution", "scale": 2, "antialias": "average"}


def learned(operator=None, noise=(0.01, 0.1), shape=SHAPE, **chain):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        chain = {"widths": (8, 8), "blocks": 1, **chain}
        return LearnedPosterior(shape, operator=operator or SR, noise=noise, **chain)


def images(n, shape=SHAPE, seed=0):
    return torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))


def halved(x, noise):
    return SuperResolution(2, x.shape[1:], "average")


class Known(LearnedPosterior):
    """The posterior of N(0.5, 0.3^2 I) images measured by Denoise with noise 0.2, in closed form."""

    def __init__(self):
        super().__init__(SHAPE, operator={"name": "Denoise"}, noise=(0.2, 0.2), widths=(4,), blocks=0)
        self.centre, self.spread, self.sigma_min, self.sigma_max = 0.5, 0.3, 1e-3, 30.0

    def denoise_given(self, x_t, sigma, observed):
        y = 0.5 + 0.3 * observed[:, :1]
        precision = 1 / 0.09 + 1 / 0.04 + 1 / sigma**2
        return (0.5 / 0.09 + y / 0.04 + x_t / sigma**2) / precision


def test_one_pass_of_the_chain_draws_from_the_posterior():
    """Of n = 16 * 1000 values: 5 standard errors of mean and variance about those that the steps have by recursion.

    With x_hat = a + b x_t, a step keeps r + (1 - r) b of x, adds (1 - r) a, and fresh noise of variance
    sigma_next^2 (1 - r). As steps grow, first order in their length, the recursion ends in the posterior.
    """

    def expected(steps):
        mean, variance = 0.5, 30.0**2
        sigmas = geometric(30.0, 1e-3, steps)
        for sigma, sigma_next in pairwise(sigmas):
            r = (sigma_next / sigma) ** 2
            precision = 1 / 0.09 + 1 / 0.04 + 1 / sigma**2
            a, b = (0.5 / 0.09 + 0.9 / 0.04) / precision, 1 / sigma**2 / precision
            mean = (r + (1 - r) * b) * mean + (1 - r) * a
            variance = (r + (1 - r) * b) ** 2 * variance + sigma_next**2 * (1 - r)
        return mean, variance

    y = torch.full((1000, *SHAPE), 0.9)
    measurement = Measurement(y, Denoise(SHAPE), 0.2)
    x = Amortized(steps=100)(Known(), measurement, Noise(0, [1] * 1000, torch.arange(1000)))
    mean, variance = expected(100)
    n = x.numel()
    assert float(x.mean()) == pytest.approx(mean, abs=5 * math.sqrt(variance / n))
    assert float(x.var()) == pytest.approx(variance, rel=5 * math.sqrt(2 / n))
    exact = 1 / (1 / 0.09 + 1 / 0.04)
    gaps = [exact - expected(steps)[1] for steps in (100, 200, 400)]
    assert gaps[0] > 1.8 * gaps[1] > 1.8**2 * gaps[2] > 0
    assert expected(10**5)[1] == pytest.approx(exact, rel=1e-3)
    assert expected(10**5)[0] == pytest.approx(exact * (0.5 / 0.09 + 0.9 / 0.04), rel=1e-3)


def test_pairs_are_measurements_and_functions_of_seed_and_item():
    prior = learned()
    objective = Amortization(prior, halved, seed=4)
    x, items = images(64), torch.arange(100, 164)
    pair = objective.pairs(x, items)
    assert pair.noise.min() >= 0.01
    assert pair.noise.max() <= 0.1
    assert pair.noise.std() > 0.015  # uniform: 0.026
    z = (pair.y - pair.operator(x)) / pair.noise
    assert float(z.mean()) == pytest.approx(0, abs=5 / 16)  # 256 standard normal values
    assert float(z.var()) == pytest.approx(1, abs=5 * math.sqrt(2 / 256))
    alone = objective.pairs(x[7:8], items[7:8])
    torch.testing.assert_close(alone.y, pair.y[7:8], rtol=0, atol=1e-6)
    # nothing of a pair is made of the noise of the diffusion, which is keyed by the same items
    shared = 0.01 + 0.09 * Noise(4, items).uniform(x[:, :1, :1, :1])
    assert (pair.noise - shared).abs().max() > 0.01


def test_loss_is_denoising_of_what_was_observed():
    prior = learned()
    objective = Amortization(prior, halved, seed=4)
    batch = {"x": images(8), "item": torch.arange(8)}
    pair = objective.pairs(batch["x"], batch["item"])
    wanted, _ = Denoising(prior.ddpm, seed=4)({**batch, "features": observe(prior, pair)}, 0)
    found, logs = objective(batch, 0)
    assert torch.equal(found, wanted)
    assert logs["loss"] == found.detach()
    assert {id(p) for p in objective.parameters()} == {id(p) for p in prior.parameters()}
    with torch.autocast("cpu", torch.bfloat16):
        cast, _ = objective(batch, 0)
    assert float(cast.detach()) == pytest.approx(float(found.detach()), rel=0.05)


def test_regressor_learns_what_the_kept_pixels_say():
    """Images of one grey value, N(0.5, 0.2^2), half of their pixels missing: at the highest noise D is E[x | y].

    Untrained, or blind to y, its error is the prior's 0.2; that of E[x | y] is below 0.02.
    """
    objective_noise = (0.01, 0.05)
    prior = learned({"name": "Inpaint"}, objective_noise, data_std=0.4, betas="geometric")

    def holes(x, noise):
        return Inpaint(noise.uniform(x) < 0.5, SHAPE)

    def batch(n, start):
        items = torch.arange(start, start + n)
        return {
            "x": 0.5 + 0.2 * Noise(1, items)(torch.empty(n, 1)).reshape(n, 1, 1, 1).expand(n, *SHAPE),
            "item": items,
        }

    objective = Amortization(prior, holes, median=1.0)
    adam = torch.optim.Adam(prior.parameters(), lr=3e-3)
    for step in range(60):
        adam.zero_grad()
        objective(batch(64, 64 * step), step)[0].backward()
        adam.step()
    test = batch(200, 10**6)
    pair = objective.pairs(test["x"], test["item"])
    x_t = 0.5 + prior.sigma_max * Noise(8, torch.arange(200))(test["x"])
    with torch.no_grad():
        x_hat = prior.denoise_given(x_t, prior.sigma_max, observe(prior, pair))
    assert float((x_hat - test["x"]).square().mean().sqrt()) < 0.1


def test_network_sees_the_measurement_the_mask_and_the_noise():
    prior = learned({"name": "Inpaint"}, (0.0, 1.0), data_std=0.5)
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, 0, :2] = True
    A = Inpaint(mask, SHAPE)
    x = images(2)
    seen = observe(prior, Measurement(A(x), A, torch.tensor([0.1, 0.2]).reshape(2, 1, 1, 1)))
    assert seen.shape == (2, 3, 4, 4)
    torch.testing.assert_close(seen[:, :1] * 0.25 + 0.5, A(x))
    assert torch.equal(seen[:, 1:2], (~mask).float())
    torch.testing.assert_close(seen[:, 2].mean((1, 2)), torch.tensor([0.4, 0.8]))


@pytest.mark.parametrize(
    ("A", "noise", "message"),
    [
        (SuperResolution(4, SHAPE, "average"), 0.05, r"learned for SuperResolution\(scale=2, .*, not for .*\(scale=4"),
        (SuperResolution(2, SHAPE), 0.05, "antialias='bicubic'"),
        (Denoise(SHAPE), 0.05, r"not for Denoise\(scale=None"),
        (SuperResolution(2, SHAPE, "average"), 0.0, "learned for noise from 0.01 to 0.1, not 0 to 0"),
        (SuperResolution(2, SHAPE, "average"), 0.2, "not 0.2 to 0.2"),
    ],
)
def test_what_it_was_not_trained_for_is_refused(A, noise, message):
    y = A(images(1))
    with pytest.raises((UnsupportedError, ValueError), match=message):
        genprior.restore(Measurement(y, A, noise), prior=learned(), sampler="amortized", steps=2)


@pytest.mark.parametrize("level", [0.01, 0.1])
def test_the_extremes_of_its_noise_are_its_own_in_any_precision(level):
    A = SuperResolution(2, SHAPE, "average")
    y = A(images(1))
    for noise in (level, torch.tensor(level), torch.tensor(level, dtype=torch.float64)):
        assert observe(learned(), Measurement(y, A, noise)).isfinite().all()


def test_it_is_no_prior_and_others_are_not_amortized():
    prior = learned()
    assert prior.capabilities == set()
    assert isinstance(automatic(prior), Amortized)
    with pytest.raises(UnsupportedError, match="LearnedPosterior has no sample; it has nothing"):
        prior.sample(1)
    A = SuperResolution(2, SHAPE, "average")
    measurement = Measurement(A(images(1)), A, 0.05)
    with pytest.raises(
        UnsupportedError, match="DPS needs a prior that has denoise; LearnedPosterior has no method of priors"
    ):
        genprior.restore(measurement, prior=prior, sampler="dps")
    ddpm = DDPM(SHAPE, widths=(8, 8), blocks=1)
    assert not is_learned(ddpm)
    with pytest.raises(UnsupportedError, match="Amortized needs a prior that has denoise_given; DDPM has"):
        genprior.restore(measurement, prior=ddpm, sampler="amortized")


def test_stored_posterior_draws_the_same(tmp_path):
    prior = learned(shape=(3, None, None), operator={"name": "Colorize"})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for parameter in prior.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    write_prior(prior, tmp_path, {})
    A = Colorize((3, 6, 4))
    measurement = Measurement(A(images(2, (3, 6, 4))), A, 0.05)
    draws = [
        genprior.restore(measurement, prior=each, n=2, steps=3, seed=1, progress=False).samples
        for each in (prior.eval(), read_prior(tmp_path))
    ]
    assert draws[0].shape == (2, 2, 3, 6, 4)
    torch.testing.assert_close(draws[0], draws[1], rtol=0, atol=1e-5)
    assert (draws[0][:, 0] - draws[0][:, 1]).abs().max() > 1e-2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"operator": {"scale": 2}}, 'give its class as "name"'),
        ({"noise": (0.2, 0.1)}, r"noise is \(0.2, 0.1\): give the least and the largest"),
        ({"widths": ()}, r"widths is \(\)"),
    ],
)
def test_arguments_that_make_no_posterior_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        learned(**wrong)


def test_features_have_to_be_shown():
    ddpm = DDPM(SHAPE, widths=(8, 8), blocks=1, features=2)
    assert ddpm.config["features"] == 2
    shown = SimpleNamespace(a=torch.zeros(1, 2, 4, 4), b=torch.ones(1, 2, 4, 4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        ddpm.net.tail.weight.data.normal_()
    x_t = images(1)
    difference = ddpm.denoise(x_t, 0.3, features=shown.a) - ddpm.denoise(x_t, 0.3, features=shown.b)
    assert difference.abs().max() > 1e-4


def test_training_imports_neither_deepinv_nor_kornia():
    code = (
        "import sys, torch, genprior\n"
        "from genprior.operators import SuperResolution, Measurement\n"
        "from genprior.priors.amortized import LearnedPosterior\n"
        "from genprior.training.amortization import Amortization\n"
        "A = SuperResolution(2, (1, 4, 4), 'average')\n"
        "operator = {'name': 'SuperResolution'}\n"
        "prior = LearnedPosterior((1, 4, 4), operator=operator, noise=(0.0, 0.1), widths=(4,), blocks=0)\n"
        "batch = {'x': torch.zeros(2, 1, 4, 4), 'item': torch.arange(2)}\n"
        "Amortization(prior, lambda x, noise: A)(batch, 0)[0].backward()\n"
        "m = Measurement(torch.zeros(1, 1, 2, 2), A, 0.05)\n"
        "genprior.restore(m, prior=prior, sampler='amortized', steps=2, progress=False)\n"
        "print(sorted({'deepinv', 'kornia'} & set(sys.modules)))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert run.stdout.strip() == "[]"
