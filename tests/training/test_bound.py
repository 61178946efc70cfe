"""The loss of variational autoencoders: bits per value, weights of the KL, what a step of it teaches.

The linear VAE has the decoder u = W z + b and an encoder to match; what it can reach on data of covariance S is
probabilistic principal component analysis: with l the eigenvalues of S and d latents, the best v is the mean of the
D - d smallest l, and the best mean of ln p(x) is -1/2 (sum_{i <= d} ln l_i + (D - d) ln v + D ln(2 pi) + D).
"""

import math

import pytest
import torch
from torch import nn

from genprior.bits import bits_per_dim, dequantize
from genprior.noise import Noise
from genprior.priors.vae import PACE, VAE
from genprior.training.bound import EvidenceBound

D, LATENT = 16, 2


def vae(image_shape=(1, 4, 4), **arguments):
    """A VAE whose networks have random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior = VAE(image_shape, **({"latent": LATENT, "widths": (4,), "blocks": (1,)} | arguments)).double()
        for parameter in prior.parameters():
            if not parameter.any():
                parameter.data.normal_(std=0.2)
    return prior


def linear():
    prior = vae()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        prior.encoder = nn.Sequential(nn.Flatten(), nn.Linear(D, 2 * LATENT)).double()
        prior.decoder = nn.Sequential(nn.Linear(LATENT, D), nn.Unflatten(1, (1, 4, 4))).double()
    return prior


def batch(*items, shape=(1, 4, 4)):
    """8-bit images, each a function of its item number."""
    grey = [torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(item)) for item in items]
    return {"x": torch.stack(grey).double() / 255, "item": torch.tensor(items)}


def evaluate(objective, examples):
    return float(objective(examples, 0)[1]["loss"])


def bits_of_kl(prior, examples):
    """The KL of the dequantised images, by the densities: noise makes the images first, then the latents."""
    noise = Noise(0, examples["item"])
    x = dequantize(examples["x"], noise)
    q = torch.distributions.Normal(*prior.infer(x))
    kl = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).flatten(1).sum(1)
    return float(kl.detach().mean()) / (x[0].numel() * math.log(2))


def test_loss_is_the_mean_bound_in_bits_of_dequantised_images():
    prior, examples = vae(), batch(3, 14, 15)
    loss, logs = EvidenceBound(prior)(examples, 0)
    noise = Noise(0, [3, 14, 15])
    x = (255 * examples["x"] + noise.uniform(examples["x"])) / 256
    mean, sd = prior.infer(x)
    z = mean + sd * noise(mean)
    likelihood = torch.distributions.Normal(prior.decode(z), prior.decoder_variance.sqrt()).log_prob(x).sum((1, 2, 3))
    kl = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, sd), torch.distributions.Normal(0.0, 1.0)
    ).sum(1)
    torch.testing.assert_close(loss, bits_per_dim(likelihood - kl, D).mean(), rtol=1e-12, atol=1e-12)
    assert logs["loss"] == loss
    assert float(logs["kl"]) == pytest.approx(bits_of_kl(prior, examples), rel=1e-9)
    assert float(logs["decoder sd"]) == pytest.approx(0.1)


def test_loss_of_uniform_grey_levels_is_at_least_eight_bits():
    """No code of 256 equally likely levels spends less. A decoder N(1/2, 1/12 I) that ignores z spends

    8 + 1/2 log2(2 pi e / 12) = 8.25 bits: the variance of x' is 1/12, and its mean 1/2. The mean square over 4000
    images of 16 values is off by a relative sd of sqrt(0.8 / 64000) = 0.35 %, of half a nat: 4 sd are 0.01 bits.
    """
    prior, examples = linear(), batch(*range(4000))
    for parameter in prior.parameters():
        parameter.data.zero_()
    prior.slow_log_variance.data.fill_(-math.log(12) / PACE)
    loss = evaluate(EvidenceBound(prior), examples)
    assert loss == pytest.approx(8 + 0.5 * math.log2(2 * math.pi * math.e / 12), abs=0.01)


def test_item_has_its_loss_in_any_company():
    objective, numbers = EvidenceBound(vae()), (5, 2, 9)
    together = evaluate(objective, batch(*numbers))
    alone = [evaluate(objective, batch(number)) for number in numbers]
    assert together == pytest.approx(sum(alone) / 3, rel=1e-12)
    assert max(alone) - min(alone) > 0.01
    other = EvidenceBound(objective.prior, seed=1)
    assert abs(evaluate(other, batch(5)) - alone[0]) > 1e-4


def test_warmup_weighs_the_kl_while_training_only():
    prior, examples = vae(), batch(1, 2, 3)
    objective = EvidenceBound(prior, warmup=10)
    kl, whole = bits_of_kl(prior, examples), evaluate(EvidenceBound(prior), examples)
    for step, weight in ((0, 0.0), (4, 0.4), (10, 1.0), (25, 1.0)):
        _, logs = objective.train()(examples, step)
        assert float(logs["loss"]) == pytest.approx(whole - (1 - weight) * kl, rel=1e-12)
        assert float(logs["kl"]) == pytest.approx(kl, rel=1e-9)
    assert evaluate(objective.eval(), examples) == whole
    assert kl > 0.01


def test_slope_in_the_variance_vanishes_at_the_mean_squared_error():
    """In ln v it is (1 - error / v) / (2 ln 2) bits per value: the best v is the mean squared error."""
    prior, examples = vae(), batch(1, 2, 3)
    noise = Noise(0, examples["item"])
    x = dequantize(examples["x"], noise)
    mean, sd = prior.infer(x)
    error = float((x - prior.decode(mean + sd * noise(mean))).square().mean().detach())
    for v in (error, 2 * error, error / 3):
        prior.slow_log_variance.data.fill_(math.log(v) / PACE)
        loss, _ = EvidenceBound(prior)(examples, 0)
        (slope,) = torch.autograd.grad(loss, prior.slow_log_variance)
        assert float(slope) / PACE == pytest.approx((1 - error / v) / (2 * math.log(2)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("image_shape", [(1, 8, 8), (2, None, None)])
def test_every_parameter_is_taught(image_shape):
    prior = vae(image_shape, widths=(4, 6), blocks=(1, 2))
    loss, _ = EvidenceBound(prior)(batch(1, 2, 3, shape=(image_shape[0], 8, 8)), 0)
    loss.backward()
    assert all((parameter.grad != 0).any() for parameter in prior.parameters())


def test_training_finds_the_principal_components():
    """A linear VAE, trained on 300 images of two components, reaches the loss of the eigenvalues above.

    The loss of the last 40 passes, each with its own draws of z and of the 8-bit remainder, is the best within 4
    standard errors and 0.01 bits that may be left to learn. An error r of v costs r^2 / (4 ln 2) bits, so that r = 3 %,
    3e-4 bits, is what the noise of the gradient leaves.
    """
    generator = torch.Generator().manual_seed(0)
    W = torch.linalg.qr(torch.randn(D, LATENT, generator=generator, dtype=torch.float64))[0]
    z = torch.randn(300, LATENT, generator=generator, dtype=torch.float64) * torch.tensor([0.4, 0.25])
    x = 0.5 + z @ W.T + 0.1 * torch.randn(300, D, generator=generator, dtype=torch.float64)
    k = (256 * x).floor().clamp(0, 255).reshape(-1, 1, 4, 4)
    examples = {"x": k / 255, "item": torch.arange(300)}

    dequantised = dequantize(examples["x"], Noise(5, examples["item"])).flatten(1)
    l = torch.linalg.eigvalsh(dequantised.T.cov(correction=0))
    v = float(l[:-LATENT].mean())
    best = -0.5 * float(l[-LATENT:].log().sum() + (D - LATENT) * math.log(v) + D * math.log(2 * math.pi) + D)

    prior, steps, pace = linear(), 240, 0.05
    objective = EvidenceBound(prior)
    optimizer = torch.optim.Adam(prior.parameters(), betas=(0.9, 0.99))
    losses = []
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = pace * min(1, (steps - step) / 180)
        loss, _ = objective({**examples, "item": examples["item"] + 300 * step}, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    last = torch.tensor(losses[-40:])
    error = float(last.std()) / math.sqrt(40)
    excess = float(last.mean()) - float(bits_per_dim(torch.tensor(best), D))
    assert -4 * error < excess < 4 * error + 0.01
    assert float(prior.decoder_variance.detach()) == pytest.approx(v, rel=0.03)


def test_negative_warmup_is_refused():
    with pytest.raises(ValueError, match="warmup is -1: give a number of steps"):
        EvidenceBound(vae(), warmup=-1)
