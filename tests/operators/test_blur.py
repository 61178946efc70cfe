"""Blurs against Kornia, the accuracy of the iterative solver, and kernels as drawn."""

import math

import pytest
import torch
from kornia.filters import filter2d, get_gaussian_kernel2d
from skimage import data

from genprior.checks import UnsupportedError
from genprior.linalg import norm
from genprior.operators import Blur, gaussian_kernel, motion_kernel


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 6), (5, 2), (9, 9)])
@pytest.mark.parametrize("boundary", ["valid", "circular"])
@pytest.mark.parametrize("batch", [1, 2])
def test_blur_is_the_convolution_of_kornia(size, boundary, batch):
    x, kernel = draw(2, 3, 12, 17), draw(batch, *size)
    padding = {"padding": "valid"} if boundary == "valid" else {"border_type": "circular"}
    reference = filter2d(x, kernel, behaviour="conv", **padding)
    # sums of 81 products, rounding 1e-16
    torch.testing.assert_close(Blur(kernel, (3, 12, 17), boundary)(x), reference, rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [(3, 5), (4, 6), (61, 60)])
def test_frame_is_what_a_centred_delta_measures(size):
    delta = torch.zeros(size)
    delta[size[0] // 2, size[1] // 2] = 1
    op = Blur.for_measurement(delta, (1, 9, 11))
    x = draw(1, *op.image_shape)
    assert op.measurement_shape == (1, 9, 11)
    torch.testing.assert_close(op(x), op.frame(x), rtol=0, atol=1e-13)


def ring(size):
    """The kernel of a lens out of focus, with an obstruction: not separable."""
    away = torch.arange(size) - size // 2
    distance = (away[:, None] ** 2 + away**2).sqrt()
    return ((distance < size / 2) & (distance > size / 6)).double()


# kernels of a blurred photograph; with c = noise^2 / variance of x given x_t: 1e-3 for noise 0.025 and sd 0.8
@pytest.mark.parametrize("kernel", [ring(15) / ring(15).sum(), motion_kernel(15, 70), motion_kernel(61, 30)])
@pytest.mark.parametrize(("c", "tolerance"), [(1.0, 1e-6), (1e-2, 1e-5), (1e-3, 1e-3)])
def test_thirty_iterations_solve_real_blurs(kernel, c, tolerance):
    op = Blur.for_measurement(kernel, (1, 64, 64))
    _, H, W = op.image_shape
    photo = torch.tensor(data.camera()[:H, :W] / 255.0)[None, None]
    v = op(photo) - 0.5 + math.sqrt(c) * draw(1, 1, 64, 64)
    exact = Blur.for_measurement(kernel, (1, 64, 64), iterations=200).solve(v, c)
    residual = op(op.adjoint(exact)) + c * exact - v
    assert norm(residual) < 1e-8 * norm(v)
    assert norm(op.solve(v, c) - exact) < tolerance * norm(exact)


@pytest.mark.parametrize("kernel", [gaussian_kernel(2), gaussian_kernel(10), motion_kernel(31, 90), torch.ones(5, 4)])
def test_separable_blurs_past_the_frame_are_solved_exactly(kernel):
    op = Blur.for_measurement(kernel / kernel.sum(), (2, 40, 50))
    v, z, c = draw(1, *op.measurement_shape), draw(1, *op.image_shape, seed=1), 1e-5
    w = op.solve(v, c)
    # the condition number is 1e5 at most and rounding 1e-16, in sums of 50 terms
    assert norm(op(op.adjoint(w)) + c * w - v) < 1e-9 * norm(v)
    x, single = op.prox(z, v, 1 / c), op.prox(z.float(), v.float(), 1 / c)
    # s / (s^2 + c) <= 160 times the rounding of v and z, 6e-8, in sums of 50 terms
    assert norm(single - x) < 1e-4 * (norm(v) + norm(z))


def test_kernels_that_are_nearly_separable_are_not_taken_for_it():
    kernel = gaussian_kernel(1.0)
    kernel[0, 1] *= 2  # by 1e-5 of the largest value
    with pytest.raises(UnsupportedError):
        Blur(kernel, (1, 20, 20)).svd()
    Blur(gaussian_kernel(1.0).float(), (1, 20, 20)).svd()


def test_circular_pinv_leaves_lost_frequencies_out():
    # a mean over 4 pixels loses every other frequency of the row; what is left comes back
    op = Blur(torch.full((1, 4), 0.25), (1, 1, 8), "circular")
    x = draw(1, 1, 1, 8)
    projection = op.pinv(op(x))
    torch.testing.assert_close(op(projection), op(x), rtol=0, atol=1e-14)
    assert (norm(projection) < 0.99 * norm(x)).all()
    assert (norm(op.solve(x, 0.0)) < 1e3).all()


@pytest.mark.parametrize("width", [0.5, 1.7, 10])
def test_gaussian_kernel_is_that_of_kornia_over_three_widths(width):
    size = 2 * math.ceil(3 * width) + 1
    torch.testing.assert_close(gaussian_kernel(width), get_gaussian_kernel2d(size, (width, width)).double()[0])


@pytest.mark.parametrize("angle", [0, 30, 45, 90, 120, -10])
def test_motion_kernel_has_the_length_and_angle_asked_for(angle):
    length = 15
    kernel = motion_kernel(length, angle)
    offset = torch.arange(length, dtype=torch.float64) - length // 2
    right, up = offset[None, :], -offset[:, None]
    along = right * math.cos(math.radians(angle)) + up * math.sin(math.radians(angle))
    across = up * math.cos(math.radians(angle)) - right * math.sin(math.radians(angle))
    assert kernel.sum() == pytest.approx(1)
    # a uniform line of n pixels has variance (n^2 - 1) / 12; interpolation spreads by at most 1/4 pixel^2
    assert (kernel * along**2).sum() == pytest.approx((length**2 - 1) / 12, abs=0.5)
    assert (kernel * across**2).sum() < 0.25
    assert (kernel * along * across).sum().abs() < 0.15


@pytest.mark.parametrize("length", [1.5, 2, 9.5, 20, 60.25])
def test_motions_of_any_length_cover_the_pixels_that_the_line_does(length):
    """A line from -length / 2 to length / 2 covers pixel i by its overlap with [i - 1/2, i + 1/2]."""
    kernel = motion_kernel(length, 0)
    side = len(kernel)
    i = (torch.arange(side, dtype=torch.float64) - side // 2).abs()
    line = (length / 2 - (i - 0.5)).clamp(0, 1) / length
    torch.testing.assert_close(kernel[side // 2], line, rtol=0, atol=1e-9)
    assert kernel.sum() == pytest.approx(1)


def test_motions_of_odd_lengths_are_those_of_kornia_to_the_bit():
    from kornia.filters import get_motion_kernel2d

    zero = torch.zeros(1, dtype=torch.float64)
    theirs = get_motion_kernel2d(15, zero + 30, zero, mode="bilinear")[0]
    assert torch.equal(motion_kernel(15, 30), theirs)
    assert torch.equal(motion_kernel(15.0, 30), theirs)
    torch.testing.assert_close(motion_kernel(15 + 1e-9, 30)[1:-1, 1:-1], theirs, rtol=0, atol=1e-8)


def test_no_blur_is_a_delta():
    x = draw(1, 1, 8, 8)
    for kernel in (gaussian_kernel(0), motion_kernel(1, 30), gaussian_kernel(0, size=3)):
        torch.testing.assert_close(Blur(kernel, (1, 8, 8), "circular")(x), x, rtol=0, atol=1e-14)


def test_flipped_numpy_kernels_are_taken():
    kernel = draw(3, 3).numpy()
    op = Blur(kernel[::-1, ::-1], (1, 8, 8))
    assert torch.equal(op.kernel[0], torch.tensor(kernel).flip(0, 1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Blur(torch.ones(62, 3), (1, 80, 80)), "1 to 61"),
        (lambda: Blur(torch.ones(9, 9), (1, 8, 8)), "larger than the image"),
        (lambda: Blur(torch.zeros(3, 3), (1, 8, 8)), "not zero everywhere"),
        (lambda: Blur(torch.full((3, 3), float("nan")), (1, 8, 8)), "finite"),
        (lambda: Blur(torch.ones(3, 3), (1, 8, 8), "reflect"), "valid"),
        (lambda: Blur("kernel", (1, 8, 8)), "got str"),
        (lambda: gaussian_kernel(11), "at most 10"),
        (lambda: gaussian_kernel(-1), "got -1"),
        (lambda: motion_kernel(0.5, 0), "from 1 to 61; got 0.5"),
        (lambda: motion_kernel(61.5, 0), "from 1 to 61; got 61.5"),
        (lambda: motion_kernel(9, float("inf")), "angle"),
    ],
)
def test_kernels_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
