"""Every operator against its explicit matrix, in float64: what it computes is linear algebra, to rounding.

Tolerance: relative error < 1e-10. Rounding is 1e-16, times condition numbers of at most 1e4 and the length of sums.
"""

import pytest
import torch

import genprior.operators
from genprior.operators import (
    JPEG,
    Blur,
    Colorize,
    Composition,
    Denoise,
    Inpaint,
    LinearOperator,
    Matrix,
    SuperResolution,
    random_mask,
)
from genprior.operators.separable import Separable

TOLERANCE = 1e-10


def draw(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel(*shape, seed=0):
    """A kernel whose transfer function stays away from zero: a delta and a little of everything."""
    k = 0.3 * draw(*shape, seed=seed).abs() / (shape[-1] * shape[-2])
    k[..., shape[-2] // 2, shape[-1] // 2] += 1
    return k


def separable(*shape):
    """Products of a line along columns and one along rows; each with an odd centre that stays away from zero."""
    *batch, kh, kw = shape
    return kernel(*batch, kh, 1, seed=5) * kernel(*batch, 1, kw, seed=6)


def masks(H, W):
    return torch.stack([random_mask((H, W), fraction, seed=3) for fraction in (0.2, 0.5, 1.0)])


def operators(H, W):
    yield "inpaint", Inpaint(random_mask((H, W), 0.4, seed=1), (2, H, W))
    yield "inpaint-channels", Inpaint(draw(2, H, W) > 0, (2, H, W))
    yield "inpaint-nothing", Inpaint(torch.zeros(H, W), (1, H, W))
    yield "inpaint-everything", Inpaint(torch.ones(H, W), (1, H, W))
    yield "inpaint-batch", Inpaint(masks(H, W), (2, H, W))
    for antialias in ("bicubic", "gaussian", "average"):
        yield f"superres-{antialias}", SuperResolution(2, (2, H, W), antialias)
    yield "superres-1", SuperResolution(1, (1, H, W))
    yield "circular", Blur(kernel(3, 5), (2, H, W), "circular")
    yield "circular-even", Blur(kernel(4, 2), (1, H, W), "circular")
    yield "circular-batch", Blur(kernel(3, 3, 4), (2, H, W), "circular")
    yield "valid", Blur(kernel(3, 5), (2, H, W), "valid", iterations=150)
    yield "valid-even", Blur(kernel(2, 4), (1, H, W), "valid", iterations=150)
    yield "valid-batch", Blur(kernel(3, 3, 4), (1, H, W), "valid", iterations=150)
    yield "valid-separable", Blur(separable(3, 5), (2, H, W), "valid", iterations=150)
    yield "valid-separable-line", Blur(separable(1, 4), (1, H, W), "valid", iterations=150)
    yield "valid-separable-batch", Blur(separable(3, 4, 3), (2, H, W), "valid", iterations=150)
    yield "separable", Separable(lambda: (draw(3, H), draw(W, W, seed=1)), (2, H, W), (2, 3, W))
    rank_2 = draw(H - 2, 2) @ draw(2, H, seed=1)
    yield "separable-rank-2", Separable(lambda: (rank_2, draw(4, W)), (2, H, W), (2, H - 2, 4))
    maps = lambda: (draw(3, 1, 4, H), draw(3, 1, 5, W, seed=1))  # noqa: E731
    yield "separable-batch", Separable(maps, (2, H, W), (2, 4, 5), batch=3)
    yield "colorize", Colorize((3, H, W))
    yield "denoise", Denoise((2, H, W))
    yield "matrix", Matrix(draw(17, H * W), (1, H, W))
    yield "matrix-tall", Matrix(draw(H * W + 9, H * W), (1, H, W))
    yield "matrix-rank-3", Matrix(draw(20, 3) @ draw(3, H * W), (1, H, W))
    yield "matrix-batch", Matrix(draw(3, 11, H * W), (1, H, W))
    yield "jpeg-grey", JPEG((1, H, W))
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield f"jpeg-{subsampling}", JPEG((3, H, W), subsampling, iterations=100)
    yield "jpeg-turned", JPEG((3, H, W), "4:2:0", orientation=6, iterations=100)
    yield "jpeg-whole", JPEG((3, 16, 16), "4:2:0")
    blur = Blur(kernel(3, 3), (1, H + 2, W + 2), iterations=150)
    yield "composition", SuperResolution(2, blur.measurement_shape) @ blur
    yield "composition-batch", Composition(Inpaint(masks(H, W), (1, H, W)), Colorize((3, H, W)))


CASES = {f"{name}-{H}x{W}": op for H, W in ((8, 8), (6, 10)) for name, op in operators(H, W)}
WITH_SVD = [name for name in CASES if "separable" in name or not name.startswith(("valid", "composition", "jpeg"))]


def test_every_operator_of_the_package_is_compared_here():
    public = (getattr(genprior.operators, name) for name in genprior.operators.__all__)
    kinds = {one for one in public if isinstance(one, type) and issubclass(one, LinearOperator)}
    assert kinds - {LinearOperator} <= {type(op) for op in CASES.values()}


def dense(f, shape):
    """The matrix of a linear map of images of that shape, by its effect on the unit vectors."""
    unit = torch.eye(shape[0] * shape[1] * shape[2], dtype=torch.float64)
    return f(unit.reshape(-1, *shape)).flatten(1).T


def singles(op):
    """The operators of the single images of a batch."""
    return [op.select(torch.tensor([i])) for i in range(op.batch)]


def close(a, b):
    return (a - b).norm() <= TOLERANCE * b.norm().clamp_min(1)


def solve(M, v):
    return torch.linalg.solve(M, v.flatten(1)[..., None]).reshape(v.shape)


@pytest.fixture(params=CASES)
def op(request):
    return CASES[request.param]


def test_forward_of_a_batch_is_the_matrix_of_each_image(op):
    x = draw(3, *op.image_shape)
    for i, one in enumerate(singles(op) * (3 // op.batch)):
        A = dense(one, op.image_shape)
        assert close(op(x)[i].flatten(), A @ x[i].flatten())


def test_adjoint_is_the_transposed_matrix(op):
    for one in singles(op):
        assert close(dense(one.adjoint, op.measurement_shape), dense(one, op.image_shape).T)


def test_pinv_is_the_pseudo_inverse_of_the_matrix(op):
    y = draw(3, *op.measurement_shape)
    for i, one in enumerate(singles(op) * (3 // op.batch)):
        A = dense(one, op.image_shape)
        assert close(op.pinv(y)[i].flatten(), torch.linalg.pinv(A, rtol=1e-9) @ y[i].flatten())


def test_solve_inverts_the_covariance_of_the_measurement(op):
    v = draw(3, *op.measurement_shape)
    c = torch.tensor([0.1, 0.3, 2.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    for i, one in enumerate(singles(op) * (3 // op.batch)):
        A = dense(one, op.image_shape)
        S = A @ A.T + c[i].item() * torch.eye(len(A), dtype=torch.float64)
        assert close(op.solve(v, c)[i], solve(S, v[i : i + 1])[0])
        assert close(one.solve(v[i : i + 1], c[i].item()), solve(S, v[i : i + 1]))


def test_prox_minimises_its_quadratic(op):
    z, y = draw(3, *op.image_shape, seed=1), draw(3, *op.measurement_shape, seed=2)
    gamma = torch.tensor([10.0, 3.0, 0.5], dtype=torch.float64).reshape(3, 1, 1, 1)
    x = op.prox(z, y, gamma)
    for i, one in enumerate(singles(op) * (3 // op.batch)):
        A, g = dense(one, op.image_shape), gamma[i].item()
        Q = g * A.T @ A + torch.eye(A.shape[1], dtype=torch.float64)
        b = g * A.T @ y[i].flatten() + z[i].flatten()
        assert close(x[i].flatten(), torch.linalg.solve(Q, b))
        assert close(one.prox(z[i : i + 1], y[i : i + 1], g)[0], x[i])


@pytest.mark.parametrize("name", WITH_SVD)
def test_svd_factors_the_matrix_with_orthonormal_transforms(name):
    for op in singles(CASES[name]):
        A = dense(op, op.image_shape)
        svd = op.svd()
        V, Vt, U = (dense(f, op.image_shape) for f in (svd.V, svd.Vt, svd.U))
        Ut = dense(svd.Ut, op.measurement_shape)
        s = svd.singular_values.expand(1, *op.image_shape).flatten()
        assert (s >= 0).all()
        assert close(U @ torch.diag(s) @ Vt, A)
        assert close(V.T @ V, torch.eye(len(V), dtype=torch.float64))
        assert close(Vt, V.T)
        assert close(Ut, U.T)
        seen = s > 1e-9
        assert close((Ut @ U)[seen][:, seen], torch.eye(int(seen.sum()), dtype=torch.float64))


@pytest.mark.parametrize("name", [name for name in WITH_SVD if "batch" in name])
def test_svd_of_a_batch_factors_each_matrix(name):
    op = CASES[name]
    x, y = draw(3, *op.image_shape), draw(3, *op.measurement_shape)
    svd = op.svd()
    s = svd.singular_values
    assert close(svd.U(s * svd.Vt(x)), op(x))
    assert close(svd.V(s * svd.Ut(y)), op.adjoint(y))


def test_dtype_and_precision_follow_x(op):
    x, y = draw(3, *op.image_shape), draw(3, *op.measurement_shape)
    for f, a in (
        (op, x),
        (op.adjoint, y),
        (op.pinv, y),
        (lambda v: op.solve(v, 0.3), y),
        (lambda z: op.prox(z, y.to(z), 2.0), x),
    ):
        single, double = f(a.float()), f(a)
        assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
        # float32 rounds at 6e-8; the condition numbers here are below 300 and the sums have below 300 terms
        assert (single - double).norm() <= 1e-3 * double.norm()


def test_select_indexes_what_each_image_has_of_its_own(op):
    index = torch.tensor([2, 0, 0, 1])
    x, y = draw(3, *op.image_shape), draw(3, *op.measurement_shape)
    assert close(op.select(index)(x[index]), op(x)[index])
    assert close(op.select(index).solve(y[index], 0.5), op.solve(y, 0.5)[index])


def test_gradients_flow_after_use_under_inference_mode():
    op = Blur(kernel(3, 3), (1, 8, 8), "circular")
    x = draw(1, 1, 8, 8)
    with torch.inference_mode():
        op(x)
    x.requires_grad_()
    (op(x) ** 2).sum().backward()
    assert close(x.grad, 2 * op.adjoint(op(x.detach())))
