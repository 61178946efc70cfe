"""What a measurement on a coarser grid adds to the mean of a stationary Gaussian, against dense matrices."""

import pytest
import torch
from test_completed import dense_answer, normal, stationary

from genprior.operators import SuperResolution
from genprior.priors.gaussian.covariance import Stationary
from genprior.samplers.guidance.added import added
from genprior.samplers.guidance.correction import correction
from genprior.samplers.guidance.decimated import aliased, row_power
from genprior.samplers.guidance.probed_covariance import cosines

SHAPE = (2, 12, 20)  # 12 x 20, 6 x 10 and 3 x 5 when reduced


def of(V, A, noise, residual, iterations):
    return added(A, noise, V, torch.zeros(1, *A.image_shape, dtype=residual.dtype))(V, residual, [iterations])


@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("antialias", ["bicubic", "gaussian", "average"])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_converged_it_is_the_mean_of_the_gaussian_posterior(scale, antialias, noise):
    V, A = stationary(SHAPE), SuperResolution(scale, SHAPE, antialias)
    residual = A(normal(2, *SHAPE, seed=2))
    found = of(V, A, noise, residual, 1000)
    torch.testing.assert_close(found.flatten(1), dense_answer(V, A, noise, residual), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("colours", ["of photographs", "any"])
@pytest.mark.parametrize(("antialias", "iterations"), [("average", 8), ("bicubic", 16), ("gaussian", 16)])
def test_few_iterations_come_nearer_than_as_many_on_images(antialias, iterations, colours):
    """A quarter of them run: 2 for block averages, whose A V A^T is circulant, and 4; errors in prior sds."""
    shape = (3, 64, 64)
    V, A, noise = stationary(shape), SuperResolution(4, shape, antialias), 0.01
    if colours == "of photographs":
        V = Stationary(V.eigenvalues, cosines(3).double())
    residual = A(normal(1, *shape, seed=2))
    exact = of(V, A, noise, residual, 400)
    V_normal, _ = V.diagonal_like(lambda x: A.adjoint(A(x)), exact)
    on_images = correction(V, A, noise, A.adjoint(residual), V_normal, iterations)
    error, other = ((x - exact).square().mean().sqrt() for x in (of(V, A, noise, residual, iterations), on_images))
    assert error < {"average": 1e-6, "bicubic": 3e-3, "gaussian": 3e-2}[antialias] * V.eigenvalues.mean().sqrt()
    assert error < other


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("antialias", ["bicubic", "gaussian"])
def test_preconditioner_is_good_without_noise_too(antialias, scale):
    """An eigenvalue of 0 where A V A^T has none would let the iterations run far along it."""
    shape = (1, 64, 64)
    V, A = stationary(shape), SuperResolution(scale, shape, antialias)
    residual = A(V.filter(normal(1, *shape, seed=2), V.eigenvalues.sqrt()))
    exact = of(V, A, 0.0, residual, 4000)
    error = (of(V, A, 0.0, residual, 16) - exact).square().mean().sqrt()
    assert error < 0.1 * V.eigenvalues.mean().sqrt()


@pytest.mark.parametrize("antialias", ["bicubic", "gaussian", "average"])
def test_spectrum_is_that_of_block_averages_and_near_that_of_others(antialias):
    V, A = stationary(SHAPE), SuperResolution(2, SHAPE, antialias)
    power = row_power(A, torch.zeros(1, dtype=torch.float64))
    coarse = Stationary(torch.ones(A.measurement_shape), V.axes)
    u = normal(1, *A.measurement_shape, seed=3)
    found, true = coarse.scaled(u, aliased(V, A, power)), A(V.filter(A.adjoint(u), V.eigenvalues))
    assert (found - true).norm() < {"average": 1e-12, "bicubic": 0.2, "gaussian": 0.3}[antialias] * true.norm()


def test_each_image_has_its_own_covariance_noise_and_number_of_iterations():
    A, noise = SuperResolution(2, SHAPE), torch.tensor([0.01, 0.3], dtype=torch.float64).reshape(-1, 1, 1, 1)
    V = stationary(SHAPE)
    V = V.with_eigenvalues(torch.stack([V.eigenvalues, 0.1 * V.eigenvalues.sqrt()]))
    like, residual = torch.zeros(2, *SHAPE, dtype=torch.float64), A(normal(2, *SHAPE, seed=2))
    together = added(A, noise, V, like)(V, residual, [12, 4])
    for k, iterations in enumerate((12, 4)):
        one = V.with_eigenvalues(V.eigenvalues[k])
        alone = added(A, float(noise[k]), one, like[:1])(one, residual[k : k + 1], [iterations])
        torch.testing.assert_close(together[k : k + 1], alone)


def test_floor_of_the_spectrum_is_that_of_each_image():
    """Without noise, beside an image of 1e12 times the variance, where one floor would undo the preconditioner."""
    A, V = SuperResolution(2, SHAPE, "average"), stationary(SHAPE)
    V = V.with_eigenvalues(torch.stack([V.eigenvalues, 1e-12 * V.eigenvalues]))
    residual = A(normal(2, *SHAPE, seed=2)) * torch.tensor([1, 1e-6], dtype=torch.float64).reshape(-1, 1, 1, 1)
    found = added(A, 0.0, V, torch.zeros(2, *SHAPE, dtype=torch.float64))(V, residual, [8, 8])
    torch.testing.assert_close(1e6 * found[1:], of(stationary(SHAPE), A, 0.0, 1e6 * residual[1:], 8))
