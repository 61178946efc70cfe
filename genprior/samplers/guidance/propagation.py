"""Expectation propagation: E[x | y] of a Gaussian prior on x and a likelihood that is not Gaussian.

Notation: x ~ N(x_hat, V); z = A x; p(y | z) the likelihood, value by value. A Gaussian site stands for each factor,

    p(y_i | z_i) ~ exp(b_i z_i - w_i z_i^2 / 2)

so that x is Gaussian, of precision V^-1 + A^T diag(w) A, with z_i of mean m_i and variance c_i. The cavity of a value
is its law without its own site,

    1 / v_i = 1 / c_i - w_i,   cavity mean = v_i (m_i / c_i - b_i)

and its site is the one that takes the cavity to the mean t and variance s of p(y_i | z_i) N(z_i; cavity mean, v_i):

    w_i = 1 / s - 1 / v_i,   b_i = (t - cavity mean) / v_i + w_i t

All sites are updated at once, for some rounds, starting from none. The result is exact for one value, whatever the
likelihood, and for Gaussian likelihoods in one round; for other log-concave likelihoods, it is off by what the product
of the sites misses in the third moments.

References: T. Minka, Expectation propagation for approximate Bayesian inference, 2001. M. Opper, O. Winther, Gaussian
processes for classification: mean-field algorithms, 2000.
"""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.linalg import divide, inner, total
from genprior.noise import Noise
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.samplers.guidance.correction import Counts, correction

if TYPE_CHECKING:
    from genprior.priors.gaussian.covariance import Covariance

Variances = Callable[[Tensor], Tensor]  # w -> c

FEW = 64  # values of y up to which the variances c come from the matrix A V A^T
PROBES = 16  # draws that estimate the variances of A x
APART = 0.5  # the diagonal's share of the squares in a row of A V A^T, above which a value counts as independent
GRID = 48  # precisions at which c is otherwise tabulated
ROUNDS = 3


def propagated(
    measurement: Measurement, least: float, rounds: int = ROUNDS
) -> Callable[[Tensor, "Covariance", Tensor, Counts, Noise | None], Tensor]:
    """(x_hat, V, normal, iterations, noise) -> a draw of x ~ N(x_hat, V) given y; E[x | y] for noise None.

    normal is A^T A in the coordinates of V, see `Covariance.diagonal_like`; iterations are of conjugate gradients.

    A draw is the mean for a perturbed x_hat + V^(1/2) n, and sites perturbed by sqrt(w) n' (Papandreou, Yuille, 2010).

    Arguments:
        measurement: y and its likelihood.
        least: the smallest standard deviation of a site.
        rounds: of the propagation.
    """
    y, A, likelihood, seen = measurement.y, measurement.linear, measurement.likelihood, measurement.seen
    variances = None

    def given_sites(x_hat: Tensor, V: "Covariance", normal: Tensor, iterations: Counts, w: Tensor, b: Tensor) -> Tensor:
        """x_hat + (A^T diag(w) A + V^-1)^-1 A^T (b - w A x_hat)."""
        mean = divide(inner(w, seen), inner(seen, seen))[..., None]
        return x_hat + correction(V, A, 1.0, A.adjoint(b - w * A(x_hat)), mean * normal, iterations, w)

    def given_y(
        x_hat: Tensor, V: "Covariance", normal: Tensor, iterations: Counts, noise: Noise | None = None
    ) -> Tensor:
        nonlocal variances
        if variances is None:  # the same at all noise levels
            variances = find_variances(measurement, V)
        variance = variances(V, normal)
        w, b, x = torch.zeros_like(y), torch.zeros_like(y), x_hat
        for _ in range(rounds):
            m, c = A(x), variance(w)
            rest = (1 - c * w).clamp_min(1e-6)
            v, cavity = c / rest, (m - c * b) / rest
            t, s = likelihood.moments(y, cavity, v)
            w = seen * (1 / s - 1 / v).clamp(0, 1 / least**2)
            b = seen * (t - cavity) / v + w * t
            x = given_sites(x_hat, V, normal, iterations, w, b)
        if noise is None:
            return x
        perturbed = x_hat + V.filter(noise(x_hat), V.eigenvalues.sqrt())
        return given_sites(perturbed, V, normal, iterations, w, b + w.sqrt() * noise(y))

    return given_y


def find_variances(measurement: Measurement, V: "Covariance") -> Callable[["Covariance", Tensor], Variances]:
    """Choose how to compute the variances c for this operator: (V, normal) -> (w -> c)."""
    y, A, seen = measurement.y, measurement.linear, measurement.seen
    if y[0].numel() <= FEW:
        return lambda V, normal: exact_variances(measurement, V)
    count = inner(seen, seen)
    apart = are_apart(V, A, seen)

    def alone(V: "Covariance", normal: Tensor) -> Variances:
        return variances_apart(V, A, y)

    def together(V: "Covariance", normal: Tensor) -> Variances:
        return local_variances(V, normal, count)

    def either(V: "Covariance", normal: Tensor) -> Variances:
        c_alone, c_together = alone(V, normal), together(V, normal)
        return lambda w: torch.where(apart, c_alone(w), c_together(w))

    return alone if apart.all() else either if apart.any() else together


def exact_variances(measurement: Measurement, V: "Covariance") -> Variances:
    """w -> the diagonal of (K^-1 + diag(w))^-1 = K (I + diag(w) K)^-1, K = A V A^T, in float64."""
    y, A = measurement.y, measurement.linear
    columns = torch.eye(y[0].numel(), dtype=torch.float64).reshape(-1, 1, *y.shape[1:]).to(y)
    apply = [A(V.filter(A.adjoint(e.expand_as(y)), V.eigenvalues)) for e in columns]
    K = torch.stack([k.flatten(1) for k in apply], -1).double()

    def variance(w: Tensor) -> Tensor:
        system = torch.eye(K.shape[-1]).to(K) + K * w.flatten(1)[:, None, :]
        return torch.linalg.solve(system, K).diagonal(dim1=1, dim2=2).reshape(y.shape).to(y)

    return variance


def local_variances(V: "Covariance", normal: Tensor, count: Tensor) -> Variances:
    """w -> the variance c that all values would have on average if all had that precision w, value by value.

        c(w) = tr(A (V^-1 + w A^T A)^-1 A^T) / M = sum_k n_k l_k / (1 + w n_k l_k) / M

    with l_k the eigenvalues of V, n_k those of A^T A and M the number of values that A sees. Accurate where the
    weights change little over the range of V's correlations.
    """
    variances = normal * V.variances * torch.ones_like(normal)
    most = variances.flatten(1).amax(1).reshape(-1, 1, 1, 1)
    multiplicity = V.multiplicity
    grid = torch.logspace(-3, 9, GRID, base=10).tolist()
    each = multiplicity * torch.ones_like(variances)
    sums = [inner(variances / (1 + g / most[..., None] * variances), each) for g in grid]
    table = torch.stack([s.flatten() for s in sums], 1).log() - count.flatten()[:, None].log()
    span = math.log(10) * 12 / (GRID - 1)

    def variance(w: Tensor) -> Tensor:
        place = ((w * most).clamp_min(1e-3).log() - math.log(1e-3)) / span
        k = place.floor().clamp(0, GRID - 2)
        rows = table.expand(len(w), -1)
        low = rows.gather(1, k.long().flatten(1)).reshape(w.shape)
        high = rows.gather(1, k.long().flatten(1) + 1).reshape(w.shape)
        return torch.lerp(low, high, place - k).exp()

    return variance


def variances_apart(V: "Covariance", A: LinearOperator, like: Tensor) -> Variances:
    """w -> K_ii / (1 + w_i K_ii), K = A V A^T: the variance c of values that are independent of each other."""
    K = variances_under(V, A, like)
    return lambda w: K / (1 + w * K)


def are_apart(V: "Covariance", A: LinearOperator, seen: Tensor) -> Tensor:
    """For each image, whether most values of A x are independent, as JPEG's cosines are: (B, 1, 1, 1) bool.

    They are if, for at least half of the seen values, the share K_ii^2 / sum_j K_ij^2 of the diagonal in its row is
    above `APART`, with K = A V A^T scaled to correlations.
    """
    scale = variances_under(V, A, seen).sqrt()
    noise = Noise(1, [0])

    def row() -> Tensor:
        n = (noise(seen[:1]) / scale).expand_as(seen)
        return A(V.filter(A.adjoint(n), V.eigenvalues)) / scale

    squares = total(row().square() for _ in range(PROBES)) / PROBES  # E (R n)_i^2 = sum_j R_ij^2, R the correlations
    middle = squares.masked_fill(seen == 0, torch.nan).flatten(1).nanmedian(1).values
    return (APART * middle < 1).reshape(-1, 1, 1, 1)


def variances_under(V: "Covariance", A: LinearOperator, like: Tensor) -> Tensor:
    """Var[A x]_i for x ~ N(0, V), (1 or B, *measurement_shape), from draws."""
    noise = Noise(0, [0])
    one = like.new_empty(1, *A.image_shape)  # one at a time: memory has room for few photographs

    def row() -> Tensor:
        x = V.scaled(noise(one), V.variances.sqrt())
        return A(x.expand(max(len(x), A.batch), -1, -1, -1))

    found = total(row().square() for _ in range(PROBES)) / PROBES
    # it would be 0 for values that no x changes
    return torch.maximum(found, torch.finfo(like.dtype).eps * found.amax((1, 2, 3), keepdim=True))
