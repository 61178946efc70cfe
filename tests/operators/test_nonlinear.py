"""Operators that are not linear: derivatives, composition, what they are checked for, phase retrieval."""

import pickle

import deepinv
import pytest
import torch

import genprior
from genprior.checks import UnsupportedError
from genprior.likelihoods import Poisson
from genprior.linalg import inner, norm
from genprior.operators import (
    Blur,
    Inpaint,
    LinearOperator,
    Measurement,
    Operator,
    PhaseRetrieval,
    check,
    from_physics,
    gaussian_kernel,
)

SHAPE = (2, 5, 6)


class Pointwise(Operator):
    """A function of each value."""

    def __init__(self, function, shape=SHAPE):
        self.function = function
        self.image_shape = self.measurement_shape = shape

    def _forward(self, x):
        return self.function(x)

    def _select(self, index):
        return self


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def denoiser(x_t, sigma):
    return 0.5 + 0.06 / (0.06 + sigma**2) * (x_t - 0.5)


def test_derivatives_of_a_composition_are_those_of_the_chain_rule():
    """(B x)^2, whose Jacobian is diag(2 B x) B: equal to rounding of sums of 25 products in float64."""
    B = Blur(gaussian_kernel(0.4), SHAPE, "circular")
    A = Pointwise(torch.square) @ B
    assert not isinstance(A, LinearOperator)
    x, u, v = draw(3, *SHAPE), draw(3, *SHAPE, seed=1), draw(3, *SHAPE, seed=2)
    y, vjp = A.vjp(x)
    torch.testing.assert_close(y, B(x).square())
    for _ in range(2):  # as often as one likes
        torch.testing.assert_close(vjp(v), B.adjoint(2 * B(x) * v), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(A.jvp(x, u), 2 * B(x) * B(u), rtol=1e-12, atol=1e-12)


def test_derivatives_of_a_linear_operator_are_itself():
    B = Blur(gaussian_kernel(0.4), SHAPE, "circular")
    x, v = draw(3, *SHAPE), draw(3, *SHAPE, seed=1)
    y, vjp = B.vjp(x)
    assert torch.equal(y, B(x))
    assert torch.equal(vjp(v), B.adjoint(v))
    assert torch.equal(B.jvp(x, v), B(v))
    assert isinstance(B @ B, LinearOperator)


@pytest.mark.parametrize("oversample", [1, 2, 3])
def test_phase_retrieval_is_the_magnitude_of_the_fourier_transform_of_the_padded_image(oversample):
    """Against sums of 30 exponentials, in float64."""
    A = PhaseRetrieval(SHAPE, oversample)
    _, H, W = SHAPE
    x = draw(2, *SHAPE)
    rows, columns = (
        torch.exp(
            -2j * torch.pi * torch.outer(torch.arange(oversample * n), torch.arange(n)).double() / (oversample * n)
        )
        for n in (H, W)
    )
    y = (rows @ x.to(rows) @ columns.mT).abs() / (oversample * (H * W) ** 0.5)
    torch.testing.assert_close(A(x), y, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm(A(x)), norm(x), rtol=1e-12, atol=0)
    torch.testing.assert_close(A(-x.flip(-1, -2)), A(x), rtol=1e-11, atol=1e-12)
    assert PhaseRetrieval.for_measurement(A.measurement_shape, oversample).image_shape == SHAPE


def test_phase_retrieval_refuses_sides_that_do_not_divide():
    with pytest.raises(ValueError, match="5 x 6, are no multiples of oversample=2"):
        PhaseRetrieval.for_measurement((1, 5, 6))
    with pytest.raises(ValueError, match="oversample"):
        PhaseRetrieval(SHAPE, 0)


def test_values_of_y_that_do_not_depend_on_x_are_not_seen():
    holes = torch.zeros(5, 6, dtype=torch.bool)
    holes[:, 2:] = True
    A = Inpaint(holes, SHAPE) @ Pointwise(torch.abs)
    seen = Measurement(torch.zeros(2, *SHAPE), A, 0.1).seen
    assert torch.equal(seen.bool(), ~holes.expand(2, *SHAPE))


def test_potential_of_photon_noise_has_the_gradient_of_its_log_probability():
    """k - z / gain, k = y / gain, for the Poisson law of z = x^2 with counts k: by hand."""
    gain, x = 0.1, draw(3, *SHAPE).abs() + 0.1
    y = gain * torch.arange(180.0, dtype=torch.float64).reshape(3, *SHAPE) % 7
    energy, gradient = Measurement(y, Pointwise(torch.square), Poisson(gain)).potential(x)
    torch.testing.assert_close(gradient, -(y / gain / x.square() - 1 / gain) * 2 * x, rtol=1e-10, atol=1e-10)
    other = Measurement(y, Pointwise(torch.square), Poisson(gain)).potential(x + 1e-6 * gradient)[0]
    torch.testing.assert_close(other - energy, 1e-6 * inner(gradient, gradient).flatten(), rtol=1e-2, atol=0)


WRONG = {
    "gives another": Pointwise(lambda x: x.square() + torch.rand(1)),
    "in the company of others": Pointwise(lambda x: x.square() - x.mean(0, keepdim=True)),
    "is not differentiable": Pointwise(lambda x: x.detach().square()),
    "derivative of Pointwise is 0": Pointwise(lambda x: (255 * x).round() / 255),
    "not finite": Pointwise(lambda x: (x - 2).sqrt()),
    "is real, of shape": Pointwise(lambda x: x[..., 1:].square()),
}


@pytest.mark.parametrize("reason", WRONG)
def test_what_samplers_cannot_use_is_refused_wherever_it_is_wrapped(reason):
    A, y = WRONG[reason], torch.full((1, *SHAPE), 0.5)
    for wrapped in (A, A @ Blur(gaussian_kernel(0.4), SHAPE, "circular")):
        with torch.random.fork_rng(devices=[]), pytest.raises(TypeError, match=reason):
            genprior.restore(y, wrapped, denoiser, noise=0.1, sampler="dps", steps=2, progress=False)
    with torch.random.fork_rng(devices=[]), pytest.raises(TypeError, match=reason):
        check(A)


class Twice(deepinv.physics.Physics):
    """Linear, whatever its class says."""

    def A(self, x, **_):
        return 2 * x

    def A_adjoint(self, y, **_):
        return 2 * y


def test_physics_of_deepinv_that_are_not_linear_are_taken_for_what_they_are():
    P = deepinv.physics
    x = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    for physics in (P.PhaseRetrieval(P.Denoising(noise_model=P.ZeroNoise())), P.Physics(A=lambda x, **_: x.square())):
        A = from_physics(physics, (1, 6, 6))
        assert not isinstance(A, LinearOperator)
        assert torch.equal(A(x), physics.A(x))
        assert torch.equal(pickle.loads(pickle.dumps(A))(x), A(x))
        torch.testing.assert_close(A.vjp(x)[1](x), 2 * x * x)
    assert isinstance(from_physics(Twice(), (1, 6, 6)), LinearOperator)
    with pytest.raises(TypeError, match="derivative of Physics is 0"):
        from_physics(P.Physics(A=lambda x, **_: x.sign()), (1, 6, 6))


def test_restore_gives_the_sample_that_fits_best_where_the_operator_is_not_linear():
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    measurement = genprior.degrade(x, "phase-retrieval", noise=0.02, seed=0)
    assert measurement.y.shape == (2, 1, 16, 16)
    result = genprior.restore(measurement, prior=denoiser, sampler="daps-hmc", steps=3, seed=0, progress=False)
    assert result.samples.shape == (2, 4, 1, 8, 8)
    A, samples = measurement.operator, result.samples
    left = torch.stack([norm(measurement.y[i] - A(samples[i])).flatten() for i in range(2)])
    chosen = torch.stack([samples[i, left[i].argmin()] for i in range(2)])
    assert torch.equal(result.picture, chosen)
    assert torch.equal(result.image, chosen.clamp(0, 1))
    assert "the draw that fits y best" in str(result)
    one = genprior.restore(measurement.y[0], "phase-retrieval", denoiser, noise=0.02, steps=3, seed=0, progress=False)
    assert one.image.shape == (1, 8, 8)
    with pytest.raises(ValueError, match="state it, as noise="):
        genprior.restore(measurement.y[0], "phase-retrieval", denoiser)
    with pytest.raises(UnsupportedError, match="is not linear: take"):
        genprior.restore(measurement, prior=denoiser, sampler="ddrm", progress=False)


def test_noise_of_a_measurement_that_is_not_linear_is_as_stated():
    x = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    A = PhaseRetrieval((1, 64, 64))
    y = genprior.degrade(x, A, noise=0.1, seed=0).y
    # of 16384 values: 4 standard errors are 2.2 %
    assert (y - A(x)).std().item() == pytest.approx(0.1, rel=0.022)
