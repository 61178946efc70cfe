"""Several images in one call, each with a mask, a kernel or a noise level of its own."""

import numpy as np
import pytest
import torch

import genprior
from genprior.operators import Blur, gaussian_kernel
from genprior.priors.gaussian.gaussian import Gaussian

H, W = 7, 6
# Draws in float32 from an SVD in float64, or after some steps of conjugate gradients: a few roundings of 1.
ROUNDING = 1e-4


def smooth(height=H, width=W):
    points = torch.cartesian_prod(torch.arange(height), torch.arange(width)).double()
    return Gaussian(torch.full((1, height, width), 0.5), 0.04 * torch.exp(-torch.cdist(points, points) / 2))


def photos(number=2):
    return 0.2 + 0.6 * torch.rand(number, 1, H, W, generator=torch.Generator().manual_seed(0))


def restore(y, op, prior, **options):
    return genprior.restore(y, op, prior, **{"noise": 0.1, "n": 2, "seed": 0, "progress": False, **options})


# A point above the middle of 5 x 5 and one in it; three pixels of 2 x 2.
KERNELS = [np.eye(5, 25, 7, dtype=np.float32)[0].reshape(5, 5) / 3, np.float32([[0.5, 0.25], [0.25, 0]])]
KERNELS[0][2, 2] = 2 / 3


@pytest.mark.parametrize("boundary", ["circular", "valid"])
def test_images_have_kernels_of_their_own_of_any_size(boundary):
    """A kernel set amid zeros is the same blur, whatever the size of what is around it."""
    x = photos()
    both = genprior.degrade(x, "deblur", kernel=KERNELS, boundary=boundary)
    for k, kernel in enumerate(KERNELS):
        alone = genprior.degrade(x[k : k + 1], "deblur", kernel=kernel, boundary=boundary).y[0]
        h, w = both.y.shape[-2:]
        # with "valid", what the largest kernel leaves: the frame of 5 x 5 begins two pixels after that of 2 x 2
        top, left = (2 * (boundary == "valid" and k == 1),) * 2
        torch.testing.assert_close(both.y[k], alone[..., top : top + h, left : left + w], atol=1e-6, rtol=0)


def test_restored_images_have_kernels_of_their_own():
    y, prior = photos(), smooth()
    both = restore(y, "deblur", prior, kernel=KERNELS, boundary="circular").samples
    first = restore(y[0], "deblur", prior, kernel=KERNELS[0], boundary="circular").samples
    torch.testing.assert_close(both[0], first, atol=ROUNDING, rtol=0)
    # image 1 has other noise alone, as image 0: compare what has none, the mean of the posterior
    prior_mean = [restore(y, "deblur", prior, kernel=k, boundary="circular", n=1).samples[1] for k in KERNELS]
    torch.testing.assert_close(both[1, :1], prior_mean[1], atol=ROUNDING, rtol=0)
    assert (both[1, :1] - prior_mean[0]).abs().max() > 0.05


def test_kernels_of_one_array_are_one_for_each_image():
    y, prior = photos(), smooth(H + 6, W + 6)
    pair = torch.stack([gaussian_kernel(0.8, 7), gaussian_kernel(0.4, 7)])
    as_list, as_array = (restore(y, "deblur", prior, kernel=k).samples for k in (list(pair), pair.numpy()))
    torch.testing.assert_close(as_list, as_array, atol=ROUNDING, rtol=0)
    assert isinstance(restore(y, "deblur", prior, kernel=list(pair)).measurement.operator, Blur)


def test_images_have_noise_of_their_own():
    y, prior = photos(), smooth()
    expected = restore(y, "denoise", prior, noise=torch.tensor([0.05, 0.5]).reshape(2, 1, 1, 1)).samples
    for noise in ([0.05, 0.5], (0.05, 0.5), np.array([0.05, 0.5])):
        assert torch.equal(restore(y, "denoise", prior, noise=noise).samples, expected)
    torch.testing.assert_close(restore(y[0], "denoise", prior, noise=0.05).samples, expected[0], atol=ROUNDING, rtol=0)


@pytest.mark.parametrize(
    ("error", "match", "op", "options"),
    [
        (ValueError, "There are 3 kernels for 2 images; give one for all, or one for each", "deblur", {"kernel": 3}),
        (ValueError, "There are 3 masks for 2 images; give one for all, or one for each", "inpaint", {"mask": 3}),
        (ValueError, r"noise is one number or \(2, 1, 1, 1\); got the shape \(3, 1, 1, 1\)", "denoise", {"noise": 3}),
        (ValueError, r"one \(kh, kw\) for each image; got \(3,\)", "deblur", {"kernel": [np.ones(3)]}),
        (ValueError, r"one \(kh, kw\) for each image; got none", "deblur", {"kernel": []}),
        (ValueError, "A kernel is a tensor or a numpy array; got str", "deblur", {"kernel": ["k.png", "k.png"]}),
        (TypeError, "standard deviation.*got '0.1'", "denoise", {"noise": [0.1, "0.1"]}),
    ],
)
def test_what_is_not_one_for_each_image_is_one_clear_error(error, match, op, options):
    three = {"kernel": [np.ones((3, 3), np.float32)] * 3, "mask": [np.eye(H, W, dtype=bool)] * 3, "noise": [0.1] * 3}
    options = {key: three[key] if value == 3 else value for key, value in options.items()}
    for run in (lambda **o: restore(photos(), op, smooth(), **o), lambda **o: genprior.degrade(photos(), op, **o)):
        with pytest.raises(error, match=match):
            run(**options)
