"""Whether a learned posterior fits a measurement, and what its network sees of it.

Notation: y = A x + noise n the measurement, A^+ its pseudo-inverse.
"""

from typing import Any

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import UnsupportedError
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior


def is_learned(prior: Prior) -> bool:
    """Whether it is a posterior, learned for one operator, and not a prior."""
    return isinstance(prior, LearnedPosterior)


@settled
def observe(prior: LearnedPosterior, measurement: Measurement) -> Tensor:
    """What the network sees of y: A^+ y, how much of every value A sees, the noise level; (B, 2 C + 1, H, W).

    The second is A^T A 1, for inpainting the pixels that are kept. All are in multiples of the spread.

    Raises:
        UnsupportedError: the operator is not the one it was trained for.
        ValueError: the noise is not.
    """
    A, y = measurement.linear, measurement.y
    check_operator(prior, A)
    _check_noise(prior, measurement.sd)
    ones = y.new_ones(len(y), *A.image_shape)
    level = torch.as_tensor(measurement.sd, dtype=y.dtype, device=y.device).expand(len(y), 1, 1, 1)
    seen = [(A.pinv(y) - prior.centre) / prior.spread, A.adjoint(A(ones)), level / prior.spread * ones[:, :1]]
    return torch.cat(seen, dim=1)


def check_operator(prior: LearnedPosterior, A: LinearOperator) -> None:
    """Refuse an operator of another class than in training, or with other values of the named attributes.

    Raises:
        UnsupportedError: it is such a one.
    """
    given = {name: type(A).__name__ if name == "name" else getattr(A, name, None) for name in prior.operator}
    if given != prior.operator:
        raise UnsupportedError(
            f"This posterior was learned for {_described(prior.operator)}, not for {_described(given)}: train one for "
            "that (see recipes/train_amortized_mnist.py), or restore with a prior, which takes any."
        )


def _check_noise(prior: LearnedPosterior, noise: float | Tensor) -> None:
    least, largest = prior.noise
    levels = torch.as_tensor(noise, dtype=torch.float64)
    rounding = torch.finfo(torch.float32).eps  # of a level that is given as a tensor
    if float(levels.min()) < least * (1 - rounding) or float(levels.max()) > largest * (1 + rounding):
        raise ValueError(
            f"This posterior was learned for noise from {least:g} to {largest:g}, not "
            f"{float(levels.min()):g} to {float(levels.max()):g}: restore with a prior, which takes any."
        )


def _described(operator: dict[str, Any]) -> str:
    arguments = ", ".join(f"{name}={value!r}" for name, value in operator.items() if name != "name")
    return f"{operator['name']}({arguments})"
