"""The scales on which flows see pixels: derivatives, inverses, edges, and the laws that `Ink` promises."""

import math

import pytest
import torch
from torch.distributions import Normal

from genprior.nets.pixels import BACK, MARGIN, PIXELS, Ink, Linear, Logit


def dequantised(n=4000, black=0.8, seed=0, dtype=torch.float64):
    """n images of one pixel: black with the given share, else one of the levels 1 to 255, the bright ones oftener."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(3, n, generator=generator, dtype=torch.float64)
    level = torch.where(u[0] < black, 0, 1 + (255 * u[1].sqrt()).floor())
    return ((level + u[2]) / 256).to(dtype).reshape(-1, 1, 1, 1)


def made(name, dtype=torch.float64):
    pixels = PIXELS[name]().to(dtype)
    if name == "ink":
        pixels.fit(dequantised())
    return pixels


each_map = pytest.mark.parametrize("name", PIXELS)


@each_map
def test_logdet_is_the_sum_of_log_derivatives(name):
    pixels, x = made(name), dequantised(60).reshape(5, 3, 2, 2)
    x.requires_grad_()
    u, logdet = pixels(x)
    (slopes,) = torch.autograd.grad(u.sum(), x)
    # ndtri and its derivative are good to 1e-10 and better
    torch.testing.assert_close(logdet, slopes.log().sum((1, 2, 3)), rtol=0, atol=1e-8)


@each_map
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_inverse_undoes_the_map(name, dtype, tolerance):
    """To some roundings of numbers of order 1, at the ends of [0, 1] and of the cells too."""
    pixels, x = made(name, dtype), dequantised(dtype=dtype)
    x = torch.cat([x, torch.tensor([0, 1, 1 / 256, 255 / 256], dtype=dtype).reshape(-1, 1, 1, 1)])
    u, logdet = pixels(x)
    assert u.isfinite().all()
    assert logdet.isfinite().all()
    torch.testing.assert_close(pixels.inverse(u), x, rtol=0, atol=tolerance)


@each_map
def test_inverse_rises_with_no_jump(name):
    """From low to high; between neighbours of a grid it rises by no more than its largest slope allows."""
    pixels = made(name)
    u = torch.linspace(-30, 30, 60001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    x = pixels.inverse(u).flatten()
    assert (x.diff() >= 0).all()
    if name != "linear":
        assert pixels.low - 1e-12 <= float(x[0]) < pixels.low + 1e-5
        assert pixels.high - 1e-5 < float(x[-1]) <= pixels.high + 1e-12
        # slopes: 1/4 of the logit; of ink (1 / 256) / (least share) phi(0), with shares above 1e-4
        assert float(x.diff().max()) < 1e-3 * (0.26 if name == "logit" else 2 * 0.4 / 256 / 1e-4)


@pytest.mark.parametrize("name", ["logit", "ink"])
def test_outside_is_nan(name):
    pixels = made(name)
    edge = {"logit": 1.1e-5, "ink": 1.1 * MARGIN / 256}[name]
    x = torch.tensor([-edge, 1 + edge], dtype=torch.float64).reshape(-1, 1, 1, 1)
    assert pixels(x)[0].isnan().all()
    assert not ((x > pixels.low) & (x < pixels.high)).any()


def test_linear_knows_all_values():
    x = torch.tensor([-7.0, 0.0, 0.5, 9.0]).reshape(-1, 1, 1, 1)
    assert Linear()(x)[0].flatten().tolist() == [-15, -1, 0, 17]
    assert Linear.low < -1e9 < 1e9 < Linear.high


def test_logit_is_the_logit_but_for_its_edge():
    x = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64).reshape(-1, 1, 1, 1)
    torch.testing.assert_close(Logit()(x)[0], torch.logit(x), rtol=0, atol=1e-3)
    assert Logit()(torch.zeros(1, 1, 1, 1, dtype=torch.float64))[0].item() == pytest.approx(math.log(1e-5), abs=1e-4)


def test_ink_makes_black_a_gaussian_and_ink_half_a_gaussian():
    """The largest distance of an empirical from the true distribution function exceeds 1.95 / sqrt(n) once in 1000."""
    n = 4000
    pixels, x = made("ink"), dequantised(n, seed=3)
    pixels.fit(dequantised(10**6))  # its shares are then those of the law, but for 1e-3
    u = pixels(x)[0].flatten()
    black, ink = u[x.flatten() < 1 / 256], u[x.flatten() >= 1 / 256]
    normal = Normal(torch.zeros((), dtype=torch.float64), 1.0)
    top = normal.cdf(torch.tensor(BACK, dtype=torch.float64))
    # the cell of black begins MARGIN before it does: as much of its law is missing
    for values, law, slack in (
        (black, lambda u: normal.cdf(u + BACK) / top, MARGIN),
        (ink, lambda u: 2 * normal.cdf(u) - 1, 3e-3),
    ):
        found = torch.arange(1, len(values) + 1) / len(values)
        distance = (law(values.sort().values) - found).abs().max()
        assert float(distance) < 1.95 / math.sqrt(len(values)) + 1 / len(values) + slack
    assert black.max() <= 0 <= ink.min()


def test_ink_spends_on_a_known_black_pixel_hardly_more_than_its_law():
    """With u modelled by the best Gaussian, 0.008 bits above those of its law; on the scale of `Logit`, 0.6 bits.

    In nats, of a Gaussian cut at c = 2.5 (entropy 1.3907, variance 0.9557): 1/2 ln(2 pi e 0.9557) - 1.3907 = 0.0055;
    of an exponential law: 1/2 ln(2 pi e) - 1 = 0.4189, less what the edge of the logit takes. The mean of q^2 / 2 over
    n pixels has the standard error 1 / sqrt(2 n).
    """
    n = 40000
    x = torch.rand(n, 1, 1, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 256

    def excess(pixels):
        u, logdet = pixels(x)
        best = Normal(u.mean(), u.std()).log_prob(u).flatten() + logdet
        return float((math.log(256) - best).mean()) / math.log(2)

    assert excess(made("ink")) == pytest.approx(0.0055 / math.log(2), abs=3.3 / math.sqrt(2 * n) / math.log(2))
    assert 0.5 < excess(Logit()) < 0.4189 / math.log(2)


def test_fitted_shares_are_those_of_the_levels():
    x = torch.tensor([0.5, 0.5, 0.5, 200.2, 0.1, 255.9, 200.7, 200.1]).reshape(2, 1, 2, 2) / 256
    pixels = Ink()
    pixels.fit(x)
    share = pixels.log_share.exp()
    total = 8 + 253  # levels never seen count once
    assert share[[0, 200, 255, 7]].tolist() == pytest.approx([4 / total, 3 / total, 1 / total, 1 / total], rel=1e-5)


def test_ink_keeps_its_shares_where_it_does_not_know_better():
    """Any real numbers do as log-shares: stored in half precision, say, they still make a density."""
    pixels = made("ink")
    pixels.log_share.copy_(pixels.log_share.half().double() + 0.3)
    edges = torch.cat([torch.tensor([0.0]), torch.arange(1, 257) / 256]).double()
    x = ((edges[1:] + edges[:-1]) / 2).reshape(-1, 1, 1, 1)
    u, logdet = pixels(x)
    density = (logdet + Normal(0.0, 1.0).log_prob(u.flatten())).exp()[1:] * 2  # of ink, given that it is not black
    assert float(density.sum() / 256) == pytest.approx(1, abs=MARGIN)


@each_map
def test_nan_stays_nan_and_raises_nothing(name):
    """A chain that diverges proposes it, to be rejected; the other rows are as without it."""
    pixels, x = made(name), dequantised(4).expand(4, 1, 2, 2).clone()
    alone = pixels(x)[1]
    x[1, 0, 0, 0] = math.nan
    logdet = pixels(x)[1]
    if name != "linear":
        assert logdet[1].isnan()
    assert torch.equal(logdet[[0, 2, 3]], alone[[0, 2, 3]])
