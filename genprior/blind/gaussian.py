"""ln p(y | theta, noise) in closed form, under a Gaussian prior or a mixture of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from genprior.checks import UnsupportedError
from genprior.marginal.exact import exact
from genprior.operators.base import Operator
from genprior.operators.blur import Blur
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Stationary
from genprior.priors.gaussian.gaussian import Gaussian
from genprior.priors.gaussian.normal import Normal
from genprior.samplers.base import misfit


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """The exact ln p(y | theta, noise) of the whole of y.

    It takes FFTs for circular blurs of a stationary Gaussian, else `marginal.exact`, for up to 4096 values.

    Attributes:
        y: (C, h, w).
        prior: of x; a prior of any size takes the size of the operator's images.
    """

    y: Tensor
    prior: Prior

    def __call__(self, operator: Operator, noise: Tensor) -> Tensor:
        """ln p(y | theta, noise) in nats, (L,), at noise levels (L,).

        Raises:
            UnsupportedError: the prior has no p(y) in closed form, or y is too large.
            ValueError: the prior is of images of another size.
        """
        y, prior = self.y[None].double(), self.prior.sized(*operator.image_shape[1:])
        if not isinstance(prior, Normal):
            raise UnsupportedError(
                f"{type(prior).__name__} has no p(y) in closed form: leave prior out for photographs, or give a "
                "Gaussian or a mixture of Gaussians."
            )
        if wrong := misfit(prior, operator):
            raise ValueError(wrong)
        if not (isinstance(prior, Gaussian) and isinstance(prior.covariance, Stationary) and _is_circular(operator)):
            return torch.tensor([exact(prior, Measurement(y, operator, float(level)))[0] for level in noise])
        S = prior.covariance
        power = torch.fft.fft2(operator.kernel.double(), s=y.shape[-2:]).abs().square()  # pyright: ignore[reportAttributeAccessIssue]
        mean = operator(prior.mean[None].double())[0]
        spectra = S.eigenvalues.double() * power + noise[:, None, None, None] ** 2
        laws = (Gaussian(mean, Stationary(each, S.axes.double())) for each in spectra)
        return torch.cat([law.log_prob(y) for law in laws])


def _is_circular(operator: Operator) -> bool:
    return isinstance(operator, Blur) and operator.boundary == "circular" and operator.batch == 1
