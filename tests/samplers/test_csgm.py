"""CSGM against the minimum in closed form, and on an objective with several minima."""

import pytest
import torch
from linear import OPERATORS, SHAPE, LinearDecoder, dense, draw, measure

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement, random_mask
from genprior.priors.base import Prior
from genprior.samplers.latents.csgm import CSGM


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("penalty", [0.1, None])
def test_csgm_finds_the_minimum_in_closed_form(operator, penalty):
    """z* = (W^T A^T A W + penalty I)^-1 W^T A^T (y - A b); None: noise^2 + v. 600 steps of Adam come to 1e-6 of it."""
    prior = LinearDecoder(OPERATORS[operator].image_shape, v=0.02)
    one = measure(prior, OPERATORS[operator])
    A = dense(one.operator)
    AW = A @ prior.W
    weight = 0.1 if penalty else one.noise**2 + 0.02
    z = torch.linalg.solve(AW.T @ AW + weight * torch.eye(len(AW.T)), AW.T @ (one.y.flatten() - A @ prior.b))
    x, _ = draw(CSGM(steps=600, restarts=1, lr=0.05, penalty=penalty), prior, one, 2)
    assert torch.allclose(x, prior.decode(z[None]), rtol=0, atol=1e-6)


class Wave(Prior):
    """G(z) = sin 3 z + z / 2: y = 1 has several explanations, one of them the best."""

    image_shape, latent_shape, decoder_variance = (1, 1, 1), (1,), 0.0
    centre, spread = 0.0, 1.0
    calls = 0

    def decode(self, z):
        self.calls += 1
        return (torch.sin(3 * z) + z / 2)[:, :, None, None]


def test_best_restart_is_kept():
    """Of one restart, some rows end in a minimum that is not the least one; of 20, none does.

    The least objective is found on a grid. A start in (-3, 3) reaches it with probability above 0.3: 20 miss it once in
    1000 rows, and 10 rows are tried.
    """
    prior = Wave()
    one = Measurement(torch.full((1, 1, 1, 1), 1.0, dtype=torch.float64), Denoise((1, 1, 1)), 0.1)
    z = torch.linspace(-5, 5, 100001, dtype=torch.float64)[:, None]
    objective = (prior.decode(z).flatten() - 1) ** 2 + 0.1 * z.flatten() ** 2
    best = prior.decode(z[objective.argmin()][None])
    single, _ = draw(CSGM(steps=300, restarts=1, lr=0.05), prior, one, 40)
    many, _ = draw(CSGM(steps=300, restarts=20, lr=0.05), prior, one, 10)
    assert (single - best).abs().max() > 0.01
    assert (many - best).abs().max() < 1e-4


def test_image_of_a_batch_does_not_depend_on_its_company():
    """Each image with its own mask and noise level, alone and in a batch: the same to rounding (float64)."""
    masks = torch.stack([random_mask(SHAPE, fraction, seed) for seed, fraction in enumerate((0.3, 0.5, 0.7))])
    prior = LinearDecoder()
    noise = torch.tensor([0.0, 0.1, 0.2], dtype=torch.float64).reshape(-1, 1, 1, 1)
    measurement = Measurement(Inpaint(masks, SHAPE)(prior.sample(3, seed=1)), Inpaint(masks, SHAPE), noise)
    sampler = CSGM(steps=10, restarts=3, penalty=None)
    with torch.no_grad():
        together = sampler(prior, measurement, Noise(0, [0, 1, 2]))
        for i in range(3):
            alone = sampler(prior, measurement.select(torch.tensor([i])), Noise(0, [i]))
            assert torch.allclose(alone[0], together[i], rtol=0, atol=1e-9)


def test_calls_are_counted():
    """Each of 3 restarts decodes and differentiates in every step, and decodes once more."""
    prior = Wave()
    one = Measurement(torch.ones(1, 1, 1, 1), Denoise((1, 1, 1)), 0.1)
    sampler = CSGM(steps=7, restarts=3)
    draws, _ = draw(sampler, prior, one, 2)
    assert prior.calls == sampler.calls == 8
    assert sampler.evaluations == 3 * (2 * 7 + 1)
    assert draws.dtype == torch.float32


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"restarts": 0}, {"lr": 0}, {"penalty": -1}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CSGM(**wrong)
