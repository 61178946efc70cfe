"""What a measurement with missing values adds to the mean of a Gaussian, against dense matrices."""

import math

import pytest
import torch

from genprior.operators import Blur, Inpaint, SuperResolution, box_mask, gaussian_kernel, motion_kernel, random_mask
from genprior.priors.gaussian.covariance import Dense, Diagonal, Stationary
from genprior.samplers.guidance import added as module
from genprior.samplers.guidance.added import added
from genprior.samplers.guidance.correction import correction

SHAPE = (2, 12, 11)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stationary(shape=SHAPE):
    """Variances from 10 down to about 1e-3, as photographs have them at high noise, and axes of colour of its own."""
    C, H, W = shape
    f = torch.fft.fftfreq(H, dtype=torch.float64)[:, None] ** 2 + torch.fft.fftfreq(W, dtype=torch.float64) ** 2
    spectrum = torch.stack([10 / (1 + 4000 * (c + 1) * f) for c in range(C)])
    return Stationary(spectrum, torch.linalg.qr(normal(C, C))[0])


def dense(shape=SHAPE):
    D = math.prod(shape)
    return Dense(normal(*shape).square() + 0.01, torch.linalg.qr(normal(D, D))[0])


def covariance(form):
    if form is Diagonal:
        return Diagonal(normal(*SHAPE).square() + 0.01)
    return dense() if form is Dense else stationary()


def matrix(apply, shape):
    eye = torch.eye(math.prod(shape), dtype=torch.float64).unflatten(1, shape)
    return apply(eye).flatten(1).T


def dense_answer(V, A, noise, residual):
    S = matrix(lambda x: V.filter(x, V.eigenvalues), A.image_shape)
    M = matrix(A, A.image_shape)
    y = residual.flatten(1).T
    return (S @ M.T @ torch.linalg.pinv(M @ S @ M.T + noise**2 * torch.eye(len(M), dtype=torch.float64)) @ y).T


MASKS = {
    "scattered": random_mask((1, 12, 11), 0.7),
    "few left": random_mask((1, 12, 11), 0.95),
    "box": box_mask((1, 12, 11), (7, 6), seed=1),
    "none missing": torch.zeros(1, 12, 11, dtype=torch.bool),
    "all missing": torch.ones(1, 12, 11, dtype=torch.bool),
    "of each colour": torch.cat([random_mask((1, 12, 11), 0.5), box_mask((1, 12, 11), 6)]),
}


@pytest.mark.parametrize("noise", [0.0, 0.01, 1.0])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("form", [Diagonal, Dense, Stationary])
def test_converged_it_is_the_mean_of_the_gaussian_posterior(form, mask, noise):
    V, A = covariance(form), Inpaint(MASKS[mask], SHAPE)
    residual = A(normal(1, *SHAPE, seed=2))
    found = added(A, noise, V, torch.zeros(1, *SHAPE, dtype=torch.float64))(V, residual, [1000])
    torch.testing.assert_close(found.flatten(1), dense_answer(V, A, noise, residual), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("kernel", [gaussian_kernel(1.2, 5), motion_kernel(5, 30.0), normal(4, 3).abs()])
def test_blur_past_the_frame_is_completed_to_a_circular_one(kernel):
    V, A = stationary(), Blur(kernel, SHAPE)
    residual = A(normal(1, *SHAPE, seed=2))
    found = added(A, 0.02, V, torch.zeros(1, *SHAPE, dtype=torch.float64))(V, residual, [1000])
    torch.testing.assert_close(found.flatten(1), dense_answer(V, A, 0.02, residual), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("A", [Inpaint(MASKS["of each colour"], SHAPE), Blur(motion_kernel(5, 30.0), SHAPE)])
def test_measurement_is_the_part_of_the_whole_that_it_says(A):
    parts, x = A.completion(), normal(2, *SHAPE)
    torch.testing.assert_close(parts.embed(A(x)), torch.where(parts.missing, 0, parts.whole(x)))


def test_few_iterations_get_far_in_holes_of_every_kind():
    """Eight iterations, of two products each, beside as many products the other way."""
    shape = (1, 48, 48)
    V, noise = stationary(shape), 0.025
    sd = float(V.eigenvalues.mean().sqrt())
    holes = {"box": box_mask(shape, 24), "scattered": random_mask(shape, 0.7), "few left": random_mask(shape, 0.92)}
    for name, mask in holes.items():
        A = Inpaint(mask, shape)
        residual = A(V.filter(normal(1, *shape), V.eigenvalues.sqrt()))
        add = added(A, noise, V, torch.zeros(1, *shape, dtype=torch.float64))
        right = add(V, residual, [600])
        error = float((add(V, residual, [16]) - right).square().mean().sqrt()) / sd
        mean, _ = V.diagonal_like(lambda x, A=A: A.adjoint(A(x)), torch.zeros(1, *shape, dtype=torch.float64))
        other = float((correction(V, A, noise, A.adjoint(residual), mean, 16) - right).square().mean().sqrt()) / sd
        assert error < 0.03, name
        assert error < other / 2, name


def test_covariance_between_pixels_is_the_mean_over_pairs_of_them():
    V, pixels = stationary(), MASKS["of each colour"][:1]
    gain = 1 / (V.variances + 0.1)
    lags = torch.fft.irfft2(gain[..., 0], s=SHAPE[1:])
    places = pixels[0].nonzero().tolist()
    pairs = torch.zeros(SHAPE[1:], dtype=torch.float64)
    for i, j in places:
        for k, m in places:
            pairs[(k - i) % SHAPE[1], (m - j) % SHAPE[2]] += 1
    expected = torch.fft.rfft2(pairs / len(places) * lags).real[..., None]
    torch.testing.assert_close(V.between(gain, pixels[None])[0], expected)
    torch.testing.assert_close(V.between(gain, torch.ones(1, 1, *SHAPE[1:]))[0], gain)


def test_each_image_has_its_own_mask_noise_and_covariance():
    V = stationary()
    V = V.with_eigenvalues(V.eigenvalues * torch.tensor([1.0, 0.1]).double()[:, None, None, None])
    masks = torch.stack([MASKS["box"], MASKS["scattered"]])
    A, noise = Inpaint(masks, SHAPE), torch.tensor([0.02, 0.2]).double()[:, None, None, None]
    residual = A(normal(2, *SHAPE, seed=2))
    like = torch.zeros(2, *SHAPE, dtype=torch.float64)
    both = added(A, noise, V, like)(V, residual, [8, 4])
    for i, n in enumerate((8, 4)):
        one, own = A.select(torch.tensor([i])), V.with_eigenvalues(V.eigenvalues[i : i + 1])
        alone = added(one, noise[i : i + 1], own, like[:1])(own, residual[i : i + 1], [n])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-12)


def test_super_resolution_is_no_part_of_what_shares_the_eigenvectors(monkeypatch):
    def refuse(*args, **options):
        raise AssertionError("completed a measurement that has no whole")

    monkeypatch.setattr(module, "completed", refuse)
    A, V = SuperResolution(2, (2, 12, 12)), dense((2, 12, 12))
    residual = A(normal(1, 2, 12, 12))
    found = added(A, 0.05, V, torch.zeros(1, 2, 12, 12, dtype=torch.float64))(V, residual, [300])
    torch.testing.assert_close(found.flatten(1), dense_answer(V, A, 0.05, residual), rtol=1e-8, atol=1e-9)


def test_way_of_an_image_does_not_depend_on_its_company():
    """Under a dense covariance a kernel that does nothing is completed, another one is not."""
    kernels = torch.stack([torch.zeros(3, 3).double(), normal(3, 3).abs()])
    kernels[0, 1, 1] = 1
    V, A = covariance(Dense), Blur(kernels, SHAPE)
    residual = A(normal(2, *SHAPE, seed=2))
    like = torch.zeros(2, *SHAPE, dtype=torch.float64)
    both = added(A, 0.3, V, like)(V, residual, [6])
    for i in (0, 1):
        one = A.select(torch.tensor([i]))
        alone = added(one, 0.3, V, like[:1])(V, residual[i : i + 1], [6])
        torch.testing.assert_close(both[i : i + 1], alone, rtol=1e-9, atol=1e-12)
