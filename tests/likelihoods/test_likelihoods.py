"""Each likelihood against sums on fine grids: its moments, its draws, and that they notice a wrong parameter."""

import dataclasses
import math
import pickle

import numpy as np
import pytest
import torch

import genprior
from genprior.likelihoods import Clipped, Gaussian, Poisson, PoissonGaussian, Quantised
from genprior.likelihoods.named import named
from genprior.noise import Noise
from genprior.operators import Denoise, Measurement, physics_noise
from genprior.priors.flow import Flow
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE
from genprior.samplers import HMC, MAP, find_sampler

MEASURED = {
    Gaussian(0.1): (-0.2, 0.5),
    Poisson(1 / 30): (0.0, 1 / 30, 5 / 30, 1.0),
    Poisson(1 / 3): (2 / 3,),
    PoissonGaussian(1 / 30, 0.01): (-0.02, 0.0, 0.3, 1.0),
    PoissonGaussian(1 / 30, 0.2): (-0.02, 0.0, 0.3, 1.0),
    Quantised(0.02): (0.0, 0.5),
    Quantised(1.0): (0.0, 0.5),
    Clipped(0, 1, 0.05): (0.0, 0.4, 1.0),
    Clipped(0, 1, 0.002): (0.0, 0.4, 1.0),
}
CASES = [(law, y) for law, ys in MEASURED.items() for y in ys]
IDS = [f"{law}, y={y:.3g}" for law, y in CASES]
CAVITIES = [(m, sd) for m in (-0.3, 0.2, 0.5, 1.1) for sd in (0.03, 0.3)]


def grid(law, y, m, sd):
    """Mean, standard deviation, points and weights of the tilted law, in the cells of a grid of 1/2000 of its reach."""
    step = getattr(law, "step", 1.0)
    low, high = min(m, y) - 10 * sd - 0.5, max(m, y) + 10 * sd + 0.5
    low, high = (y - step / 2, y + step / 2) if isinstance(law, Quantised) else (low, high)
    low = 0.0 if "Poisson" in type(law).__name__ else low  # where their laws begin
    edges = torch.linspace(low, high, 60_001, dtype=torch.float64)
    z = (edges[1:] + edges[:-1]) / 2
    log_p = law.log_prob(torch.tensor(y, dtype=torch.float64), z) - (z - m) ** 2 / (2 * sd**2)
    p = log_p.softmax(0)
    mean = (p * z).sum()
    return mean, (p * (z - mean) ** 2).sum().sqrt(), z, p


def one(value, n=1):
    return torch.full((1, 1, 1, n), value, dtype=torch.float64)


@pytest.mark.parametrize(("law", "y"), CASES, ids=IDS)
def test_moments_are_those_of_quadrature(law, y):
    """The grid's own error is its squared cell over the deviation squared: below 1e-3 where a law is 1/100 wide."""
    for m, sd in CAVITIES:
        mean, deviation, *_ = grid(law, y, m, sd)
        got, variance = law.moments(one(y), one(m), one(sd**2))
        assert abs(got.item() - mean) < 1e-3 * deviation
        assert abs(variance.sqrt().item() / deviation - 1) < 1e-3


@pytest.mark.parametrize(("law", "y"), CASES, ids=IDS)
def test_draws_have_the_distribution_function_of_the_tilted_law(law, y):
    """Kolmogorov's distance of n draws is beyond 2 / sqrt(n) with a probability of 7e-4."""
    n, (m, sd) = 2000, (0.2, 0.3)
    _, _, z, p = grid(law, y, m, sd)
    x = law.conditional(one(y, n), one(m, n), one(sd**2), Noise(0, [0])).flatten().sort().values
    below = p.cumsum(0)[torch.searchsorted(z, x).clamp_max(len(z) - 1)]
    assert (below - torch.arange(n) / n).abs().max() < 2 / n**0.5


WRONG = [(law, field.name) for law in MEASURED for field in dataclasses.fields(law)]


@pytest.mark.parametrize(("law", "name"), WRONG, ids=[f"{law}, {name}" for law, name in WRONG])
def test_a_wrong_parameter_is_seen(law, name):
    """20 % off, or ends by 0.2: in one case or another by more than ten times what the test of moments allows."""
    seen = 0.0
    for y in MEASURED[law]:
        change = {"low": (-0.2, 1), "high": (0.2, 1)}.get(name, (0, 1.2))
        wrong = dataclasses.replace(law, **{name: getattr(law, name) * change[1] + change[0]})
        at_end = isinstance(law, Clipped) and y == getattr(law, name)
        for m, sd in CAVITIES:
            mean, deviation, *_ = grid(law, y, m, sd)
            got, variance = wrong.moments(one(getattr(wrong, name) if at_end else y), one(m), one(sd**2))
            off = max(abs(got.item() - mean) / deviation, abs(variance.sqrt().item() / deviation - 1))
            seen = max(seen, off.item())
    assert seen > 1e-2


@pytest.mark.parametrize("law", [Poisson(0.2), PoissonGaussian(0.2, 0.1), Gaussian(0.3), Clipped(-9, 9, 0.2)])
def test_samples_have_the_mean_and_the_variance_that_are_predicted(law):
    """n samples: a mean off by 4 standard errors, a variance by 4 sqrt((kurtosis - 1) / n), kurtosis at most 3 + 1."""
    n = 20_000
    z = one(0.8, n)
    y = law.sample(z, Noise(0, [0]))
    mean, variance = law.predicted(z)
    assert abs(y.mean() - mean.mean()) < 4 * (variance.mean() / n) ** 0.5
    assert abs(y.var() / variance.mean() - 1) < 4 * (3 / n) ** 0.5


def test_probabilities_of_counts_sum_to_one():
    z = torch.tensor(0.7, dtype=torch.float64)
    k = torch.arange(200, dtype=torch.float64)
    assert abs(Poisson(0.1).log_prob(0.1 * k, z).exp().sum() - 1) < 1e-12
    y = torch.linspace(-3, 6, 20_001, dtype=torch.float64)
    for sd in (0.02, 0.5):  # a comb of counts, and a smooth law
        density = PoissonGaussian(0.1, sd).log_prob(y, z).exp()
        assert abs(density.sum() * (y[1] - y[0]) - 1) < 1e-5


@pytest.mark.parametrize("rate", [0.1, 1.0, 7.0, 60.0])
@pytest.mark.parametrize("s", [1.5, 4.0])
def test_the_saddlepoint_is_the_sum(rate, s):
    """To 1e-2 in ln p in the worst case, counts of 0.1 with the least noise; what varies with y is a third of it."""
    n = torch.arange(300, dtype=torch.float64)
    k = torch.linspace(-3 * s, rate + 4 * (rate + s**2) ** 0.5, 50, dtype=torch.float64)
    log_p = n * math.log(rate) - rate - torch.lgamma(n + 1) - (k[:, None] - n) ** 2 / (2 * s**2)
    exact = log_p.logsumexp(1) - math.log(s * math.sqrt(2 * math.pi))
    found = PoissonGaussian(1.0, s).log_prob(k, torch.tensor(rate, dtype=torch.float64))
    assert (found - exact).abs().max() < 1e-2


def test_rounding_goes_to_the_centre_of_the_cell():
    z = torch.linspace(-1, 1, 999).reshape(1, 1, 1, -1)
    law = Quantised(torch.full((1, 1, 1, 999), 0.3))
    y = law.sample(z, Noise(0, [0]))
    assert ((y - z).abs() <= 0.15 + 1e-6).all()
    assert (law.log_prob(y, z) == 0).all()
    assert (law.log_prob(y + 0.3, z) == -torch.inf).all()


@pytest.mark.parametrize("law", [Poisson(0.2), PoissonGaussian(0.2, 0.1), Gaussian(0.3), Quantised(0.4)])
def test_shared_copies_say_together_what_one_says(law):
    """To second order: to rounding where the law is closed under roots, to 5 % of a deviation for Poisson-Gaussian."""
    y, z = one(0.6, 200), torch.linspace(0.41, 0.79, 200, dtype=torch.float64).reshape(1, 1, 1, -1)
    whole, third = law.log_prob(y, z), 3 * law.shared(3).log_prob(y, z)
    off = ((whole - whole.max()) - (third - third.max())).abs().max()
    assert off < (0.05 if isinstance(law, PoissonGaussian) else 1e-12)


def test_parameters_of_each_image_follow_its_rows():
    gains = torch.tensor([0.1, 0.2, 0.4])
    y = torch.tensor([0.4, 0.4, 0.8]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2)
    one = Measurement(y, Denoise((1, 2, 2)), Poisson(gains))
    gains.zero_()  # the measurement has its own
    picked = one.select(torch.tensor([2, 0, 2])).to(y.double())
    assert picked.noise.gain.flatten().tolist() == pytest.approx([0.4, 0.1, 0.4])
    assert picked.noise.gain.dtype == torch.float64
    back = pickle.loads(pickle.dumps(one))
    assert torch.equal(back.noise.gain, one.noise.gain)


def test_a_gaussian_likelihood_is_a_number():
    one = Measurement(torch.zeros(1, 1, 2, 2), Denoise((1, 2, 2)), Gaussian(0.1))
    assert one.noise == one.sd == 0.1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Poisson(0), "gain is finite and above 0; got"),
        (lambda: Poisson("0.1"), "gain is a number"),
        (lambda: PoissonGaussian(0.1, float("nan")), "sd is finite"),
        (lambda: Gaussian(-1), "standard deviation"),
        (lambda: Clipped(1, 0, 0.1), "low is below its high"),
        (lambda: Quantised(torch.ones(2, 2)), "four axes"),
        (lambda: Measurement(-torch.ones(1, 1, 2, 2), Denoise((1, 2, 2)), Poisson(0.1)), "PoissonGaussian"),
        (lambda: Measurement(torch.ones(1, 1, 2, 2), Denoise((1, 2, 2)), Poisson(torch.ones(3))), "does not broadcast"),
        (lambda: Measurement(torch.ones(2, 1, 2, 2), Denoise((1, 2, 2)), Poisson(torch.ones(3))), "does not broadcast"),
        (lambda: Measurement(2 * torch.ones(1, 1, 2, 2), Denoise((1, 2, 2)), Clipped(0, 1, 0.1)), "beyond 0.0 to 1.0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_degrade_measures_by_the_likelihood():
    x = np.full((64, 64), 0.5, np.float32)
    one = genprior.degrade(x, "denoise", noise=Poisson(1 / 30), seed=0)
    assert one.noise == Poisson(1 / 30)
    counts = one.y * 30
    assert (counts - counts.round()).abs().max() < 1e-4
    # 4096 counts of mean and variance 15: 4 standard errors
    assert abs(counts.mean() - 15) < 4 * (15 / 4096) ** 0.5
    assert abs(counts.var() / 15 - 1) < 4 * (2.1 / 4096) ** 0.5


def test_samplers_of_gaussian_noise_refuse_the_others():
    x = torch.full((1, 8, 8), 0.5)
    one = genprior.degrade(x, "denoise", noise=Poisson(1 / 30), seed=0)
    prior = genprior.Gaussian(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.04))
    with pytest.raises(genprior.UnsupportedError, match="Exact takes y of the likelihood Gaussian, not of Poiss"):
        genprior.restore(one, prior=prior, sampler="exact", progress=False)


def test_auto_takes_energies_for_noise_that_is_not_gaussian():
    """A chain for images of one size, the point estimate for others; what has neither is told so."""
    y = Measurement(torch.ones(1, 3, 8, 8), Denoise((3, 8, 8)), Poisson(0.1))
    flow, patches = Flow((3, 8, 8), widths=(4,), steps=(1,)), PatchFlow(patch=2, width=4, steps=1)
    for prior, kind in ((flow, HMC), (patches, MAP)):
        assert isinstance(find_sampler("auto", prior, None, y), kind)
    with pytest.raises(genprior.UnsupportedError, match=r"Poisson.*does not suit.*needs a prior that has denoise; VAE"):
        find_sampler("auto", VAE((3, 8, 8), latent=2, widths=(4,), blocks=(1,)), None, y)


def test_names_of_command_lines():
    assert named("poisson:0.03") == Poisson(0.03)
    assert named("clipped:0,1,0.02") == Clipped(0.0, 1.0, 0.02)
    for text, message in (("poison:1", "poisson"), ("poisson", "poisson:GAIN"), ("clipped:0,1", "clipped:LOW,HIGH,SD")):
        with pytest.raises(ValueError, match=message):
            named(text)


def test_noise_of_deepinv_is_translated():
    physics = pytest.importorskip("deepinv").physics
    for model, law in (
        (physics.PoissonNoise(0.25), Poisson(0.25)),
        (physics.PoissonGaussianNoise(0.25, 0.5), PoissonGaussian(0.25, 0.5)),
        (physics.UniformNoise(0.25), Quantised(0.5)),
        (physics.GaussianNoise(0.25), 0.25),
    ):
        assert physics_noise(physics.Denoising(noise_model=model)) == law
    with pytest.raises(TypeError, match="neither Gaussian nor"):
        physics_noise(physics.Denoising(noise_model=physics.PoissonNoise(0.25, normalize=False)))
