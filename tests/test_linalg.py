"""Linear algebra on batches of images."""

import pytest
import torch

from genprior.linalg import cg, cgls, divide, inner, norm


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariances(B, D, condition):
    """B symmetric matrices with eigenvalues 1 / condition to 1, evenly in the logarithm."""
    Q, _ = torch.linalg.qr(draw(B, D, D))
    return Q * torch.logspace(0, -torch.tensor(float(condition)).log10(), D, dtype=torch.float64) @ Q.mT


def apply(M):
    return lambda x: (M @ x.flatten(1)[..., None]).reshape(x.shape)


def test_inner_and_norm_sum_over_each_image_alone():
    a, b = draw(3, 2, 4, 5), draw(3, 2, 4, 5, seed=1)
    for i in range(3):
        assert inner(a, b)[i].item() == pytest.approx((a[i].flatten() @ b[i].flatten()).item(), rel=1e-12)
        assert norm(a)[i].item() == pytest.approx(a[i].norm().item(), rel=1e-12)
    assert inner(a, b).shape == (3, 1, 1, 1)


def test_divide_is_zero_with_a_zero_gradient_where_the_divisor_is_zero():
    b = torch.tensor([2.0, 0.0], requires_grad=True)
    q = divide(torch.tensor([3.0, 3.0]), b)
    q.sum().backward()
    assert q.tolist() == [1.5, 0]
    assert b.grad.tolist() == [-0.75, 0]


def test_cg_is_exact_after_as_many_iterations_as_unknowns():
    M, b = covariances(2, 12, 10), draw(2, 1, 3, 4)
    exact = torch.linalg.solve(M, b.flatten(1)[..., None]).reshape(b.shape)
    assert (norm(cg(apply(M), b, iterations=12) - exact) < 1e-9 * norm(exact)).all()
    assert (norm(cg(apply(M), b, iterations=6) - exact) > 1e-3 * norm(exact)).all()


def test_cg_converges_as_fast_as_theory_says():
    # |x_k - x|_M <= 2 q^k |x|_M, q = (sqrt(condition) - 1) / (sqrt(condition) + 1)
    M, b = covariances(2, 100, 100), draw(2, 1, 10, 10)
    exact = torch.linalg.solve(M, b.flatten(1)[..., None]).reshape(b.shape)
    error = cg(apply(M), b, iterations=40) - exact
    assert (inner(error, apply(M)(error)) <= (2 * (9 / 11) ** 40) ** 2 * inner(exact, b)).all()


def test_cg_with_the_inverse_as_preconditioner_takes_one_iteration():
    M, b = covariances(2, 12, 1e4), draw(2, 1, 3, 4)
    x = cg(apply(M), b, iterations=1, preconditioner=apply(torch.linalg.inv(M)))
    assert (norm(apply(M)(x) - b) < 1e-10 * norm(b)).all()


def test_cg_starts_from_x0():
    M, b = covariances(2, 100, 1e4), draw(2, 1, 10, 10)
    exact = torch.linalg.solve(M, b.flatten(1)[..., None]).reshape(b.shape)
    x0 = exact + 1e-6 * draw(2, 1, 10, 10, seed=1)
    assert torch.equal(cg(apply(M), b, x0=x0, iterations=0), x0)
    error = cg(apply(M), b, x0=x0, iterations=3) - exact
    assert (inner(error, apply(M)(error)) < 0.5 * inner(x0 - exact, apply(M)(x0 - exact))).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_cg_stays_at_the_solution_once_converged(dtype):
    # an image of zeros, one that converges at once, one that takes 12 iterations
    M = torch.stack([torch.eye(12).double(), torch.eye(12).double(), *covariances(1, 12, 20)]).to(dtype)
    b = draw(3, 1, 3, 4).to(dtype)
    b[0] = 0
    x = cg(apply(M), b, iterations=500)
    exact = torch.linalg.solve(M.double(), b.double().flatten(1)[..., None]).reshape(b.shape)
    assert torch.isfinite(x).all()
    # rounding times the condition number, and a margin of 10
    assert (norm(x - exact) <= 200 * torch.finfo(dtype).eps * norm(exact)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rows", [8, 12, 20])
def test_cgls_finds_the_shortest_least_squares_solution_and_stays_there(dtype, rows):
    # rank 7 in 12 unknowns, singular values 1 to 5, and a y that no x explains; then no y at all
    U, V = torch.linalg.qr(draw(rows, 7))[0], torch.linalg.qr(draw(12, 7, seed=1))[0]
    A = (U * torch.linspace(1, 5, 7).double() @ V.T).to(dtype)
    y = draw(2, 1, 1, rows).to(dtype)
    y[1] = 0
    x = cgls(lambda x: x @ A.T, lambda y: y @ A, y, iterations=500)
    exact = y.double() @ torch.linalg.pinv(A.double(), rtol=1e-4).T
    # the gradient stops at 10 roundings, times the condition number 25 of A^T A
    assert (norm(x - exact) <= 250 * torch.finfo(dtype).eps * norm(y)).all()


def test_cg_gives_each_image_what_it_gives_it_alone():
    M, b = covariances(3, 30, 100), draw(3, 1, 5, 6)
    together = cg(apply(M), b, iterations=8)
    for i in range(3):
        alone = cg(apply(M[i : i + 1]), b[i : i + 1], iterations=8)
        assert (norm(together[i : i + 1] - alone) < 1e-12 * norm(alone)).all()


def test_cg_stops_where_the_matrix_has_less_than_its_least_eigenvalue_should_be():
    """Diagonal, of 1 and -1: the second image has no direction to trust, the first goes on to its solution."""
    signs = torch.stack([torch.ones(6), torch.tensor([-1.0, 1, -1, 1, -1, -1])]).double().reshape(2, 1, 2, 3)
    b = torch.ones(2, 1, 2, 3, dtype=torch.float64)
    x = cg(lambda u: signs * u, b, iterations=5, least=0.5)
    assert torch.equal(x[0], b[0])
    assert torch.equal(x[1], torch.zeros_like(b[1]))
