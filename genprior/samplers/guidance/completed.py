"""The term that a Gaussian measurement with missing values adds to the mean of a Gaussian: complete, then filter.

If all of B x had been measured, E[x | B x + noise] would be a filter in the coordinates of V. Replacing the missing
values by their conditional mean makes this filter exact.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.linalg import cg
from genprior.operators.linear import Completion
from genprior.samplers.guidance.correction import Counts

if TYPE_CHECKING:
    from genprior.priors.gaussian.covariance import Covariance


def completed(
    V: "Covariance", parts: Completion, noise: float | Tensor, residual: Tensor, normal: Tensor, iterations: Counts
) -> Tensor:
    """V B^T S^-1 f, with f the completed residual: the f of least f^T S^-1 f, S = B V B^T + noise^2.

    The missing values h = H f solve  H S^-1 H^T h = -H S^-1 residual,  by conjugate gradients preconditioned by
    H G^-1 H^T, G diagonal in the coordinates of V and close to S^-1 between missing values (`Covariance.between`).
    Eight iterations suffice for one large hole and for many scattered ones alike.

    References: R. Chan, M. Ng, Conjugate gradient methods for Toeplitz systems, 1996, for the preconditioner.

    Arguments:
        parts: see `Completion`.
        residual: y - A x_hat where it was measured, 0 elsewhere, (B, C, H, W).
        normal: B^T B, diagonal in the coordinates of V.
        iterations: see `cg`.
    """
    missing = parts.missing.to(residual)
    variance = torch.as_tensor(noise, dtype=residual.dtype, device=residual.device).square().reshape(-1, 1, 1, 1, 1)
    S = normal * V.variances + variance
    # for each image by itself, as each may have its own V
    inverse = 1 / torch.maximum(S, 1e-10 * S.amax((-4, -3, -2, -1), keepdim=True))
    like = 1 / V.between(inverse, missing)

    def matvec(h: Tensor) -> Tensor:
        return missing * V.scaled(h, inverse)

    def precondition(r: Tensor) -> Tensor:
        return missing * V.scaled(r, like)

    h = cg(matvec, -matvec(residual), iterations=iterations, preconditioner=precondition)
    return V.scaled(parts.whole.adjoint(V.scaled(residual + h, inverse)), V.variances)
