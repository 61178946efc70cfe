"""The mean of denoising by one evaluation, and what `restore` makes of "denoise"."""

import math

import pytest
import torch

import genprior
from genprior.checks import UnsupportedError
from genprior.likelihoods import Poisson, PoissonGaussian
from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Measurement
from genprior.posteriors.exact import posterior_of, posteriors_of
from genprior.priors.base import Prior
from genprior.priors.foreign.denoiser import from_denoiser
from genprior.priors.gaussian.covariance import Stationary
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.chains.map import MAP
from genprior.samplers.exact import Exact, ExactMean
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.posterior_mean import PosteriorMean
from genprior.truth.gaussian import SHAPE, correlated

PRIOR = correlated(SHAPE)
DENOISER = from_denoiser(PRIOR.denoise, SHAPE)  # the same, without a closed form
NOISE = 0.1


def measured(number=1, seed=1):
    x = PRIOR.sample(number, seed=seed)
    return x, Measurement(x + NOISE * Noise(seed, range(number))(x), Denoise(SHAPE), NOISE)


def restore(measurement, prior=PRIOR, **options):
    return genprior.restore(measurement, prior=prior, **{"seed": 0, "progress": False} | options)


def test_it_is_the_mean_of_the_exact_posterior():
    _, m = measured(3)
    means = torch.stack([each.mean for each in posteriors_of(PRIOR, m)])
    torch.testing.assert_close(PosteriorMean()(PRIOR, m, Noise(0, range(3))), means)


def test_below_sigma_min_it_goes_on_to_y():
    """By the score of sigma_min, of a Gaussian of variance v exact to sigma_min^2 / v; without noise it is y."""
    _, m = measured()
    least = PRIOR.sigma_min
    for noise in (0.0, least / 3):
        m = Measurement(m.y, m.operator, noise)
        x = PosteriorMean()(PRIOR, m, Noise(0, [0]))
        score = (PRIOR.denoise(m.y, least) - m.y) / least**2
        torch.testing.assert_close(x, m.y + noise**2 * score)


def test_restore_takes_one_evaluation_for_the_picture():
    _, m = measured()
    result = restore(m, DENOISER)
    assert (result.estimator, result.sampler) == (PosteriorMean(), None)
    assert result.network_evaluations == 1
    by_hand = PosteriorMean()(PRIOR, m, Noise(0, [0]))[0].float()
    torch.testing.assert_close(result.mean, by_hand, rtol=0, atol=1e-6)  # in single precision
    assert torch.equal(restore(m, DENOISER, seed=1).mean, result.mean)  # there is nothing to draw
    # by its name its samples are all the same
    named = restore(m, DENOISER, sampler="posterior-mean", n=2)
    assert (named.std == 0).all()
    assert torch.equal(named.mean, result.mean)


def test_with_several_samples_these_are_draws_and_the_picture_is_the_mean_of_all_that_might_be():
    n = 2000
    _, m = measured()
    result = restore(m, n=n)
    assert (result.sampler, result.estimator) == (Exact(), ExactMean())
    posterior = posterior_of(PRIOR, m)
    torch.testing.assert_close(result.mean, posterior.mean.float())
    # which the denoiser knows too, by one evaluation
    torch.testing.assert_close(restore(m, DENOISER).mean, result.mean, rtol=0, atol=2e-5)
    assert torch.equal(result.image, result.mean.clamp(0, 1))
    deviation = posterior.sample(n, seed=3).std(0)
    # the deviation of a deviation of n draws, twice over, is 1 / sqrt(n) of it; 5 of them for 192 pixels
    assert (result.std / deviation - 1).abs().max() < 5 / math.sqrt(n)
    assert not torch.equal(result.samples.mean(0), result.mean)


def test_it_is_nearer_the_truth_than_a_draw_and_the_mean_of_eight():
    x, m = measured(20)
    error = {n: float((restore(m, n=n, sampler="exact").mean - x).square().mean()) for n in (1, 8)}
    least = float((restore(m).mean - x).square().mean())
    # of exact draws the mean of n has 1 + 1 / n times the error: within 10 % for 20 images of 192 values
    assert error[1] / least == pytest.approx(2, rel=0.1)
    assert error[8] / least == pytest.approx(1 + 1 / 8, rel=0.1)


@pytest.mark.parametrize("options", [{"sampler": "diffpir"}, {"sampler": DiffPIR(steps=4)}])
def test_a_sampler_that_is_named_chooses_the_way_by_many_steps(options):
    _, m = measured()
    result = restore(m, DENOISER, **options)
    assert isinstance(result.sampler, DiffPIR)
    assert result.estimator is None
    assert torch.equal(result.mean, result.samples[0])


def test_steps_are_those_of_the_draws_and_leave_the_picture_as_it_is():
    _, m = measured()
    alone, drawn = restore(m, DENOISER, steps=4), restore(m, DENOISER, steps=4, n=1)
    assert drawn.sampler == DiffPIR(steps=4)
    for result in (alone, drawn):
        assert result.estimator == PosteriorMean()
        assert torch.equal(result.mean, restore(m, DENOISER).mean)
    assert (alone.network_evaluations, drawn.network_evaluations) == (1, 1 + 4)


def test_priors_without_a_denoiser_keep_what_they_had():
    class Energetic(Prior):
        image_shape, centre, spread = SHAPE, 0.5, 0.25

        def log_prob(self, x):
            return -((x - 0.5) ** 2).flatten(1).sum(1)

    _, m = measured()
    assert isinstance(restore(m, Energetic()).sampler, MAP)


def test_other_measurements_than_denoising_are_refused_and_masks_without_holes_are_not():
    x, m = measured()
    holes = torch.zeros(SHAPE, dtype=torch.bool)
    whole = Measurement(m.y, Inpaint(holes, SHAPE), NOISE)
    for prior, estimator in ((PRIOR, ExactMean()), (DENOISER, PosteriorMean())):
        whole_picture, picture = restore(whole, prior), restore(m, prior)
        assert whole_picture.estimator == picture.estimator == estimator
        assert torch.equal(whole_picture.mean, picture.mean)
        assert torch.equal(restore(whole, prior, n=1).samples, restore(m, prior, n=1).samples)
    holes[:, :2] = True
    A = Inpaint(holes, SHAPE)
    assert not isinstance(restore(Measurement(A(x), A, NOISE), DENOISER).estimator, PosteriorMean)
    with pytest.raises(UnsupportedError, match=r"denoising.*Inpaint"):
        restore(Measurement(A(x), A, NOISE), sampler="posterior-mean")


def test_each_image_has_its_own_noise():
    _, m = measured(2)
    noises = torch.tensor([0.05, 0.2]).reshape(2, 1, 1, 1)
    for prior in (PRIOR, DENOISER):
        both = restore(Measurement(m.y, m.operator, noises), prior).mean
        for i, noise in enumerate((0.05, 0.2)):
            alone = restore(Measurement(m.y[i : i + 1], m.operator, noise), prior).mean
            torch.testing.assert_close(both[i], alone)


@pytest.mark.parametrize("law", [Poisson(1 / 30), Poisson(0.1), PoissonGaussian(1 / 30, 0.05)], ids=str)
def test_of_photon_noise_the_picture_is_within_a_hundredth_of_the_least_error(law):
    """8,192 independent pixels, whose posterior mean is known by quadrature; one noise level for all would miss it."""
    shape, sd = (1, 64, 64), 0.15
    prior = Gaussian(torch.full(shape, 0.5, dtype=torch.float64), torch.full(shape, sd**2, dtype=torch.float64))
    x = prior.sample(2, seed=1)
    y = law.sample(x.clamp_min(0), Noise(2, [0, 1]))
    least, _ = law.moments(y, torch.full_like(y, 0.5), torch.full_like(y, sd**2))
    picture = PosteriorMean()(prior, Measurement(y, Denoise(shape), law), Noise(0, [0, 1]))
    one_level = prior.denoise(y, law.predicted(y.mean().reshape(1, 1, 1, 1))[1].sqrt())
    error, best, plain = ((made - x).square().mean().sqrt() for made in (picture, least, one_level))
    assert best < error < 1.01 * best
    assert error < best + 0.75 * (plain - best)


def test_of_photon_noise_on_a_smooth_image_the_picture_is_near_the_exact_mean():
    """Pixels hang together over a few neighbours, and grow from dark to bright across the image. With the noise of
    each pixel known, E[x | y] is a linear solve; 8 images of 1,024 pixels tell errors apart to a hundredth or so."""
    shape, gain = (1, 32, 32), 0.1
    k = torch.fft.fftfreq(32)[:, None].square() + torch.fft.fftfreq(32).square()
    covariance = Stationary(0.3 * torch.exp(-200 * k)[None].double() + 1e-6, torch.eye(1, dtype=torch.float64))
    prior = Gaussian(torch.linspace(0.1, 1, 32).expand(shape).double(), covariance)
    x = prior.sample(8, seed=1).clamp_min(0.02)
    law = Poisson(gain)
    y = law.sample(x, Noise(2, range(8)))
    V = covariance.filter(torch.eye(1024, dtype=torch.float64).reshape(-1, *shape), covariance.eigenvalues).flatten(1)
    level = (gain * x).flatten(1)  # of the truth, which the picture does not know
    system = V + torch.diag_embed(level)
    mean = prior.mean.flatten()
    exact = (mean + torch.linalg.solve(system, y.flatten(1) - mean) @ V).reshape(x.shape)
    made = {
        "exact": exact,
        "picture": PosteriorMean()(prior, Measurement(y, Denoise(shape), law), Noise(0, range(8))),
        "one level": prior.denoise(y, level.mean().sqrt()),
    }
    error = {name: float((each - x).square().mean().sqrt()) for name, each in made.items()}
    assert error["exact"] < error["picture"] < 1.015 * error["exact"], error
    assert error["one level"] > 1.035 * error["exact"], error


@pytest.mark.parametrize("turns", [False, True])
def test_evaluations_of_photon_noise_are_counted(turns):
    asked = 0

    def denoise(x_t, sigma):
        nonlocal asked
        asked += len(x_t)
        return x_t / (1 + 4 * sigma**2)

    prior = genprior.from_denoiser(denoise, (1, None, None))
    asked = 0  # but for the look at whether it is a denoiser
    y = 0.1 * torch.arange(48.0).reshape(1, 6, 8).remainder(9)
    options = {"noise": Poisson(0.1), "sampler": PosteriorMean(turns=turns), "seed": 0, "progress": False}
    result = genprior.restore(y, "denoise", prior, **options)
    assert asked == result.network_evaluations == 8
