"""Samplers against their own equations, written out for images of two independent pixels, one of which is seen.

All of these are affine in their noises where the prior is Gaussian: rows of noise that are the unit vectors give the
matrix of the draws, and with it their exact covariance, no Monte Carlo in it. Each pixel is a scalar recursion
x' = a x + b with noise of its own, which the tests write anew, in the docstrings' terms. Everything agrees to rounding.
"""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from genprior.noise import Noise
from genprior.operators import Denoise, Inpaint, Matrix, Measurement
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.samplers.annealing.daps import DAPSHMC, DAPSLangevin, moments
from genprior.samplers.annealing.ddnm import DDNM
from genprior.samplers.annealing.ddrm import DDRM, begin_at_y
from genprior.samplers.annealing.dpir import DPIR
from genprior.samplers.annealing.gibbs import SplitGibbs
from genprior.samplers.annealing.reddiff import REDDiff
from genprior.samplers.annealing.repaint import RePaint
from genprior.samplers.chains.langevin import posterior
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.guidance.pigdm import PiGDM
from genprior.samplers.guidance.probed_covariance import ProbedCovariance
from genprior.samplers.integrate import geometric, karras, variance_preserving

SHAPE = (1, 1, 2)
V = 0.06  # the prior's variance
LEVEL = 0.1
EXACT = {"rtol": 0, "atol": 1e-12}


def prior():
    return Gaussian(torch.full(SHAPE, 0.5, dtype=torch.float64), torch.full(SHAPE, V, dtype=torch.float64))


def seen_and_unseen(rows=1, noise=LEVEL):
    """The first pixel is seen, as 0.9, the second is a hole."""
    A = Inpaint(torch.tensor([[False, True]]), SHAPE)
    return Measurement(
        torch.tensor([0.9, 0.0], dtype=torch.float64).reshape(1, 1, 1, 2).expand(rows, -1, -1, -1), A, noise
    )


class Units:
    """Noise whose rows are the unit vectors of all that is asked for, in turn, and a last row of zeros."""

    def __init__(self, values):
        self.image = torch.zeros(values + 1, dtype=torch.long)
        self.values, self.used = values, 0

    def __call__(self, like):
        size = like[0].numel()
        unit = torch.zeros(self.values + 1, size, dtype=like.dtype)
        if self.values:
            unit[range(self.used, self.used + size), range(size)] = 1
        self.used += size
        return unit.reshape(like.shape)


class Zeros(Units):
    def __call__(self, like):
        self.used += like[0].numel()
        return torch.zeros_like(like)


def covariance_of_draws(sampler):
    """(2, 2), and the mean (2,)."""
    with torch.no_grad():
        count = Zeros(0)
        sampler.sample(prior(), seen_and_unseen(), count)
        units = Units(count.used)
        draws = sampler.sample(prior(), seen_and_unseen(count.used + 1), units).flatten(1)
    matrix = (draws[:-1] - draws[-1]).T
    return matrix @ matrix.T, draws[-1]


def start(sigma):
    """`begin`: means and variances of both pixels at the first level."""
    trust = V / (V + LEVEL**2)
    return [0.5 + trust * (0.9 - 0.5), 0.5], [sigma**2, sigma**2]


def free(sigma):
    """E[x | x_t] = a x_t + b."""
    a = V / (V + sigma**2)
    return a, (1 - a) * 0.5


def given_y(sigma):
    """E[x | x_t, y] = a x_t + b of the seen pixel: precisions add."""
    precision = 1 / V + 1 / sigma**2 + 1 / LEVEL**2
    return 1 / sigma**2 / precision, (0.5 / V + 0.9 / LEVEL**2) / precision


def levels(steps):
    return list(pairwise(geometric(prior().sigma_max, prior().sigma_min, steps)))


def run(steps, *pixels, begin=start):
    """Means and variances after steps x' = a x + b + c n, a pixel's (sigma, sigma') -> (a, b, c) each."""
    means, variances = begin(steps[0][0])
    for sigma, sigma_next in steps:
        for i, pixel in enumerate(pixels):
            a, b, c = pixel(sigma, sigma_next)
            means[i], variances[i] = a * means[i] + b, a**2 * variances[i] + c**2
    return means, variances


def compare(sampler, means, variances):
    covariance, mean = covariance_of_draws(sampler)
    torch.testing.assert_close(covariance, torch.diag(torch.tensor(variances, dtype=torch.float64)), **EXACT)
    torch.testing.assert_close(mean, torch.tensor(means, dtype=torch.float64), **EXACT)


def ancestral(of, eta=1.0):
    """x' = x_hat + kept / sigma (x - x_hat) + fresh n, with x_hat = a x + b."""

    def step(sigma, sigma_next):
        a, b = of(sigma)
        fresh = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)
        kept = math.sqrt(sigma_next**2 - fresh**2) / sigma
        return a + kept * (1 - a), (1 - kept) * b, fresh

    return step


def fresh(of, eta=1.0):
    """x' = x_hat + sigma' (sqrt(1 - eta) (x - x_hat) / sigma + sqrt(eta) n), with x_hat = a x + b."""

    def step(sigma, sigma_next):
        a, b = of(sigma)
        kept = sigma_next * math.sqrt(1 - eta) / sigma
        return a + kept * (1 - a), (1 - kept) * b, sigma_next * math.sqrt(eta)

    return step


@pytest.mark.parametrize("eta", [1.0, 0.6, 0.0])
def test_mmps(eta):
    """White priors have one eigenvalue on each pixel: two iterations solve exactly."""
    sampler = MMPS(steps=4, iterations=2, eta=eta, integrator="ancestral")
    compare(sampler, *run(levels(4), ancestral(given_y, eta), ancestral(free, eta)))


@pytest.mark.parametrize("eta", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("integrator", ["ancestral", "fresh"])
@pytest.mark.parametrize("sampler", [OptimalCovariance(iterations=1), ProbedCovariance(iterations=2)])
def test_optimal_and_probed_covariance(sampler, integrator, eta):
    """V is a multiple of I, and so is A^T A on each pixel: the preconditioned iteration is exact at once.

    Where V is taken for stationary, on two waves, it takes two.

    The last ancestral step draws, unless no step does: the precisions of x_t, of the prior and of y add.
    """
    step = {"ancestral": ancestral, "fresh": fresh}[integrator]
    draws = integrator == "ancestral" and eta > 0

    def ending_in_a_draw(of, precision):
        def pixel(sigma, sigma_next):
            if sigma_next or not draws:
                return step(of, eta)(sigma, sigma_next)
            return *of(sigma), 1 / math.sqrt(precision + 1 / sigma**2)

        return pixel

    sampler = replace(sampler, steps=4, eta=eta, start=None, integrator=integrator)
    seen, unseen = ending_in_a_draw(given_y, 1 / V + 1 / LEVEL**2), ending_in_a_draw(free, 1 / V)
    compare(sampler, *run(levels(4), seen, unseen))


@pytest.mark.parametrize("eta", [1.0, 0.6])
def test_pigdm(eta):
    def seen(sigma, sigma_next):
        a, b, fresh = ancestral(free, eta)(sigma, sigma_next)
        slope, centre = free(sigma)
        variance = sigma**2 * V / (sigma**2 + V)
        # g = J (0.9 - x_hat) / (r^2 + noise^2)
        gain = slope / (variance + LEVEL**2)
        kept = math.sqrt(sigma_next**2 - fresh**2)
        weight = min(variance, sigma**2 - sigma * kept)
        return a - weight * gain * slope, b + weight * gain * (0.9 - centre), fresh

    compare(PiGDM(steps=6, eta=eta), *run(levels(6), seen, ancestral(free, eta)))


@pytest.mark.parametrize("eta", [1.0, 0.4])
@pytest.mark.parametrize("weight", [1.0, 3.0])
def test_diffpir(weight, eta):
    def fitted(sigma):
        """argmin |0.9 - x|^2 + weight noise^2 / sigma^2 |x - x_hat|^2."""
        a, b = free(sigma)
        trust = 1 / (1 + weight * LEVEL**2 / sigma**2)
        return (1 - trust) * a, (1 - trust) * b + trust * 0.9

    sampler = DiffPIR(steps=5, weight=weight, eta=eta, start=None, coarse=0)
    compare(sampler, *run(levels(5), fresh(fitted, eta), fresh(free, eta)))


@pytest.mark.parametrize("first", [0.8, 2.0, 0.1])
@pytest.mark.parametrize("weight", [0.15, 3.0])
def test_dpir(weight, first):
    """Levels even in ln sigma from `first` spreads, or the noise if that is more, to the noise; no noise is drawn."""
    high = max(first * math.sqrt(V), LEVEL)
    means = start(0)[0]
    for k in range(5):
        sigma = high ** (1 - k / 4) * LEVEL ** (k / 4)
        # argmin |0.9 - x|^2 + weight noise^2 / sigma^2 |x - x_hat|^2
        trust = 1 / (1 + weight * LEVEL**2 / sigma**2)
        means[0] = (1 - trust) * means[0] + trust * 0.9
        a, b = free(sigma)
        means = [a * mean + b for mean in means]
    compare(DPIR(steps=5, weight=weight, first=first), means, [0, 0])


def test_dpir_with_grain():
    """s^2 = (0.7 sigma)^2 - (what y lets in)^2, the mean of both pixels; the hole lets in none."""
    still, weight = Noise(0, [0]), 3.0
    z = float(still(torch.empty(1, *SHAPE, dtype=torch.float64)).flatten()[0])
    high = 0.8 * math.sqrt(V)
    means = start(0)[0]
    for k in range(5):
        sigma = high ** (1 - k / 4) * LEVEL ** (k / 4)
        trust = 1 / (1 + weight * LEVEL**2 / sigma**2)
        means[0] = (1 - trust) * means[0] + trust * 0.9
        s = math.sqrt(max(0.0, (0.7 * sigma) ** 2 - (LEVEL * trust * z) ** 2 / 2))
        n = still(torch.empty(1, *SHAPE, dtype=torch.float64)).flatten().tolist()
        a, b = free(sigma)
        means = [a * (mean + s * each) + b for mean, each in zip(means, n)]
    compare(DPIR(steps=5, weight=weight, grain=0.7), means, [0, 0])


def test_dpir_of_less_noise_than_the_prior_knows_ends_at_its_least():
    """For noise 0, `floor` says sigma_min / 5, and no denoiser is asked for less than sigma_min."""
    asked = []

    class Asked(Gaussian):
        def denoise(self, x_t, sigma, label=None):
            asked.append(float(sigma))
            return super().denoise(x_t, sigma)

    p = Asked(prior().mean, prior().covariance.eigenvalues)
    x = DPIR(steps=6)(p, seen_and_unseen(noise=0.0), Noise(0, [0]))
    wanted = [0.8 * math.sqrt(V) * (p.sigma_min / (0.8 * math.sqrt(V))) ** (k / 5) for k in range(6)]
    assert asked == pytest.approx(wanted, rel=1e-6)
    # to x_y, of which 1 / (1 + 25 / 0.15) is x_hat's at the end, the denoiser adds sigma_min^2 / V of the way back
    assert abs(float(x[0, 0, 0, 0]) - 0.9) < 5 * p.sigma_min
    asked.clear()
    DPIR(steps=6, first=1e6)(p, seen_and_unseen(noise=0.0), Noise(0, [0]))
    assert asked[0] == pytest.approx(p.sigma_max, rel=1e-6)
    # noise above all that: one level, asked for again and again
    asked.clear()
    DPIR(steps=3)(p, seen_and_unseen(noise=2.0), Noise(0, [0]))
    assert asked == pytest.approx([2.0] * 3, rel=1e-6)


def travelling(steps, length, repeats, descend, last_once=False):
    """Stretches of `length` steps, gone through `repeats` times; what leads back has the variance that is lacking."""
    means, variances = start(steps[0][0])
    stretches = [steps[i : i + length] for i in range(0, len(steps), length)]
    for stretch in stretches:
        times = 1 if last_once and stretch is stretches[-1] else repeats
        back = stretch[0][0] ** 2 - stretch[-1][1] ** 2
        for repeat in range(times):
            means, variances = descend(stretch, means, [v + back * (repeat > 0) for v in variances], repeat)
    return means, variances


@pytest.mark.parametrize("eta", [0.85, 0.3])
def test_ddnm(eta):
    kept, fresh = math.sqrt(1 - eta**2), eta

    def seen(sigma, sigma_next):
        a, b = free(sigma)
        if sigma_next < LEVEL:
            trust = sigma_next * kept / LEVEL
            return (1 - trust) * a, (1 - trust) * b + trust * 0.9, fresh * sigma_next
        return 0, 0.9, math.sqrt(sigma_next**2 - LEVEL**2)

    def unseen(sigma, sigma_next):
        a, b = free(sigma)
        old = sigma_next * kept / sigma
        return a + old * (1 - a), (1 - old) * b, fresh * sigma_next

    def descend(stretch, means, variances, repeat):
        return run(stretch, seen, unseen, begin=lambda sigma: (means, variances))

    expected = travelling(levels(7), 2, 3, descend)
    compare(DDNM(steps=7, eta=eta, travel=2, repeats=3), *expected)


def test_ddrm():
    def seen(sigma, sigma_next):
        a, b = free(sigma)
        if sigma_next < LEVEL:
            trust = sigma_next * math.sqrt(1 - 0.7**2) / LEVEL
            return (1 - trust) * a, (1 - trust) * b + trust * 0.9, 0.7 * sigma_next
        return 0.4 * a, 0.4 * b + 0.6 * 0.9, math.sqrt(sigma_next**2 - (0.6 * LEVEL) ** 2)

    def unseen(sigma, sigma_next):
        a, b = free(sigma)
        old = sigma_next * math.sqrt(1 - 0.5**2) / sigma
        return a + old * (1 - a), (1 - old) * b, 0.5 * sigma_next

    def at_y(sigma):
        return [0.9, 0.5], [sigma**2 - LEVEL**2, sigma**2]

    compare(DDRM(steps=7, eta=0.7, eta_b=0.6, eta_c=0.5), *run(levels(7), seen, unseen, begin=at_y))


def test_repaint():
    def seen(sigma, sigma_next):
        if sigma_next >= LEVEL:
            return 0, 0.9, math.sqrt(sigma_next**2 - LEVEL**2)
        return ancestral(free)(sigma, sigma_next)

    def descend(stretch, means, variances, repeat):
        if repeat and stretch[-1][1] < LEVEL:  # below the noise, the repetitions are left out: undo the way back
            back = stretch[0][0] ** 2 - stretch[-1][1] ** 2
            return means, [v - back for v in variances]
        return run(stretch, seen, ancestral(free), begin=lambda sigma: (means, variances))

    expected = travelling(levels(8), 3, 3, descend, last_once=True)
    compare(RePaint(steps=8, jump=3, resamplings=3), *expected)


def test_split_gibbs():
    """z ~ p(z | x, y), then the reverse diffusion from z."""
    spread, low, high = prior().spread, prior().sigma_min, prior().sigma_max
    means, variances = start(0)[0], [0, 0]
    for k in range(3):
        rho = max(0.3, 5 * 0.5**k) * spread
        assert low < rho < high
        precision = 1 / rho**2 + 1 / LEVEL**2
        share = 1 / rho**2 / precision
        means = [share * means[0] + (1 - share) * 0.9, means[1]]
        variances = [share**2 * variances[0] + 1 / precision, variances[1] + rho**2]
        steps = list(pairwise(karras(rho, low, 4)))
        before = means, variances
        means, variances = run(steps, ancestral(free), ancestral(free), begin=lambda sigma, before=before: before)
    compare(SplitGibbs(steps=3, prior_steps=4, rho_0=5.0, rho_min=0.3, decay=0.5), means, variances)


def test_dps():
    """In the paper's coordinates: z = x_t / sqrt(1 + (sigma / unit)^2), lengths of z and y in multiples of unit."""
    sampler = DPS(zeta=0.3, steps=5, unit=0.4)
    p, one = prior(), seen_and_unseen()
    sigmas = variance_preserving(p.sigma_max, p.sigma_min, 5, 0.4)
    x = torch.tensor(start(sigmas[0])[0], dtype=torch.float64).reshape(1, *SHAPE)
    for sigma, sigma_next in pairwise(sigmas):
        alpha_bar, alpha_bar_next = (1 / (1 + (s / 0.4) ** 2) for s in (sigma, sigma_next))
        z = (x * math.sqrt(alpha_bar) / 0.4).requires_grad_()
        x_hat = p.denoise(0.4 * z / math.sqrt(alpha_bar), sigma)
        distance = (one.y - one.operator(x_hat)).norm() / 0.4
        (gradient,) = torch.autograd.grad(distance, z)
        r = (sigma_next / sigma) ** 2
        free_step = (r * x + (1 - r) * x_hat.detach()) * math.sqrt(alpha_bar_next) / 0.4
        x = 0.4 * (free_step - 0.3 * gradient) / math.sqrt(alpha_bar_next)
    found = sampler.sample(p, one, Zeros(0))
    torch.testing.assert_close(found, x, **EXACT)


@pytest.mark.parametrize("sigma", [0.05, 0.3, 2.0])
def test_moments_of_daps(sigma):
    """r^2 = sigma^2 tr J / D, exact for white images, whose J is a multiple of I; between its bounds, by spread."""
    p, x_t = prior(), prior().sample(3, seed=1)
    exact = sigma**2 * V / (sigma**2 + V)

    def r_square(denoise, spread):
        x_hat, r = moments(denoise, x_t, sigma, spread, Noise(0, range(3)))
        torch.testing.assert_close(x_hat, denoise(x_t, sigma), **EXACT)
        return r.square().flatten()

    def bound(spread):
        return sigma**2 * spread**2 / (sigma**2 + spread**2)

    def same(found, wanted):
        torch.testing.assert_close(found, torch.full_like(found, wanted), rtol=1e-12, atol=0)

    wide, narrow = 2 * math.sqrt(V), 0.5 * math.sqrt(V)
    same(r_square(p.denoise, wide), exact)
    same(r_square(p.denoise, narrow), bound(narrow))
    same(r_square(lambda x_t, sigma: -x_t, wide), 1e-4 * bound(wide))


@pytest.mark.parametrize("momentum", [None, 0.0, 0.8])
def test_inner_steps_of_daps(momentum):
    """One level, two inner steps, every pixel seen: of stiffness 1 / noise^2, as |A| = 1."""
    p, step, iterations = prior(), 0.3, 2
    sigma, A = p.sigma_max, Denoise(SHAPE)
    sampler = DAPSLangevin(steps=1, iterations=2, step=step)
    if momentum is not None:
        sampler = DAPSHMC(steps=1, iterations=2, step=step, momentum=momentum)
    y = torch.full((1, *SHAPE), 0.9, dtype=torch.float64)

    class Chosen(Units):
        """Of the stiffness and of the probe ones, of x_t zeros, then unit vectors."""

        def __call__(self, like):
            call, self.calls = getattr(self, "calls", 0), getattr(self, "calls", 0) + 1
            return (
                torch.zeros_like(like) if call == 1 else torch.ones_like(like) if call < 3 else super().__call__(like)
            )

    rows = 2 * iterations + 1
    with torch.no_grad():
        draws = sampler.sample(p, Measurement(y.expand(rows, -1, -1, -1), A, LEVEL), Chosen(rows - 1)).flatten(1)
    r_square = sigma**2 * V / (sigma**2 + V)
    precision = 1 / r_square + 1 / LEVEL**2
    h = step / precision
    m = momentum or 0.0
    # position and velocity of one pixel after each step, for a kick in the first or in the second
    first, second = ([0.0, 0.0] for _ in range(2))
    for k in range(iterations):
        for which, state in enumerate((first, second)):
            kick = math.sqrt(2 * (1 - m)) * (which == k)
            state[1] = m * state[1] - math.sqrt(h) * precision * state[0] + kick
            state[0] += math.sqrt(h) * state[1]
    matrix = draws[:-1] - draws[-1]
    eye = torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(matrix, torch.cat([first[0] * eye, second[0] * eye]), **EXACT)


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_begin_at_y_has_the_noise_of_the_level(noise):
    """y / s + sqrt(sigma^2 - (noise / s)^2) n with y = s x + noise n' has the variance sigma^2 about x."""
    A = Denoise(SHAPE)
    measurement = Measurement(torch.full((5, *SHAPE), 0.9, dtype=torch.float64), A, noise)
    x = begin_at_y(A.svd(), measurement, torch.zeros(5, *SHAPE, dtype=torch.float64), 0.7, Units(4)).flatten(1)
    matrix = (x[:2] - x[-1]).T
    left = (0.7**2 - noise**2) * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(matrix @ matrix.T, left, **EXACT)


def test_reddiff():
    """One value of two pixels: D / m = 2. By torch's Adam."""
    a, y, weight, steps = torch.tensor([0.8, 0.6], dtype=torch.float64), 0.9, 0.3, 6
    A, p = Matrix(a[None], SHAPE), prior()
    sampler = REDDiff(steps=steps, rate=0.2, weight=weight)
    found = sampler.sample(p, Measurement(torch.full((1, 1, 1, 1), y, dtype=torch.float64), A, LEVEL), Zeros(0))

    unit = 2 * math.sqrt(V)
    pull = V / (V * (a @ a) + LEVEL**2)
    mu = torch.nn.Parameter(0.5 + pull * a * (y - 0.5 * a.sum()))
    adam = torch.optim.Adam([mu], lr=0.2 * math.sqrt(V), betas=(0.9, 0.99), eps=1e-8)
    for sigma in variance_preserving(p.sigma_max, p.sigma_min, steps, unit)[:-1]:
        x_hat = 0.5 + V / (V + sigma**2) * (mu.detach() - 0.5)
        mu.grad = (2 * a * (a @ mu.detach() - y) + weight * (mu.detach() - x_hat)) / unit
        adam.step()
    torch.testing.assert_close(found.flatten(), mu.detach(), **EXACT)


def test_potential_of_a_posterior_and_its_gradient():
    """U(x) = energy(x) + |y - A x|^2 / (2 noise^2); HMC would hide a wrong energy among its rejections."""
    one, x = seen_and_unseen(3), prior().sample(3, seed=1).requires_grad_()
    energy, gradient = posterior(prior(), one)(x.detach())
    wanted = -prior().log_prob(x) + (x[:, 0, 0, 0] - 0.9) ** 2 / (2 * LEVEL**2)
    torch.testing.assert_close(energy, wanted.detach(), **EXACT)
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted.sum(), x)[0], **EXACT)
