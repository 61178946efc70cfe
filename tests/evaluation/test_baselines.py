"""The classical restorations do what they say on images for which that is known."""

import sys
import types

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

import genprior
from genprior.benchmark import baselines
from genprior.benchmark.baselines import BASELINES, Baseline
from genprior.benchmark.biharmonic import fill
from genprior.operators import Blur, Colorize, Denoise, Inpaint, Measurement, SuperResolution, gaussian_kernel
from genprior.scores.metrics import psnr

SIDE = 32


def smooth(channels=1):
    """Cubic in both coordinates but biharmonic: Laplace's operator applied twice gives 0."""
    i, j = torch.meshgrid(torch.linspace(-1, 1, SIDE), torch.linspace(-1, 1, SIDE), indexing="ij")
    x = 0.5 + 0.1 * i + 0.2 * j + 0.1 * i * j + 0.05 * (i**3 - 3 * i * j**2)
    return torch.stack([x, x.T, 1 - x][:channels])


def photo():
    return torch.from_numpy(data.astronaut()[100 : 100 + SIDE, 180 : 180 + SIDE].copy()).movedim(-1, 0).float() / 255


def objective(A, y, x, weight):
    """1/2 |y - A x|^2 + weight sum |grad x| over pixels, forward differences, the norm over directions and channels."""
    gradient = torch.zeros(2, *x.shape, dtype=x.dtype)
    gradient[0, :, :-1] = x.diff(dim=1)
    gradient[1, :, :, :-1] = x.diff(dim=2)
    return float((y - A(x[None])).square().sum() / 2 + weight * gradient.norm(dim=(0, 1)).sum())


def primal_dual(A, y, weight, iterations):
    """The minimiser of the objective, by Chambolle and Pock's iteration with the proximal step of the data term."""
    pad = torch.nn.functional.pad
    tau = 0.035 / weight
    x = A.pinv(y)
    p, x_bar = torch.zeros(2, *x.shape), x
    for _ in range(iterations):
        gradient = torch.stack([pad(x_bar.diff(dim=-2), (0, 0, 0, 1)), pad(x_bar.diff(dim=-1), (0, 1))])
        p = p + gradient / (8 * tau)
        p = p / (p.norm(dim=(0, 2), keepdim=True) / weight).clamp_min(1)
        minus_divergence = -pad(p[0, ..., :-1, :], (0, 0, 1, 1)).diff(dim=-2) - pad(p[1, ..., :-1], (1, 1)).diff(dim=-1)
        x_next = A.prox(x - tau * minus_divergence, y, tau)
        x, x_bar = x_next, 2 * x_next - x
    return x[0]


TV_TASKS = {
    "denoise": ("denoise", {}),
    "inpaint": ("inpaint", {"mask": "random", "fraction": 0.5}),
    "super-resolution": ("super-resolution", {"scale": 2}),
    "blur": ("gaussian-deblur", {"width": 1.0, "boundary": "circular"}),
}


@pytest.mark.parametrize("task", TV_TASKS)
def test_total_variation_minimises_its_objective(task):
    """Against another method run to convergence: never below it but for rounding, and at most 3 % above."""
    op, parameters = TV_TASKS[task]
    m = genprior.degrade(photo(), op, noise=0.025, seed=0, **parameters)
    weight = 0.01
    best = objective(m.operator, m.y, primal_dual(m.operator, m.y, weight, 600), weight)
    ours = objective(m.operator, m.y, baselines.total_variation(m, weight), weight)
    assert best * (1 - 1e-4) < ours < 1.03 * best


def test_total_variation_grows_flatter_with_its_weight():
    m = genprior.degrade(photo(), "denoise", noise=0.05, seed=0)

    def variation(x):
        return float(x.diff(dim=1).abs().sum() + x.diff(dim=2).abs().sum())

    flat = [variation(baselines.total_variation(m, weight)) for weight in (0.004, 0.04, 0.4)]
    assert variation(m.y[0]) > flat[0] > 1.5 * flat[1] > 2 * flat[2]


def test_total_variation_gives_the_measured_frame():
    m = genprior.degrade(photo(), "gaussian-deblur", width=1.0, noise=0.01, seed=0)
    truth = m.operator.frame(photo())
    x = baselines.total_variation(m, 0.003)
    assert x.shape == truth.shape
    # better than what was measured, and in its place: a shift by a pixel costs decibels
    assert psnr(x, truth) > psnr(m.y[0], truth) + 0.5
    assert all(psnr(x.roll(shift, axis), truth) < psnr(x, truth) - 3 for shift in (-1, 1) for axis in (1, 2))


@pytest.mark.parametrize(
    ("operator", "exact"),
    [
        (Denoise((1, SIDE, SIDE)), 1.0),
        (Colorize((3, SIDE, SIDE)), 0.299**2 + 0.587**2 + 0.114**2),
        (Inpaint(torch.eye(SIDE), (1, SIDE, SIDE)), 1.0),
        (SuperResolution(4, (1, SIDE, SIDE), "average"), 1 / 16),
        (SuperResolution(2, (1, SIDE, SIDE)), None),
        (Blur(gaussian_kernel(2.0), (1, SIDE, SIDE), "circular"), 1.0),
    ],
)
def test_squared_norm_is_the_largest_squared_singular_value(operator, exact):
    exact = float(operator.svd().singular_values.max() ** 2) if exact is None else exact
    # power iterations come from below, by 2 % at most where eigenvalues crowd, and are rounded up by 2 %
    assert 0.999 * exact < baselines.squared_norm(operator) < 1.021 * exact


def test_biharmonic_fills_a_biharmonic_image_exactly():
    x = smooth(3)
    holes = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    holes[10:16, 12:20] = True
    m = Measurement(torch.where(holes, 0, x)[None], Inpaint(holes, (3, SIDE, SIDE)), 0.0)
    filled = baselines.biharmonic(m)
    torch.testing.assert_close(filled, x, atol=1e-5, rtol=0)


def test_biharmonic_takes_each_channel_by_its_own_mask():
    x = smooth(3)
    holes = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
    for c, left in enumerate((5, 12, 20)):
        holes[c, 10:15, left : left + 6] = True
    m = Measurement(torch.where(holes, 0, x)[None], Inpaint(holes[None], (3, SIDE, SIDE)), 0.0)
    torch.testing.assert_close(baselines.biharmonic(m), x, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mask", ["random", "stroke", "box"])
@pytest.mark.parametrize("shape", [(24, 31), (1, 40), (40, 1), (2, 2)])
def test_biharmonic_is_the_least_squared_laplacian(mask, shape):
    """Against dense least squares, the Laplacian made of scipy.ndimage's; holes reach the border and the corners."""
    generator = np.random.default_rng(0)
    x = generator.random(shape)
    holes = {
        "random": generator.random(shape) < 0.6,
        "stroke": (np.add.outer(np.arange(shape[0]), np.arange(shape[1])) % 7 < 2),  # long and thin
        "box": np.pad(np.ones(shape, bool)[: shape[0] // 2, : shape[1] // 2], [(0, -(-s // 2)) for s in shape]),
    }[mask]
    holes.flat[-1], holes.flat[0] = False, True
    each = np.eye(x.size).reshape(-1, *shape)
    L = np.stack([ndimage.laplace(one, mode="nearest").ravel() for one in each], 1)
    unknown = holes.ravel()
    expected = x.copy()
    least, *_ = np.linalg.lstsq(L[:, unknown], -L[:, ~unknown] @ x.ravel()[~unknown], rcond=None)
    expected[holes] = least
    filled = fill(np.where(holes, np.nan, x), holes)
    # the condition of L^T L is at most that of a plate of 40 pixels, about 40^4: 2e6 roundings of 1e-16
    np.testing.assert_allclose(filled, expected, atol=1e-8)
    assert (filled[~holes] == x[~holes]).all()


def test_biharmonic_fills_strokes_of_a_photograph():
    x = torch.from_numpy(data.astronaut()[:128, 128:256].copy()).movedim(-1, 0).float() / 255
    m = genprior.degrade(x, "inpaint", mask="stroke", fraction=0.2, noise=0.025, seed=0)
    filled = BASELINES["biharmonic"](m, x)
    holes = m.operator.mask[0, 0]
    flat = m.y[0, :, ~holes].mean()
    error = (filled - x)[:, holes].square().mean()
    assert error < 0.1 * (flat - x)[:, holes].square().mean()


def test_biharmonic_leaves_an_image_without_holes_and_refuses_one_of_nothing_else():
    x = photo()
    whole = Measurement(x[None], Inpaint(torch.zeros(SIDE, SIDE, dtype=torch.bool), (3, SIDE, SIDE)), 0.0)
    assert torch.equal(baselines.biharmonic(whole), x)
    nothing = Measurement(0 * x[None], Inpaint(torch.ones(SIDE, SIDE, dtype=torch.bool), (3, SIDE, SIDE)), 0.0)
    with pytest.raises(ArithmeticError, match=r"failed: ValueError: No pixel is known"):
        BASELINES["biharmonic"](nothing, x)


@pytest.mark.parametrize("broken", ["raises", "is not finite"])
def test_a_baseline_that_fails_is_left_out_by_name(monkeypatch, broken):
    """Whatever the package that does the work raises; the others are there."""

    def biharmonic(measurement, truth):
        if broken == "raises":
            raise IndexError("axis 0 index 4606 exceeds 33")
        return truth * torch.nan

    monkeypatch.setitem(BASELINES, "biharmonic", Baseline(biharmonic))
    x = photo()
    m = genprior.degrade(x, "inpaint", mask="random", fraction=0.3, noise=0.02, seed=0)
    why = "IndexError: axis 0 index 4606 exceeds 33" if broken == "raises" else "its image is not finite"
    with pytest.warns(UserWarning, match=f"biharmonic is left out: it failed: {why}"):
        assert set(baselines.classical(m, x)) == {"TV"}
    options = {"mask": "random", "fraction": 0.3, "noise": 0.02, "n": 1, "steps": 2, "progress": False}
    prior = genprior.from_denoiser(lambda x_t, sigma: x_t / (1 + sigma**2), (3, None, None))
    found = genprior.evaluate(x[None], "inpaint", prior, "ddrm", baselines=["biharmonic", "tv"], **options)
    notes = {row["method"]: row.get("note") for row in found.table.rows}
    assert notes == {"ddrm": None, "biharmonic": f"failed: {why}", "tv": None}


def test_bicubic_keeps_a_plane_and_its_place():
    i, j = torch.meshgrid(torch.linspace(0.2, 0.8, SIDE), torch.linspace(0, 1, SIDE), indexing="ij")
    plane = torch.stack([i, j, (i + j) / 2])
    x = baselines.bicubic(genprior.degrade(plane, "super-resolution", scale=2, antialias="average"))
    # off the border, where no pixel is repeated, cubic interpolation is exact on planes
    torch.testing.assert_close(x[:, 6:-6, 6:-6], plane[:, 6:-6, 6:-6], atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [5, 4])
def test_wiener_undoes_a_blur_in_its_place(side):
    kernel = torch.zeros(side, side)
    kernel[1, 1], kernel[2, 3] = 0.7, 0.3  # off its centre: what is out of place shows
    x = smooth() + 0.1 * torch.rand(1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    m = genprior.degrade(x, "deblur", kernel=kernel)
    restored, truth = baselines.wiener(m, 1e-9), m.operator.frame(x)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    # the border, mirrored, is not what the scene was: its trace falls as (0.3 / 0.7)^k
    assert (restored - truth)[inner].abs().max() < 0.03
    assert (m.y[0] - truth)[inner].abs().max() > 0.05
    # the balance weighs second differences: a heavy one leaves little of them
    roughness = [x[inner].diff(n=2).square().mean().sqrt() for x in (truth, baselines.wiener(m, 1e3))]
    assert roughness[1] < 0.05 * roughness[0]


def test_best_of_has_the_highest_psnr():
    truth = photo()
    candidates = [truth + d for d in (0.3, 0.1, 0.2)]
    assert torch.equal(baselines.best_of(candidates, truth), candidates[1])


def test_classical_offers_what_fits_the_operator():
    x = photo()
    for op, parameters, names in [
        ("inpaint", {"mask": "random", "fraction": 0.3}, {"TV", "biharmonic"}),
        ("super-resolution", {"scale": 2}, {"TV", "bicubic"}),
        ("gaussian-deblur", {"width": 1.0}, {"TV", "Wiener"}),
        ("denoise", {}, {"TV"}),
    ]:
        m = genprior.degrade(x, op, noise=0.02, seed=0, **parameters)
        truth = m.operator.frame(x)
        results = baselines.classical(m, truth)
        assert set(results) == names
        assert all(result.shape == truth.shape for result in results.values())
        assert float(psnr(results["TV"], truth)) >= float(psnr(baselines.total_variation(m, 0.008), truth))


def test_wiener_undoes_a_circular_blur_to_its_border():
    kernel = torch.tensor([[0.0, 0.2], [0.1, 0.7]])
    x = smooth(3) + 0.1 * torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    m = genprior.degrade(x, "deblur", kernel=kernel, boundary="circular")
    # no frequency is below 0.4 of the mean's: rounding of float32 is all that is left
    torch.testing.assert_close(baselines.wiener(m, 1e-12), x, atol=1e-5, rtol=0)


def test_a_frame_is_continued_without_a_step():
    m = genprior.degrade(photo(), "deblur", kernel=torch.ones(5, 3) / 15)
    periodic = baselines._periodic(m)
    _, _, H, W = m.y.shape
    assert periodic.y.shape == (1, 3, H + 10, W + 6)
    torch.testing.assert_close(periodic.y[..., :H, :W], m.y, atol=0, rtol=0)
    torch.testing.assert_close(baselines._in_frame(periodic.y, m), m.y[0], atol=0, rtol=0)
    for axis, first, last, length in [(2, m.y[:, :, :1], m.y[:, :, -1:], 10), (3, m.y[..., :1], m.y[..., -1:], 6)]:
        there = periodic.y.narrow(3 if axis == 2 else 2, 0, m.y.shape[3 if axis == 2 else 2])
        joined = torch.cat([last, there.narrow(axis, -length, length), first], axis)
        # half a period of a cosine in length + 1 steps: none is above pi / 2 / (length + 1) of the whole
        largest = (first - last).abs() * torch.pi / 2 / (length + 1)
        assert bool((joined.diff(dim=axis).abs() <= largest + 1e-6).all())


@pytest.mark.parametrize("task", TV_TASKS)
def test_the_known_noise_is_what_total_variation_leaves(task):
    op, parameters = TV_TASKS[task]
    m = genprior.degrade(photo(), op, noise=0.1, seed=0, **parameters)
    x = baselines.total_variation_by_noise(m)[None]
    seen = m.operator(torch.ones_like(m.y)) if task == "inpaint" else torch.ones_like(m.y)
    residual = (seen * (m.y - m.operator(x))).square().sum() / seen.sum()
    # bisection of a factor of 100 to its 128th part, 3.7 % of the weight; a residual grows no faster than the weight
    assert 0.93 < float(residual / 0.1**2) <= 1.04


def test_the_known_noise_is_what_wiener_leaves():
    m = genprior.degrade(photo(), "gaussian-deblur", noise=0.05, seed=0, width=1.0, boundary="circular")
    x = baselines.wiener_by_noise(m)
    assert float((m.y - m.operator(x[None])).square().mean()) == pytest.approx(0.05**2, rel=1e-3)
    m = genprior.degrade(photo(), "gaussian-deblur", noise=0.05, seed=0, width=1.0)
    x, truth = baselines.wiener_by_noise(m), m.operator.frame(photo())
    assert x.shape == truth.shape
    assert all(psnr(x.roll(shift, axis), truth) < psnr(x, truth) for shift in (-1, 1) for axis in (1, 2))


def test_total_variation_without_noise_is_as_little_smooth_as_it_can():
    m = genprior.degrade(photo(), "denoise", noise=0.0, seed=0)
    least = baselines.WEIGHTS[0] * baselines.LEAST_NOISE
    x, finest = baselines.total_variation_by_noise(m), baselines.total_variation(m, least)
    assert (x - m.y[0]).abs().max() < 1.1 * (finest - m.y[0]).abs().max()


def test_unsupervised_wiener_needs_no_noise():
    for boundary in ("circular", "valid"):
        m = genprior.degrade(photo(), "gaussian-deblur", noise=0.01, seed=0, width=1.0, boundary=boundary)
        truth = m.operator.frame(photo())
        untold = Measurement(m.y, m.operator, 0.3)
        x = baselines.wiener_unsupervised(untold)
        assert torch.equal(x, baselines.wiener_unsupervised(m))
        assert psnr(x, truth) > psnr(m.y[0], truth)
        assert all(psnr(x.roll(shift, axis), truth) < psnr(x, truth) for shift in (-1, 1) for axis in (1, 2))


@pytest.mark.parametrize(
    ("name", "op", "parameters"),
    [("tv", "denoise", {}), ("wiener", "gaussian-deblur", {"width": 1.0, "boundary": "circular"})],
)
def test_an_oracle_is_not_below_what_the_noise_tells(name, op, parameters):
    m = genprior.degrade(photo(), op, noise=0.025, seed=0, **parameters)
    by_noise, oracle = (psnr(BASELINES[each](m, photo()), photo()) for each in (name, f"{name}-oracle"))
    assert psnr(m.y[0], photo()) < by_noise <= oracle + 0.05  # both choose from a grid


def test_a_baseline_says_what_it_suits():
    m = genprior.degrade(photo(), "denoise", noise=0.02, seed=0)
    for name in ("bicubic", "biharmonic", "wiener", "wiener-unsupervised", "wiener-oracle"):
        with pytest.raises(genprior.UnsupportedError, match=r"suits .*, not Denoise"):
            BASELINES[name](m, photo())


def test_bm3d_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "bm3d", None)
    m = genprior.degrade(photo(), "denoise", noise=0.02, seed=0)
    with pytest.raises(genprior.UnsupportedError, match=r"non-commercial use only: pip install bm3d"):
        BASELINES["bm3d"](m, photo())


def test_bm3d_is_given_what_its_package_takes(monkeypatch):
    """By a stand-in: (H, W) or (H, W, C) in the units of x, the noise, and a kernel whose middle is its origin."""
    given = []

    def stand_in(*arguments):
        given.append(arguments)
        image = arguments[0]
        return image[..., 0] if image.shape[-1] == 1 else image  # as theirs: one channel comes back without an axis

    package = types.SimpleNamespace(bm3d=stand_in, bm3d_rgb=stand_in, bm3d_deblurring=stand_in)
    monkeypatch.setitem(sys.modules, "bm3d", package)
    for x in (photo(), photo()[:1]):
        m = genprior.degrade(x, "denoise", noise=0.02, seed=0)
        torch.testing.assert_close(BASELINES["bm3d"](m, x), m.y[0])
        image, noise = given[-1]
        assert noise == 0.02
        np.testing.assert_allclose(image, m.y[0].movedim(0, -1).numpy(), atol=1e-7)
        for boundary in ("circular", "valid"):
            kernel = torch.zeros(4, 3)
            kernel[2, 1], kernel[0, 0] = 0.7, 0.3  # its origin, at side // 2, and another
            m = genprior.degrade(x, "deblur", noise=0.02, seed=0, kernel=kernel, boundary=boundary)
            torch.testing.assert_close(BASELINES["bm3d"](m, x), m.y[0])
            image, noise, odd = given[-1]
            assert image.shape[:2] == tuple(m.y.shape[2:]) if boundary == "circular" else (SIDE - 3 + 8, SIDE - 2 + 6)
            assert (noise, odd.shape) == (0.02, (5, 3))
            assert odd[2, 1] == pytest.approx(0.7)
            assert odd[0, 0] == pytest.approx(0.3)
