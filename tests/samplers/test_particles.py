"""Clouds of weighted particles: resampling, draws from them, and what `restore` says of them."""

import math
import sys

import pytest
import torch
from clouds import gaussian, normal, of_clouds, one_cloud

import genprior
from genprior import devices, drawing
from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Measurement, gaussian_kernel, random_mask
from genprior.priors.base import Prior
from genprior.samplers import MMPS, SMC, TDS, MCGDiff, TDSMoments
from genprior.samplers.particles.base import (
    begin_free,
    draw_from_clouds,
    effective_size,
    log_mean,
    resample,
    systematic,
    twisted_filter,
)
from genprior.truth.gaussian import blind, correlated

SHAPE = (1, 4, 4)
SAMPLERS = {
    "tds": TDS(3, 5),
    "tds-moments": TDSMoments(3, 5),
    "smc": SMC(3, 5),
    "smc by mmps": SMC(3, 5, proposal=MMPS()),
    "mcgdiff": MCGDiff(3, 5),
}
every_sampler = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
ESS = "effective sample size"


class At:
    """Noise whose uniform numbers are all one number."""

    def __init__(self, u):
        self.u = u

    def uniform(self, like):
        return torch.full_like(like, self.u)


# ---- resampling ----


@pytest.mark.parametrize("P", [1, 2, 7, 1000])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_systematic_resampling_takes_each_particle_p_w_times_rounded_up_or_down(P, spread):
    log_w = spread * normal(P)
    expected = P * log_w.softmax(0)
    for u in (1e-6, 0.3, 0.5, 1 - 1e-6):
        taken = systematic(log_w, At(u))
        counts = torch.bincount(taken, minlength=P)
        assert len(taken) == len(counts) == P
        assert ((counts - expected).abs() < 1 + 1e-9).all()


def test_systematic_resampling_is_unbiased():
    """How often a particle is taken is a step function of the uniform number, with two steps at most: its mean over the
    middles of N equal cells is within 2 / N of that over all numbers, P w.
    """
    log_w, N = normal(8), 1000
    taken = torch.stack([systematic(log_w, At((k + 0.5) / N)) for k in range(N)])
    mean = torch.bincount(taken.flatten(), minlength=8) / N
    assert (mean - 8 * log_w.softmax(0)).abs().max() < 2 / N


def test_particles_without_weight_and_diverged_ones_are_never_taken():
    """Whether they come first, last or between."""
    log_w = torch.tensor([-math.inf, 0.0, math.nan, 1.0, -math.inf, -400.0, math.nan])
    for u in (1e-6, 0.5, 1 - 1e-6):
        assert set(systematic(log_w, At(u)).tolist()) == {1, 3}
    assert float(effective_size(log_w)) == pytest.approx(float(effective_size(torch.tensor([0.0, 1.0]))))


def test_particles_that_diverged_count_as_of_weight_0():
    """In the mean of weights, which is over all particles."""
    log_w = torch.tensor([2.0, math.nan, 4.0, math.nan]).log()
    assert float(log_mean(log_w)) == pytest.approx(math.log(6 / 4))


def test_many_particles_in_single_precision_leave_none_out():
    """Of equal weights, whose sums are rounded: each is taken once, or where rounding moved a bound, twice or not."""
    P = 100_000
    counts = torch.bincount(systematic(torch.zeros(P), At(0.5)), minlength=P)
    assert counts.max() <= 2
    assert (counts != 1).float().mean() < 0.01


def test_effective_size_is_p_for_equal_weights_and_1_for_a_single_one():
    assert float(effective_size(torch.full((10,), 1e6))) == pytest.approx(10)
    assert float(effective_size(torch.tensor([0.0, 800.0, 0.0]))) == pytest.approx(1)
    w = torch.tensor([0.2, 0.3, 0.5])
    assert float(effective_size(w.log() - 7)) == pytest.approx(1 / float((w**2).sum()))


def test_where_no_resampling_is_needed_particles_and_weights_stay():
    log_w = normal(6)
    kept, same = resample(log_w, one_cloud(6), torch.tensor(False))
    assert kept.tolist() == list(range(6))
    assert torch.equal(same, log_w)
    kept, equal = resample(log_w, At(0.5), torch.tensor(True))
    assert torch.equal(kept, systematic(log_w, At(0.5)))
    assert torch.allclose(equal, log_w.exp().mean().log().expand(6), rtol=0, atol=1e-12)


# ---- the filter ----


def test_filter_keeps_a_particle_that_diverged_out_of_the_cloud():
    def twist(x_t, sigma, sigma_next):
        x_hat = torch.where(x_t > 50, math.nan, 0.5 * x_t)
        return x_hat, x_hat, torch.zeros(len(x_t)).double()

    x = normal(6, 1, 1, 1)
    x[2] = 100.0
    noise = one_cloud(6)
    drawn, log_w, smallest = twisted_filter(twist, x, [1.0, 0.5, 0.1, 0.0], noise, threshold=0.9)
    assert torch.isfinite(drawn[systematic(log_w, noise)]).all()
    assert float(smallest) == pytest.approx(5)


def test_levels_that_do_not_end_with_0_are_refused():
    with pytest.raises(ValueError, match="end with 0"):
        twisted_filter(lambda x, *_: (x, x, x.flatten()), normal(2, 1, 1, 1), [1.0, 0.5], one_cloud(2), 0.5)


def test_particles_begin_with_the_moments_that_a_prior_declares():
    """8000 values: 4 standard errors of their mean and variance."""
    prior, one = gaussian()
    x = begin_free(prior, one, 3.0, one_cloud(2000)) - prior.mean
    variance = 9 + prior.spread**2
    assert abs(float(x.mean())) < 4 * math.sqrt(variance / 8000)
    assert abs(float(x.square().mean()) / variance - 1) < 4 * math.sqrt(2 / 8000)


@every_sampler
def test_nothing_seen_leaves_all_weights_equal(sampler):
    prior = correlated(SHAPE)
    one = Measurement(torch.full((1, *SHAPE), 9.0).double(), blind(SHAPE), 0.1)
    _, told = of_clouds(sampler, prior, one, 5, count=1)
    assert torch.allclose(told[ESS], torch.ones(1, 5).double())


# ---- draws ----


def numbered(log_w):
    """A filter whose particle number i is an image of the value i."""

    def run(one, cloud):
        P = len(cloud.image)
        return torch.arange(P).double().reshape(-1, 1, 1, 1), log_w[:P].clone(), torch.tensor(2.0).double()

    return run


def drawn(run, image, sample, particles=6, seed=0):
    y = torch.zeros(len(image), 1, 1, 1).double()
    x, told = draw_from_clouds(run, Measurement(y, blind((1, 1, 1)), 0.1), Noise(seed, image, sample), particles)
    return x.flatten().tolist(), told[ESS].tolist()


def test_draws_have_the_weights_of_their_cloud():
    """One draw of each of 800 seeds: 3.9 standard errors of six shares, which chance exceeds once in 2000."""
    log_w, N = normal(6), 800
    first = [drawn(numbered(log_w), [0], [0], seed=seed)[0][0] for seed in range(N)]
    shares = torch.bincount(torch.tensor(first).long(), minlength=6) / N
    w = log_w.softmax(0)
    assert ((shares - w).abs() < 3.9 * (w * (1 - w) / N).sqrt()).all()


def test_equal_particles_are_each_drawn_once():
    x, _ = drawn(numbered(torch.zeros(6)), [0] * 6, range(6))
    assert sorted(x) == list(range(6))
    assert x != list(range(6))  # neighbours of a cloud may be copies: the order is random


def test_draw_depends_on_its_image_and_sample_number_alone():
    """Whatever rows there are, in whatever order, as long as the cloud is."""
    run = numbered(normal(6))
    image, sample = [7, 3, 7, 3, 7, 3], [0, 0, 1, 1, 4, 5]
    x, _ = drawn(run, image, sample)
    of = dict(zip(zip(image, sample), x))
    for order in ([3, 1, 5, 0, 4, 2], [4, 0], [5], [2, 2]):
        again, _ = drawn(run, [image[i] for i in order], [sample[i] for i in order])
        assert again == [of[image[i], sample[i]] for i in order]


def test_more_samples_than_particles_come_from_clouds_of_their_own():
    """15 of clouds of 6: samples 6 to 11 and 12 to 14 have a cloud each, of other noise, and the first ones stay."""
    clouds = []

    def run(one, cloud):
        clouds.append(cloud.sample.tolist())
        return cloud.sample.double().reshape(-1, 1, 1, 1), torch.zeros(6).double(), torch.tensor(2.0).double()

    x, share = drawn(run, [0] * 15, range(15))
    assert clouds == [[*range(6)], [*range(6, 12)], [*range(12, 18)]]
    assert sorted(x[:6]) == list(range(6))
    assert sorted(x[6:12]) == list(range(6, 12))
    assert set(x[12:]) < set(range(12, 18))
    assert share == pytest.approx([2 / 6] * 15)
    for few in ([0, 1], [14, 3], [7]):
        assert drawn(run, [0] * len(few), few)[0] == [x[k] for k in few]


def batch(prior, count=3):
    """Images with masks and noise levels of their own."""
    masks = torch.stack([random_mask(SHAPE, fraction, 0) for fraction in (0.3, 1.0, 0.6)[:count]])
    A = Inpaint(masks, SHAPE)
    noise = torch.tensor([0.0, 0.1, 1.0]).double().reshape(-1, 1, 1, 1)[:count]
    return Measurement(A(prior.sample(count, seed=1)), A, noise)


@every_sampler
def test_images_in_any_order_and_number_are_drawn_as_alone(sampler):
    prior = correlated(SHAPE)
    measurement = batch(prior)
    image, sample = torch.tensor([2, 0, 1, 2, 0, 2]), torch.tensor([0, 1, 0, 2, 0, 1])
    with torch.no_grad():
        together, told = sampler.draw(prior, measurement.select(image), Noise(0, image, sample))
        for i in range(6):
            alone, figure = sampler.draw(prior, measurement.select(image[i : i + 1]), Noise(0, image[[i]], sample[[i]]))
            assert torch.equal(alone[0], together[i])
            assert figure[ESS][0] == told[ESS][i]


@every_sampler
def test_particles_in_chunks_are_the_same_to_rounding(sampler, monkeypatch):
    prior = correlated(SHAPE)
    measurement = batch(prior, 1)
    whole, _ = of_clouds(sampler, prior, measurement, 5, count=1)
    monkeypatch.setitem(devices.PIXELS_AT_ONCE, "cpu", 2 * 16)  # two particles at a time
    calls = []
    denoise = prior.denoise
    prior.denoise = lambda x_t, sigma: (calls.append(len(x_t)), denoise(x_t, sigma))[1]
    parts, _ = of_clouds(sampler, prior, measurement, 5, count=1)
    assert set(calls) == {1, 2}
    assert torch.allclose(whole, parts, rtol=0, atol=1e-9)


# ---- restore ----


class Counted(Prior):
    """A prior that counts the images that pass its denoiser, and those that pass back."""

    def __init__(self, prior):
        super().__init__()
        self.prior, self.passes = prior, 0
        for name in ("image_shape", "centre", "spread", "sigma_min", "sigma_max"):
            setattr(self, name, getattr(prior, name))

    def denoise(self, x_t, sigma):
        self._count(x_t)
        x_hat = self.prior.denoise(x_t, sigma)
        if x_hat.requires_grad:
            x_hat.register_hook(self._count)
        return x_hat

    def _count(self, images):
        self.passes += len(images)


def restored(sampler, prior=None, images=2, **options):
    y = torch.rand(images, *SHAPE, generator=torch.Generator().manual_seed(0))
    mask = random_mask(SHAPE, 0.5, 0)
    options = {"noise": 1.0, "seed": 0, "progress": False, **options}
    return genprior.restore(list(y), "inpaint", prior or correlated(SHAPE), mask=mask, sampler=sampler, **options)


@every_sampler
@pytest.mark.parametrize("n", [1, 3, 8])  # of clouds of 5
def test_network_evaluations_are_those_of_the_cloud_shared_by_the_draws(sampler, n):
    prior = Counted(correlated(SHAPE))
    result = restored(sampler, prior, images=2, n=n)
    assert result.network_evaluations == n * math.ceil(prior.passes / (2 * n))


@every_sampler
@pytest.mark.parametrize("n", [1, 8])
def test_progress_ends_at_its_total(sampler, n, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    totals = []

    class Bar(drawing.tqdm):
        def close(self):
            totals.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(drawing, "tqdm", Bar)
    restored(sampler, n=n, progress=True)
    assert all(n == total > 0 for n, total in totals)
    assert totals


@every_sampler
def test_restore_tells_the_effective_sample_size_of_each_cloud(sampler):
    told = restored(sampler, n=3).diagnostics[ESS]
    assert told.shape == (2, 3)
    assert torch.equal(told, told[:, :1].expand(2, 3))
    assert told[0, 0] != told[1, 0]
    assert ((told > 1 / 5 - 1e-6) & (told < 1 + 1e-6)).all()
    assert "effective sample size" in str(restored(sampler, images=1))


@every_sampler
def test_restored_sample_does_not_depend_on_how_many_or_on_other_images(sampler):
    """Up to as many as there are particles, 5, a random order of all of them, and beyond."""
    whole = restored(sampler, images=2, n=12).samples
    for n in (2, 5, 8):
        assert torch.equal(restored(sampler, images=2, n=n).samples, whole[:, :n])
    assert torch.equal(restored(sampler, images=1, n=12).samples, whole[0])
    assert len(whole[0].flatten(1).unique(dim=0)) > 5


@every_sampler
def test_one_particle_and_more_samples_than_particles_are_drawn(sampler):
    one = type(sampler)(2, 1)
    result = restored(one, images=1)
    assert torch.isfinite(result.samples).all()
    assert result.diagnostics[ESS].tolist() == [1.0]
    many = restored(one, images=1, n=3)
    assert many.samples.shape == (3, *SHAPE)
    assert many.diagnostics[ESS].tolist() == [1.0, 1.0, 1.0]
    assert len(many.samples.flatten(1).unique(dim=0)) == 3


def test_operators_by_conjugate_gradients_are_taken():
    prior = correlated(SHAPE)
    A = Blur(gaussian_kernel(0.5, 3), SHAPE, "valid")
    one = Measurement(A(prior.sample(1, seed=1)), A, 0.1)
    for sampler in (TDS(3, 4), TDSMoments(3, 4), SMC(3, 4)):
        assert torch.isfinite(of_clouds(sampler, prior, one, 4, count=1)[0]).all()
