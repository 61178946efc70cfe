"""Every sampler for diffusion priors with every operator, noise and size: draws, or an error that says why not.

The full product: the noise levels are those of the images of one batch, which costs no more than one of them. Priors
are Gaussians of correlated pixels, `genprior.truth.gaussian.correlated`; steps are few.
"""

import functools

import pytest
import torch
from latent_linear import LinearLatents
from quick import DIFFUSION, quick

from genprior.checks import UnsupportedError
from genprior.noise import Noise
from genprior.operators import (
    Blur,
    Colorize,
    Denoise,
    Inpaint,
    Matrix,
    Measurement,
    SuperResolution,
    gaussian_kernel,
    motion_kernel,
    random_mask,
)
from genprior.truth.gaussian import correlated

NOISES = (0.0, 1e-6, 0.01, 0.3, 1.0)
SIZES = ((8, 8), (12, 20), (1, 1))
SIDE = {(8, 8): 5, (12, 20): 5, (1, 1): 1}


def holes(value):
    return lambda shape: Inpaint(torch.full(shape, value), shape)


OPERATORS = {
    "inpaint": lambda shape: Inpaint(random_mask(shape, 0.5, 0), shape),
    "all holes": holes(True),
    "no holes": holes(False),
    "super-resolution": lambda shape: SuperResolution(2 if shape[1] > 1 else 1, shape),
    "circular blur": lambda shape: Blur(gaussian_kernel(0.7, SIDE[shape[1:]]), shape, "circular"),
    "valid blur": lambda shape: Blur(motion_kernel(SIDE[shape[1:]], 30), shape, "valid"),
    "separable blur": lambda shape: Blur(gaussian_kernel(0.7, SIDE[shape[1:]]), shape, "valid"),
    "colorize": lambda shape: Colorize((3, *shape[1:])),
    "denoise": Denoise,
    "nothing": lambda shape: Matrix(torch.zeros(2, shape[1] * shape[2]), shape),
}
MASKS = ("inpaint", "all holes", "no holes", "denoise")
SINGULAR_VALUES = ("no SVD in closed form", "singular values 0 and 1")
TOO_MANY_VALUES = "values at most"


@functools.cache
def prior(shape):
    return correlated(shape).float()


def measured(prior, operator):
    """One image for each noise level, (y, noise)."""
    noise = torch.tensor(NOISES, dtype=prior.mean.dtype).reshape(-1, 1, 1, 1)
    y = operator(prior.sample(len(NOISES), seed=1))
    return y + noise * Noise(2, range(len(NOISES)))(y), noise


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", DIFFUSION)
def test_draws_are_images_or_an_error_says_why_not(name, operator, size):
    """In float32. A value farther than 12 spreads from the centre is no draw: y is not, whose noise is 4 spreads."""
    A = OPERATORS[operator]((1, *size))
    p = prior(A.image_shape)
    y, noise = measured(p, A)
    with torch.no_grad():  # as `restore` does; samplers that want gradients ask for them
        try:
            draws = quick(name)(p, Measurement(y, A, noise), Noise(0, range(len(y))))
        except UnsupportedError as error:
            # Whoever wants singular values takes a mask; and nothing is refused but for one of these reasons.
            known = [TOO_MANY_VALUES] if operator in MASKS else [TOO_MANY_VALUES, *SINGULAR_VALUES]
            given = str(error)
            assert any(reason in given for reason in known)
            return
    assert draws.dtype == torch.float32
    assert draws.shape == (len(y), *A.image_shape)
    assert torch.isfinite(draws).all()
    assert (draws - p.centre).abs().max() < 12 * p.spread


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("name", ["latent-daps", "psld", "resample"])
def test_draws_in_latents_are_images(name, operator):
    """Of a linear decoder of white Gaussian latents: within 12 spreads of the centre, as above."""
    A = OPERATORS[operator]((1, 8, 8))
    p = LinearLatents(A.image_shape)
    y = A(p.sample(len(NOISES), seed=1))
    noise = torch.tensor(NOISES, dtype=y.dtype).reshape(-1, 1, 1, 1)
    y = y + noise * Noise(2, range(len(NOISES)))(y)
    with torch.no_grad():
        draws = quick(name, steps=30, transitions=1, leapfrog=2)(p, Measurement(y, A, noise), Noise(0, range(len(y))))
    assert draws.shape == (len(y), *A.image_shape)
    assert (draws - p.centre).abs().max() < 12 * p.spread  # not true of NaN


SHAPE = (1, 8, 8)
# One mask or kernel for each of the noise levels.
KERNELS = torch.stack(
    [gaussian_kernel(width, 5) for width in (0.4, 0.8, 1.2)] + [motion_kernel(5, angle) for angle in (0.0, 60.0)]
)
PER_IMAGE = {
    "inpaint": Inpaint(torch.stack([random_mask(SHAPE, share, 0) for share in (0.5, 0.2, 1.0, 0.8, 0.0)]), SHAPE),
    "circular blur": Blur(KERNELS, SHAPE, "circular"),
    "valid blur": Blur(KERNELS, SHAPE, "valid"),
}


@pytest.mark.parametrize("operator", PER_IMAGE)
@pytest.mark.parametrize("name", DIFFUSION)
def test_image_of_a_batch_with_its_own_operator_and_noise_is_drawn_as_alone(name, operator):
    """To rounding: 2^-52 of the images' own size, grown no more than the square of the largest ratio of levels.

    Weights of y against x_hat are ratios of variances, none larger than (sigma_max / noise)^2, with the noise no less
    than sigma_min / 5. That is 1e-5 of a spread; an image that saw its neighbour's mask, kernel, noise level or norm
    would be off by a share of the spread that one can see.
    """
    A, p = PER_IMAGE[operator], correlated(SHAPE)
    y, noise = measured(p, A)
    measurement = Measurement(y, A, noise)
    tolerance = 2**-52 * (p.sigma_max / (p.sigma_min / 5)) ** 2
    with torch.no_grad():
        try:
            together = quick(name)(p, measurement, Noise(0, range(len(y))))
        except UnsupportedError:
            assert quick(name).needs_operator  # only those may refuse it
            return
        for i in range(len(y)):
            one = Measurement(y[i : i + 1], A.select(torch.tensor([i])), NOISES[i])
            alone = quick(name)(p, one, Noise(0, [i]))
            assert (alone[0] - together[i]).abs().max() < tolerance * p.spread
