"""Super-resolution against torch and Kornia."""

import pytest
import torch
from kornia.filters import filter2d, get_gaussian_kernel2d
from torch.nn import functional as F

from genprior.operators import SuperResolution


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_bicubic_is_the_antialiased_interpolation_of_torch(scale):
    x = draw(2, 3, 24, 36)
    reference = F.interpolate(x, size=(24 // scale, 36 // scale), mode="bicubic", antialias=True)
    torch.testing.assert_close(SuperResolution(scale, (3, 24, 36))(x), reference, rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_average_is_the_mean_of_blocks(scale):
    x = draw(2, 3, 24, 36)
    op = SuperResolution(scale, (3, 24, 36), "average")
    torch.testing.assert_close(op(x), F.avg_pool2d(x, scale), rtol=0, atol=1e-13)


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_gaussian_is_the_filter_of_kornia_at_the_centres_of_blocks(scale):
    x = draw(2, 3, 24, 36)
    width = (scale / 2, scale / 2)
    kernel = get_gaussian_kernel2d(3 * scale, width, force_even=scale % 2 == 0, dtype=torch.float64)
    first = (scale - 1) // 2
    reference = filter2d(x, kernel, border_type="reflect")[..., first::scale, first::scale]
    op = SuperResolution(scale, (3, 24, 36), "gaussian")
    torch.testing.assert_close(op(x), reference, rtol=0, atol=1e-13)


@pytest.mark.parametrize("antialias", ["bicubic", "gaussian", "average"])
@pytest.mark.parametrize("scale", [2, 3])
def test_reduction_is_centred_and_keeps_the_mean_of_flat_images(antialias, scale):
    op = SuperResolution(scale, (1, 4 * scale, 6 * scale), antialias)
    x = draw(1, *op.image_shape)
    torch.testing.assert_close(op(x.flip(-1, -2)), op(x).flip(-1, -2), rtol=0, atol=1e-13)
    torch.testing.assert_close(op(torch.ones_like(x)), torch.ones(1, 1, 4, 6, dtype=torch.float64))


def test_for_measurement_has_that_measurement():
    op = SuperResolution.for_measurement(3, (3, 5, 7))
    assert (op.image_shape, op.measurement_shape) == ((3, 15, 21), (3, 5, 7))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((4, (3, 250, 334)), "crop it to 248 x 332"),
        ((9, (3, 8, 8)), "at least 9 x 9"),
        ((2.5, (3, 8, 8)), "whole number"),
        ((0, (3, 8, 8)), "whole number"),
        ((2, (3, 8, 8), "bicubik"), "Did you mean 'bicubic'"),
        ((8, (3, 8, 8), "gaussian"), "at least 16 x 16"),
        ((2, (8, 8)), r"\(C, H, W\)"),
    ],
)
def test_reductions_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SuperResolution(*arguments)
