"""The losses of the diffusion, on a small network in float64."""

import math

import pytest
import torch

from genprior.noise import Noise
from genprior.priors.ddpm import DDPM
from genprior.training.objectives import Denoising, FlowMatching, NoisePrediction

STEPS, SEED = 10, 3


@pytest.fixture
def prior():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DDPM((1, 4, 4), widths=(8,), blocks=1, patch=1, steps=STEPS).double()


def of_velocity():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DDPM((1, 4, 4), widths=(8,), blocks=1, patch=1, steps=STEPS, prediction="velocity").double()


@pytest.fixture
def batch():
    x = torch.rand(2 * STEPS, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return {"x": x, "item": torch.arange(2 * STEPS)}


def test_noise_prediction_is_the_loss_of_the_course(prior, batch):
    """mean |eps - eps_hat(z_t, t)|^2 with z_t = sqrt(alpha_bar_t) u + sqrt(1 - alpha_bar_t) eps, written out."""
    golden = (math.sqrt(5) - 1) / 2
    t = ((batch["item"] + 0.5) * golden % 1 * STEPS).long()
    assert t.bincount(minlength=STEPS).tolist() == pytest.approx([2] * STEPS, abs=1)  # uniform, and better than chance

    u, eps = 2 * batch["x"] - 1, Noise(SEED, batch["item"])(batch["x"])
    alpha_bar = torch.tensor(prior.alpha_bars, dtype=torch.float64)[t].reshape(-1, 1, 1, 1)
    z_t = alpha_bar.sqrt() * u + (1 - alpha_bar).sqrt() * eps
    sigma = ((1 - alpha_bar) / alpha_bar).sqrt() / 2
    u_hat = 2 * prior.denoise((z_t / alpha_bar.sqrt() + 1) / 2, sigma).detach() - 1
    eps_hat = (z_t - alpha_bar.sqrt() * u_hat) / (1 - alpha_bar).sqrt()

    with torch.no_grad():
        loss, _ = NoisePrediction(prior, seed=SEED)(batch, 0)
    # 1e-4: the levels are handed to the network in float32
    assert float(loss) == pytest.approx(float((eps - eps_hat).square().mean()), rel=1e-4)


def test_target_of_the_network_has_unit_variance_at_every_level(prior):
    """With F = 0 the loss is the mean square of the target, which is 1 for white data of the prior's own spread."""
    for parameter in prior.net.parameters():
        torch.nn.init.zeros_(parameter)
    item = torch.arange(4000)
    x = prior.centre + prior.spread * Noise(1, item)(torch.empty(4000, 1, 4, 4, dtype=torch.float64))
    with torch.no_grad():
        loss, _ = Denoising(prior, seed=SEED)({"x": x, "item": item}, 0)
    # the mean of 64,000 squares of standard normal values: 5 sd of sqrt(2 / 64000)
    assert float(loss) == pytest.approx(1, abs=5 * math.sqrt(2 / 64000))


def test_levels_of_noise_are_logistic_in_their_logarithm(prior):
    """P(sigma < s) = (F(s) - F(low)) / (F(high) - F(low)), F(s) = 1 / (1 + (median / s)^(1 / scale))."""
    seen = []
    prior.denoise = lambda x_t, sigma, *_, **__: seen.append(sigma) or x_t
    median, scale = 0.1, 0.3
    objective = Denoising(prior, seed=SEED, median=median, scale=scale)
    objective({"x": torch.zeros(10000, 1, 4, 4), "item": torch.arange(10000)}, 0)
    sigma = seen[0].flatten().double()

    def below(s):
        return 1 / (1 + (median / s) ** (1 / scale))

    low, high = below(prior.sigma_min), below(prior.sigma_max)
    for s in (0.08, 0.1, 0.15, 0.3):
        # a Kronecker sequence of N misses no share by more than about 3 / N, chance by 1 / sqrt(N)
        assert float((sigma < s).double().mean()) == pytest.approx((below(s) - low) / (high - low), abs=1e-3)
    assert prior.sigma_min <= float(sigma.min()) <= float(sigma.max()) <= prior.sigma_max


def test_flow_matching_is_the_regression_of_the_velocity_on_the_straight_path(batch):
    """mean |u - n - F(t u + (1 - t) n, t)|^2, written out: F is the bare network, which is shown z itself and ln s."""
    prior = of_velocity()
    golden = (math.sqrt(5) - 1) / 2
    low, high = (1 / (1 + 2 * sigma) for sigma in (prior.sigma_max, prior.sigma_min))
    t = (low + (high - low) * ((batch["item"] + 0.5) * golden % 1)).reshape(-1, 1, 1, 1)
    u, n = 2 * batch["x"] - 1, Noise(SEED, batch["item"])(batch["x"])
    z = t * u + (1 - t) * n
    with torch.no_grad():
        wanted = (u - n - prior.net(z, 0.25 * ((1 - t) / t).log().flatten(), None)).square().mean()
        loss, _ = FlowMatching(prior, seed=SEED)(batch, 0)
    # 1e-4: the levels are handed to the network in float32
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4)


def test_least_loss_of_flow_matching_is_the_posterior_mean():
    """Of white Gaussian data, in closed form, among denoisers centre + (1 + e) g (x_t - centre) of other gains.

    The loss is a parabola in e; its minimum is at 0 within 5 standard errors.
    """
    prior, items = of_velocity(), torch.arange(4000)
    sd = 0.3
    x = 0.5 + sd * Noise(1, items)(torch.empty(4000, 1, 4, 4, dtype=torch.float64))
    losses = []
    for e in (-0.5, 0.0, 0.5):
        prior.denoise = lambda x_t, sigma, *_, e=e, **__: 0.5 + (1 + e) * sd**2 / (sd**2 + sigma**2) * (x_t - 0.5)
        losses.append(float(FlowMatching(prior, seed=SEED)({"x": x, "item": items}, 0)[0]))
    low, least, high = losses
    minimum = 0.25 * (low - high) / (low + high - 2 * least)
    # the slope at 0 averages 64,000 products of independent normal values, of the curvature's size
    assert minimum == pytest.approx(0, abs=5 * 2 / math.sqrt(64000))


@pytest.mark.parametrize("dropped", [0.1, 0.4])
def test_labels_are_dropped_as_often_as_stated(dropped):
    prior, shown = DDPM((1, 4, 4), classes=2, widths=(8, 8), blocks=1), []
    prior.net.register_forward_pre_hook(lambda net, inputs: shown.append(inputs[2]))
    n = 2000
    batch = {"x": torch.zeros(n, 1, 4, 4), "item": torch.arange(n), "label": torch.ones(n, dtype=torch.long)}
    Denoising(prior, dropped=dropped)(batch, 0)
    share = float((shown[0] == 2).double().mean())
    # of n labels; one in 15,000 such tests would fail by chance
    assert share == pytest.approx(dropped, abs=4 * math.sqrt(dropped * (1 - dropped) / n))
