"""The interface of a posterior sampler.

Notation: y = A x + noise n the measurement; x_t = x + sigma n; x_hat = E[x | x_t]; one row of a batch is one chain.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import UnsupportedError, as_integer, check_fields
from genprior.likelihoods import Gaussian, Likelihood
from genprior.linalg import inner
from genprior.noise import Noise
from genprior.operators.base import Operator, name_of
from genprior.operators.linear import LinearOperator
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior, of_labels, supports

Denoiser = Callable[[Tensor, float], Tensor]
# Samplers to suggest for operators that are not linear, by the prior's methods.
NONLINEAR = {"denoise": "DAPSHMC, DPS or TDS", "decode": "CSGM", "energy": "HMC, MALA or MAP"}


class Sampler(ABC):
    """A method that draws from p(x | y): `sampler(prior, measurement, noise)`.

    Samplers are frozen dataclasses: their fields are the method's parameters. They assume no range and clip nothing.

    Attributes:
        needs: the method of `Prior` that the sampler calls, or what `takes` checks.
        needs_operator: what the sampler needs of the operator, in a word; None for the methods that every operator has.
            The base class checks "svd", a subclass's `check_operator` anything else.
        linear: whether it needs a linear operator; others take any differentiable operator.
        likelihoods: the laws of y given A x that the sampler takes.
        everywhere: whether it needs an energy that is finite everywhere (see `Prior.bounded`).
        passes: forward and backward passes of the network for each of the `calls`.
        clouds: whether the draws of an image come from one cloud, so that all its rows must be drawn at once.
        steps: sequential steps of the method; 0 for none.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]  # every subclass is a dataclass
    needs: ClassVar[str] = "denoise"
    passes: ClassVar[int] = 1
    clouds: ClassVar[bool] = False
    needs_operator: ClassVar[str | None] = None
    linear: ClassVar[bool] = True
    likelihoods: ClassVar[tuple[type[Likelihood], ...]] = (Gaussian,)
    everywhere: ClassVar[bool] = False
    steps: int = 0

    def __post_init__(self):
        """Check that the parameters lie in the ranges of their types; samplers with dependent parameters check more."""
        check_fields(self)
        if type(self).steps:
            as_integer("steps", self.steps, 1, math.inf)

    @abstractmethod
    def sample(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """One draw per row of the measurement, (B, *image_shape); see `draw`, which checks the arguments.

        Methods that can judge their own draws return (draws, diagnostics), each diagnostic one number per row, (B,).
        """

    @property
    def evaluations(self) -> int:
        """Evaluations of the network for each draw (each forward pass, and each backward pass, counts as one)."""
        return self.passes * self.calls

    def cost(self, measurement: Measurement, n: int) -> int:
        """Evaluations of the network for each draw, when n are drawn for every image."""
        return self.evaluations

    def chains(self, n: int) -> int:
        """How many images the method processes at once for n draws of one image."""
        return n

    def lacks(self, prior: Prior, operator: Operator, likelihood: Likelihood | None = None) -> str | None:
        """Return what this prior, operator or likelihood lacks for draws from p(x | y), and what to do; else None.

        A likelihood of None means Gaussian noise.
        """
        prior = prior.sized(*operator.image_shape[1:])
        name, family = type(self).__name__, type(prior).__name__
        if not issubclass(Gaussian if likelihood is None else type(likelihood), self.likelihoods):
            taken = ", ".join(kind.__name__ for kind in self.likelihoods)
            given = "Gaussian noise" if likelihood is None else likelihood
            return f"{name} takes y of the likelihood {taken}, not of {given}. Choose another sampler."
        if not self.takes(prior):
            has = ", ".join(sorted(prior.capabilities)) or "no method of priors"
            advice = of_labels(prior) or "Choose another sampler or prior."
            return f"{name} needs a prior that has {self.needs}; {family} has {has}. {advice}"
        if self.everywhere and prior.bounded:
            return (
                f"{name} needs an energy that is finite everywhere; that of {family} is infinite beyond some values of "
                "x. Choose another sampler or prior."
            )
        if isinstance(operator, LinearOperator):
            try:
                self.check_operator(prior, operator)
            except UnsupportedError as error:
                return str(error)
        elif self.linear:
            others = [names for method, names in NONLINEAR.items() if supports(prior, method)]
            what = f"take {others[0]}, which do not" if others else "no sampler takes this prior without"
            return f"{name} needs a linear operator, and {name_of(operator)} is not linear: {what}."
        return misfit(prior, operator)

    @classmethod
    def takes(cls, prior: Prior) -> bool:
        """Whether the prior has the methods that the sampler needs."""
        return supports(prior, cls.needs)

    def check_operator(self, prior: Prior, operator: LinearOperator) -> None:
        """Raise UnsupportedError, and say what to do, if a linear operator lacks what the sampler needs of it."""
        if self.needs_operator == "svd":
            operator.svd()

    def floor(self, prior: Prior) -> float:
        """Return the least noise that methods which divide by noise^2 assume y to have.

        A fifth of the prior's sigma_min, below which noise no longer matters; without a sigma_min, 1/150 of its spread,
        half a grey level for images in [0, 1]. Without noise, p(x | y) for x = G(z) lies on a set of measure 0, on
        which no Markov chain can move and which an imperfect prior usually misses altogether.
        """
        return prior.sigma_min / 5 if self.needs == "denoise" else prior.spread / 150

    @property
    def calls(self) -> int:
        """The number of calls of the prior's method, for the progress bar."""
        return self.steps

    def __call__(self, prior: Prior, measurement: Measurement, noise: Noise) -> Tensor:
        """One draw from p(x | y) per row, (B, *image_shape): `draw` without its diagnostics."""
        return self.draw(prior, measurement, noise)[0]

    @settled
    def draw(self, prior: Prior, measurement: Measurement, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """One draw from p(x | y) per row, (B, *image_shape), and diagnostics: name -> one number per row, (B,).

        Arguments:
            prior: has the method that the sampler needs.
            measurement: y (B, *measurement_shape) with its operator and noise level.
            noise: the noise of the B chains; rows with the same image number share one measurement.

        The noise of y is taken to be at least `floor`.

        Raises:
            UnsupportedError: the prior or the operator lacks what the sampler needs.
            ValueError: the prior's images do not fit the operator's.
        """
        operator = measurement.operator
        prior = prior.sized(*operator.image_shape[1:])
        if wrong := misfit(prior, operator):
            raise ValueError(wrong)
        if lack := self.lacks(prior, operator, measurement.likelihood):
            raise UnsupportedError(lack)
        drawn = self.sample(prior, floored(measurement, self.floor(prior)), noise)
        return drawn if isinstance(drawn, tuple) else (drawn, {})


def floored(measurement: Measurement, least: float) -> Measurement:
    """The measurement with Gaussian noise of at least `least`; unchanged for another likelihood."""
    noise = measurement.noise
    if isinstance(noise, Likelihood):
        return measurement
    return measurement.with_noise(noise.clamp_min(least) if isinstance(noise, Tensor) else max(noise, least))


def misfit(prior: Prior, operator: Operator) -> str | None:
    """Return why the operator's images do not fit the prior, and what to do; None if they fit."""
    shape = tuple(operator.image_shape)
    if all(a in (None, b) for a, b in zip(prior.image_shape, shape)):
        return None
    last = prior.image_shape[0] == shape[-1]
    return (
        f"The operator acts on images of shape {shape}, the prior is one of {prior.image_shape} (None: any). Resize or "
        "convert the image, or choose another prior."
        + " If its channels come last, put them first: x.movedim(-1, -3)."
        * last
    )


def unmeasured(sampler: Sampler, prior: Prior, operator: Operator) -> str | None:
    """Return what to do if the sampler needs a posterior covariance that was never measured; else None."""
    prior = prior.sized(*operator.image_shape[1:])
    if not supports(prior, "denoise") or supports(prior, "posterior_covariance"):
        return None
    return (
        f"{type(sampler).__name__} needs the posterior covariance of this {type(prior).__name__}, which was never "
        "measured. Measure it with prior.fit_covariance(images), or choose another sampler."
    )


def first_level(prior: Prior, start: float | None) -> float:
    """Return the first noise level: `start` times the prior's spread, at most its sigma_max; sigma_max for None."""
    if start is None:
        return prior.sigma_max
    level = min(start * prior.spread, prior.sigma_max)
    if not level > prior.sigma_min:
        raise ValueError(
            f"start={start} times the spread {prior.spread:.3g} of the prior is not above its sigma_min "
            f"{prior.sigma_min:.3g}: give a larger start, or None for sigma_max {prior.sigma_max:.3g}."
        )
    return level


def start(prior: Prior, measurement: Measurement) -> Tensor:
    """argmin_x |y - A x|^2 / noise^2 + |x - centre|^2 / spread^2, for other likelihoods via `stand_in`.

    For an operator that is not linear, the centre.
    """
    y, A = measurement.y, measurement.operator
    centre = torch.as_tensor(prior.centre, dtype=y.dtype, device=y.device).expand(len(y), *A.image_shape)
    if not isinstance(A, LinearOperator):
        return centre
    if isinstance(measurement.noise, Likelihood):
        measurement = stand_in(prior, measurement)
        y = measurement.y
    return A.prox(centre, y, (prior.spread / measurement.sd) ** 2)


def stand_in(prior: Prior, measurement: Measurement) -> Measurement:
    """Approximate the measurement by one with Gaussian noise, of one level per image.

    Let t and s be the mean and variance of p(y_i | z_i) N(z_i; m_i, v), with m = A centre and v = spread^2. Each value
    has the precision w = 1 / s - 1 / v and becomes m + (t - m) / (w s); the noise level is that of the mean precision.
    Values of less precision, such as pixels without counts, which have none, pull no harder than with their own.
    """
    y, A, seen, v = measurement.y, measurement.operator, measurement.seen, prior.spread**2
    m = A(torch.as_tensor(prior.centre, dtype=y.dtype, device=y.device).expand(len(y), *A.image_shape))
    t, s = measurement.likelihood.moments(y, m, torch.full_like(m, v))
    w = (1 / s - 1 / v).clamp_min(1e-6 / v)
    precision = inner(w, seen) / inner(seen, seen).clamp_min(1)
    return Measurement(m + (t - m) / (torch.maximum(w, precision) * s), A, precision.rsqrt())


def begin(prior: Prior, measurement: Measurement, sigma: float, noise: Noise) -> Tensor:
    """x_t at the first noise level: `start` plus sigma n.

    At sigma_max, many times the spread, this is practically centre + sigma n; at lower levels, `start` supplies what
    a denoiser could no longer change, such as the mean colour of a large image.
    """
    x = start(prior, measurement)
    return x + sigma * noise(x)


def differentiable(denoise: Denoiser, x_t: Tensor, sigma: float) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """E[x | x_t], and u -> J^T u with J = d x_hat / d x_t, by one backward pass per call.

    The function keeps the graph alive: delete it before the next evaluation.
    """
    with torch.enable_grad():
        x_t = x_t.detach().requires_grad_()
        x_hat = denoise(x_t, sigma)

    def vjp(u: Tensor) -> Tensor:
        (product,) = torch.autograd.grad(x_hat, x_t, u, retain_graph=True)
        return product

    return x_hat.detach(), vjp


def white_variance(sigma: float, spread: float) -> float:
    """sigma^2 spread^2 / (sigma^2 + spread^2): the variance of a value given x_t, for white images of that spread."""
    return (sigma * spread) ** 2 / (sigma**2 + spread**2)
