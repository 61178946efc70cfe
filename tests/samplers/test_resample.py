"""Hard data consistency in latents with stochastic resampling: what it gets wrong, pinned, and what it keeps to."""

import dataclasses

import pytest
import torch
from latent_linear import Counted, LinearLatents, errors
from linear import NOISE, OPERATORS, SHAPE, draw, measure

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement
from genprior.priors.base import Prior
from genprior.samplers.latents.resample import ReSample

QUICK = ReSample(steps=60, every=5, iterations=40, rate=0.05)


@pytest.mark.parametrize(
    ("operator", "changes", "mean", "variance"),
    [
        # where the measurement decides the latents there is no variance left: all draws end where the fit does
        ("inpaint", {}, (0.1, 0.25), (0.0001, 0.002)),
        ("super-resolution", {}, (0.5, 0.75), (0.00005, 0.001)),
        # one step of Adam a fit keeps some, of which the last step, which joins y, leaves a part
        ("inpaint", {"iterations": 1}, (0.1, 0.25), (0.015, 0.08)),
        ("circular blur", {}, (0.3, 0.6), (0.08, 0.25)),
        # without resampling the fits before the last do nothing
        ("circular blur", {"gamma": 0.0}, (0.2, 0.4), (0.09, 0.28)),
        ("super-resolution", {"gamma": 0.0}, (0.5, 0.75), (0.01, 0.05)),
    ],
)
def test_errors_on_a_linear_posterior_are_known(operator, changes, mean, variance):
    """Between bounds around what was found, wider than chance by a factor of 5 and more."""
    off, ratio = errors(dataclasses.replace(QUICK, **changes), operator)
    assert mean[0] <= off < mean[1]
    assert variance[0] < ratio < variance[1]


@pytest.mark.parametrize("operator", ["inpaint", "super-resolution"])
def test_images_fit_the_measurement_to_its_noise_and_no_further(operator):
    """One fit, from a draw of the prior: |y - A x|^2 goes just below noise^2 times the number of values seen.

    The noise is said to be twice what it is, so that the least squares of 6 latents lie far below: about a quarter.
    Steps of Adam are of 0.01 spreads, and take a few per cent of what is left. A draw that fits already stays.
    """
    prior, A = LinearLatents(v=1e-8), OPERATORS[operator]
    one = dataclasses.replace(measure(prior, A), noise=2 * NOISE)
    known = one.seen

    def error(sampler):
        draws, _ = draw(sampler, prior, one, 20)
        return (known * (one.y - A(draws))).square().flatten(1).sum(1) / ((2 * NOISE) ** 2 * known.sum())

    once = ReSample(steps=20, every=20, omega=0.0, iterations=500, rate=0.01)
    before, after = error(dataclasses.replace(once, iterations=1, rate=1e-12)), error(once)
    far = before > 1
    assert far.sum() > 10
    assert ((after[far] > 0.9) & (after[far] <= 1)).all()
    assert torch.equal(after[~far], before[~far])


class Toy(Prior):
    """Latents that are images, a denoiser that keeps a share of w_t and notes what it is given, an encoder of 5."""

    image_shape, centre, spread, decoder_variance = (1, 2, 3), 0.0, 1.0, 0.0
    sigma_max, sigma_min = 2.0, 1.0

    def __init__(self, share):
        super().__init__()
        self.latents, self.share, self.given = self, share, []

    def denoise(self, w_t, sigma):
        self.given.append(w_t.detach())
        return self.share * w_t

    def render(self, w):
        return w

    def encode(self, x):
        return 0 * x + 5


def given(prior, sampler, n=1000):
    """What the denoiser was given, of n images that were measured to be 0."""
    y = torch.zeros(n, *prior.image_shape, dtype=torch.float64)
    with torch.no_grad():
        sampler(prior, Measurement(y, Denoise(prior.image_shape), 0.1), Noise(0, range(n)))
    return prior.given


def test_steps_are_those_of_the_flow_and_down_the_norm():
    """From sigma = 2 to 1 with w_hat = w / 2: w_hat + (w - w_hat) / 2 is 3/4 w, and the norm falls along u = w / |w|.

    The norm is |w / 2| in units of 1/2, and its gradient u. In the coordinates of z = w / sqrt(1 + sigma^2) that is
    sqrt(5) u, times omega / 5, back at the next level times sqrt(2).
    """
    w_T, w = given(Toy(0.5), ReSample(steps=2, every=2, iterations=1, omega=0.3))
    u = w_T / w_T.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)
    assert torch.allclose(w, 0.75 * w_T - 0.3 * 5**0.5 / 5 * 2**0.5 * u, atol=1e-12)


def test_resampling_draws_between_the_chain_and_the_fit():
    """w_t = (1 - s) w' + s w_y + sigma sqrt(s) n, as the denoiser is given it after the first of two steps.

    sigma is 2, then 1, so that w' = w_T / 2 is n_T, and w_y = 5: the mean is 5 s and the variance (1 - s)^2 + s. Over
    6,000 values they have errors of 0.012 and 1.8 %; 3.3 of each are allowed.
    """
    _, w = given(Toy(0.0), ReSample(steps=2, every=1, ahead=0, iterations=1, gamma=0.8))
    s = 0.6 / 1.6  # of g = 0.8 (1 - 1 / 4)
    assert abs(w.mean() - 5 * s) < 3.3 * 0.012
    assert abs(w.var() / ((1 - s) ** 2 + s) - 1) < 3.3 * 0.018


def test_fits_begin_some_steps_ahead():
    """Of 7 steps those with 4, 2 and 0 left fit, after 3, 2 and 0 more calls of the denoiser."""
    assert len(given(Toy(0.5), ReSample(steps=7, every=2, ahead=3, iterations=1), n=1)) == 7 + 3 + 2


def test_units_of_latents_do_not_matter():
    """w in units a hundred times as large, elsewhere: the same images, to rounding grown by 60 steps."""
    one = measure(LinearLatents(), OPERATORS["inpaint"])
    ours, others = (draw(QUICK, LinearLatents(c=c, s=s), one, 4)[0] for c, s in ((0.2, 0.3), (-5.0, 30.0)))
    assert (ours - others).abs().max() < 1e-6


def test_image_of_a_batch_is_drawn_as_alone():
    """A norm, or a fit that stops, of the whole batch would show; noise of each its own."""
    prior, A = LinearLatents(), OPERATORS["inpaint"]
    noise = torch.tensor([0.05, 0.3], dtype=torch.float64).reshape(-1, 1, 1, 1)
    y = A(prior.sample(2, seed=1))
    together = QUICK(prior, Measurement(y, A, noise), Noise(0, [0, 1]))
    for i in range(2):
        alone = QUICK(prior, Measurement(y[i : i + 1], A, noise[i : i + 1]), Noise(0, [i]))
        assert (alone[0] - together[i]).abs().max() < 1e-6


def test_residual_of_nothing_gives_no_nan():
    """Where nothing is measured the norm of the residual is 0, and so is its gradient."""
    prior, A = LinearLatents(), Inpaint(torch.ones(SHAPE[1:], dtype=torch.bool), SHAPE)
    draws = QUICK(prior, Measurement(torch.zeros(2, *SHAPE, dtype=torch.float64), A, 0.1), Noise(0, [0, 1]))
    assert torch.isfinite(draws).all()


class Unmeasured(Toy):
    """A decoder whose variance nobody has measured."""

    @property
    def decoder_variance(self):
        raise UnsupportedError("never measured")


def last(prior):
    """The image that a quick chain ends with, of one measurement of 1s with noise 0.1."""
    y = torch.ones(1, *prior.image_shape, dtype=torch.float64)
    one = Measurement(y, Denoise(prior.image_shape), 0.1)
    with torch.no_grad():
        return ReSample(steps=4, every=2, iterations=2)(prior, one, Noise(0, [0]))


def test_image_is_the_mean_given_latent_and_measurement():
    """With v = 0.03 and noise^2 = 0.01, E[x | w, y] = (G(w) + 3 y) / 4, without grain; nothing else depends on v."""
    grainy = Toy(0.5)
    grainy.decoder_variance = 0.03
    assert torch.allclose(last(grainy), (last(Toy(0.5)) + 3) / 4, rtol=0, atol=1e-12)


def test_image_is_that_of_the_decoder_where_its_variance_is_unknown():
    assert torch.equal(last(Unmeasured(0.5)), last(Toy(0.5)))


@pytest.mark.parametrize("changes", [{}, {"steps": 7, "every": 2, "ahead": 3}, {"steps": 1, "every": 9}])
def test_calls_are_those_of_the_decoder(changes):
    prior, sampler = Counted(), dataclasses.replace(QUICK, iterations=3, **changes)
    draw(sampler, prior, measure(prior, OPERATORS["inpaint"]), 2)
    assert prior.calls == sampler.calls


def test_evaluations_are_those_of_all_networks():
    """Of 60 steps 4 fit in pixels, with 25, 30, 35 and 40 left, and 5 in latents, with 20, 15, 10, 5 and 0.

    Denoiser and decoder there and back in each step; 5 steps ahead of each fit, but of the last, which has none left;
    decoder and encoder of each of the 4, 3 iterations there and back of each of the 5; the decoder at the end.
    """
    assert dataclasses.replace(QUICK, iterations=3).evaluations == 4 * 60 + 8 * 5 + 4 * 2 + 5 * 3 * 2 + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("steps", 0), ("every", 0), ("ahead", -1), ("iterations", 0), ("rate", 0.0), ("omega", -1.0), ("gamma", -1.0)],
)
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(ValueError, match=name):
        dataclasses.replace(QUICK, **{name: value})
