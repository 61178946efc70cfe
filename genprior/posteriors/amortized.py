"""Checks of a measurement against a learned posterior, and the network inputs made from it.

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
    """Whether `prior` is a posterior learned for one operator rather than a prior."""
    return isinstance(prior, LearnedPosterior)


@settled
def observe(prior: LearnedPosterior, measurement: Measurement) -> Tensor:
    """Return the network's view of y: A^+ y, how much of each value A sees, and the noise level; (B, 2 C + 1, H, W).

    The first is taken relative to the centre; it and the noise level are in multiples of the spread. The second is
    A^T A 1: for inpainting, the mask of the pixels that are kept.

    Raises:
        UnsupportedError: the operator is not the one it was trained for.
        ValueError: the noise level is outside the range it was trained for.
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
        UnsupportedError: the operator differs from that of training.
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
