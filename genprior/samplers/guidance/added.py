"""The term that a Gaussian measurement adds to the mean of a Gaussian, by the method that suits the operator."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from genprior.operators.linear import LinearOperator
from genprior.priors.gaussian.covariance import Covariance, Stationary
from genprior.samplers.guidance.completed import completed
from genprior.samplers.guidance.correction import correction
from genprior.samplers.guidance.decimated import decimated, row_power


def added(
    A: LinearOperator, noise: float | Tensor, V: Covariance, like: Tensor
) -> Callable[[Covariance, Tensor, Sequence[int]], Tensor]:
    """(V, y - A x_hat, iterations) -> V A^T (A V A^T + noise^2)^-1 (y - A x_hat), for every V in the same coordinates.

    If A goes to a coarser grid and V is stationary, see `decimated`; if it is a part of an operator that shares the
    eigenvectors of V, see `completed`; else see `correction`.

    Arguments:
        like: (1 or B, C, H, W), for the shape, dtype and device of images.
    """
    if A.coarser is not None and isinstance(V, Stationary):
        coarse, power = Stationary(like.new_ones(A.measurement_shape), V.axes), row_power(A, like)

        def decimate(V: Covariance, residual: Tensor, iterations: Sequence[int]) -> Tensor:
            # the preconditioner leaves less to do than that of `correction`, most where V is large beside noise^2
            quarters = [math.ceil(n / 4) for n in iterations]
            return decimated(V, A, coarse, power, noise, residual, quarters)

        return decimate

    normal, shared = V.diagonal_like(lambda x: A.adjoint(A(x)), like)
    exact = shared.tolist()

    def correct(V: Covariance, residual: Tensor, iterations: Sequence[int]) -> Tensor:
        rows = range(max(len(iterations), len(exact)))
        counts = [1 if exact[i % len(exact)] else iterations[i % len(iterations)] for i in rows]
        return correction(V, A, noise, A.adjoint(residual), normal, counts)

    parts = A.completion()
    if parts is None:
        return correct
    of_whole, fits = V.diagonal_like(lambda x: parts.whole.adjoint(parts.whole(x)), like)

    def complete(V: Covariance, residual: Tensor, iterations: Sequence[int]) -> Tensor:
        # an iteration costs twice as much here, and gets more than twice as far
        halves = [math.ceil(n / 2) for n in iterations]
        return completed(V, parts, noise, parts.embed(residual), of_whole, halves)

    def either(V: Covariance, residual: Tensor, iterations: Sequence[int]) -> Tensor:
        of_each = (complete(V, residual, iterations), correct(V, residual, iterations))
        return torch.where(fits.reshape(-1, 1, 1, 1), *of_each)

    # decided for each image by itself: its draws depend on no other image
    return complete if fits.all() else either if fits.any() else correct
