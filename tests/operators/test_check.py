"""What is not linear, or whose adjoint is another map's, is refused, whatever its class says."""

import pytest
import torch

import genprior
from genprior.operators import Blur, Colorize, Composition, Denoise, LinearOperator, check, motion_kernel
from genprior.operators.channelwise import Channelwise

SHAPE = (1, 12, 12)


class Own(LinearOperator):
    """An operator of a user's, of any two functions."""

    image_shape = measurement_shape = SHAPE

    def __init__(self, forward, adjoint=lambda y: y):
        self.forward, self.backward = forward, adjoint

    def _forward(self, x):
        return self.forward(x)

    def _adjoint(self, y):
        return self.backward(y)

    def _select(self, index):
        return self


def denoiser(x_t, sigma):
    return 0.5 + 0.06 / (0.06 + sigma**2) * (x_t - 0.5)


def smoothed(x):
    return (x + x.roll(1, -1)) / 2


WRONG = {
    "square": Own(torch.square),
    "affine": Own(lambda x: x + 1e-3),
    "clipped": Own(lambda x: x.clamp(0, 1)),
    "rounded to 8 bits": Own(lambda x: (255 * x).round() / 255),
    "modulus": Own(torch.abs),
    "no adjoint of a shift": Own(lambda x: x.roll(1, -1)),
    "adjoint 1 % too large": Own(lambda x: x, lambda y: 1.01 * y),
    "adjoint but for one row": Own(lambda x: x, lambda y: torch.cat([y[..., 1:, :], 0 * y[..., :1, :]], dim=-2)),
    "random": Own(lambda x: x * torch.rand(1)),
    "another shape": Own(lambda x: x[..., 1:]),
    "adjoint of another shape": Own(lambda x: x, lambda y: y[..., 1:]),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_linear_operator_is_refused_wherever_it_is_wrapped(name):
    A, y = WRONG[name], torch.full((1, *SHAPE), 0.5)
    inner = Composition(Denoise(SHAPE), A)
    with torch.random.fork_rng(devices=[]):
        with pytest.raises(TypeError, match="Own"):
            check(A)
        for op in (A, inner, Channelwise(A, 3)):
            given = y.expand(1, *op.measurement_shape)
            with pytest.raises(TypeError, match="Own"):
                genprior.restore(given, op, denoiser, noise=0.1, steps=2, progress=False)
        with pytest.raises(TypeError, match="Own"):
            genprior.restore(genprior.Measurement(y, A, 0.1), prior=denoiser, steps=2, progress=False)
        with pytest.raises(TypeError, match="Own"):
            genprior.degrade(y, A)
        with pytest.raises(TypeError, match="Own"):
            genprior.evidence(y, A, genprior.Gaussian(y[0], y[0]), noise=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_is_linear_passes_in_every_precision_and_unit(dtype, scale):
    A = Own(lambda x: scale * smoothed(x), lambda y: scale * (y + y.roll(-1, -1)) / 2)
    check(A, like=torch.empty(0, dtype=dtype))
    check(Own(lambda x: 0 * x, lambda y: 0 * y))
    for ours in (Blur(motion_kernel(5, 30), (3, 20, 20)), Colorize((3, 9, 9)), Blur(torch.rand(3, 4, 4), (1, 9, 9))):
        check(ours)


def test_a_check_leaves_global_random_state_alone():
    before = torch.random.get_rng_state()
    check(Own(lambda x: x))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_operators_of_ones_own_restore():
    A = Own(smoothed, lambda y: (y + y.roll(-1, -1)) / 2)
    y = torch.full((1, *SHAPE), 0.5)
    mean = genprior.restore(y, A, denoiser, noise=0.01, steps=5, seed=0, progress=False).mean
    assert torch.isfinite(mean).all()
