"""Linear algebra on batches of images: every image of a batch is a separate vector.

Notation: a, b, x images (B, C, H, W); <a, b> the inner product per image, (B, 1, 1, 1).
"""

import functools
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b>, one number per image: (B, C, H, W) twice -> (B, 1, 1, 1)."""
    return (a * b).sum(dim=tuple(range(1, a.ndim)), keepdim=True)


def norm(a: Tensor) -> Tensor:
    """|a| = sqrt(<a, a>), one number per image: (B, C, H, W) -> (B, 1, 1, 1)."""
    return inner(a, a).sqrt()


def per_row(numbers: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to broadcast to `like`."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))


def divide(a: Tensor | float, b: Tensor) -> Tensor:
    """a / b, and 0 where b = 0: the pseudo-inverse of a diagonal; its gradients are finite too."""
    nonzero = b != 0
    return torch.where(nonzero, a / torch.where(nonzero, b, 1), 0)


def wide(x: Tensor) -> Tensor:
    """x in float64, for differences of large numbers; unchanged on Apple's GPUs, which have no float64."""
    return x if x.device.type == "mps" else x.double()


def rounding(dtype: torch.dtype) -> float:
    """The rounding error of singular values relative to the largest, for transforms and products: 8 eps."""
    return 8 * torch.finfo(dtype).eps


def reciprocal(a: Tensor, floor: Tensor) -> Tensor:
    """1 / a where a is above the floor, 0 elsewhere."""
    present = a > floor
    return torch.where(present, 1 / torch.where(present, a, 1), 0)


def cg(
    matvec: Callable[[Tensor], Tensor],
    b: Tensor,
    *,
    x0: Tensor | None = None,
    iterations: int | Sequence[int],
    preconditioner: Callable[[Tensor], Tensor] | None = None,
    least: float | Tensor = 0.0,
) -> Tensor:
    """Solve M x = b for each image by preconditioned conjugate gradients, M symmetric positive definite.

    alpha = <r, z> / <p, M p>,  x += alpha p,  r -= alpha M p,  z = P r,  p = z + (<r, z> / <r, z>_old) p

    Each image has its own alpha; the number of iterations is fixed, so nothing waits for the device. An image whose
    residual is down to rounding stays where it is.

    Arguments:
        matvec: M, (B, C, H, W) -> (B, C, H, W).
        b: right-hand side (B, C, H, W).
        x0: starting point, like b; None means 0.
        iterations: how many, for all images or for each its own number.
        preconditioner: P, an approximate inverse of M, symmetric positive definite; None means the identity.
        least: a lower bound on the eigenvalues of M, float or (B, 1, 1, 1). Once M turns out to violate it,
            <p, M p> < least <p, p>, the image stays where it is.

    References:
        Methods of conjugate gradients for solving linear systems (Hestenes and Stiefel, 1952).
        The conjugate gradient method and trust regions in large scale optimization (Steihaug, 1983), for stopping.
    """
    precondition = preconditioner or (lambda r: r)
    x = torch.zeros_like(b) if x0 is None else x0
    r = b if x0 is None else b - matvec(x0)
    z = precondition(r)
    p = z
    rho = inner(r, z)
    del z
    # below eps |r_0| a residual is rounding, and steps along it would only add more
    floor = torch.finfo(b.dtype).eps ** 2 * rho
    definite = torch.ones_like(rho, dtype=torch.bool)
    counts = [iterations] if isinstance(iterations, int) else list(iterations)
    enough = torch.tensor(counts, device=b.device).reshape(-1, *[1] * (b.ndim - 1))
    for k in range(max(counts)):
        q = matvec(p)
        curvature = inner(p, q)
        definite = definite & (curvature >= least * inner(p, p))
        alpha = divide(rho, curvature) * (definite & (rho > floor) & (k < enough))
        x = torch.addcmul(x, alpha, p)
        r = torch.addcmul(r, alpha, q, value=-1)
        del q  # for large images, memory may hold no other tensor of that size
        z = precondition(r)
        rho_next = inner(r, z)
        p = torch.addcmul(z, divide(rho_next, rho), p)
        rho = rho_next
        del z
    return x


def cgls(A: Callable[[Tensor], Tensor], adjoint: Callable[[Tensor], Tensor], y: Tensor, *, iterations: int) -> Tensor:
    """The minimum-norm minimiser x of |A x - y|, for each image, by conjugate gradients on A^T A x = A^T y.

    alpha = |s|^2 / |A p|^2,  x += alpha p,  r -= alpha A p,  s = A^T r,  p = s + (|s|^2 / |s|^2_old) p

    A may have any rank. Since s is recomputed from r, no rounding gathers where A does not see it, as it would in `cg`.

    Arguments:
        A, adjoint: (B, *shape of x) -> (B, *shape of y), and back.
        y: what to fit.
        iterations: how many; fewer regularise more.

    References:
        Methods of conjugate gradients for solving linear systems (Hestenes and Stiefel, 1952).
    """
    r = y
    s = adjoint(r)
    p = s
    x = torch.zeros_like(s)
    rho = inner(s, s)
    # below this, s is the rounding of A^T r, which A may not see: a step along it would have no bound
    floor = (10 * torch.finfo(y.dtype).eps) ** 2 * rho
    for _ in range(iterations):
        q = A(p)
        alpha = divide(rho, inner(q, q)) * (rho > floor)
        x = torch.addcmul(x, alpha, p)
        r = torch.addcmul(r, alpha, q, value=-1)
        s = adjoint(r)
        rho_next = inner(s, s)
        p = torch.addcmul(s, divide(rho_next, rho), p)
        rho = rho_next
    return x


def total(parts: Iterable[Tensor]) -> Tensor:
    """The sum of one or more tensors."""
    return functools.reduce(torch.add, parts)
