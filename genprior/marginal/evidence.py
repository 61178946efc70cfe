"""The evidence ln p(y | prior) of a measurement, for choosing between priors, operators and noise levels."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import UnsupportedError, as_integer
from genprior.devices import state_of
from genprior.likelihoods import Likelihood
from genprior.marginal.annealed import AnnealedImportance, by_annealing
from genprior.marginal.exact import exact
from genprior.marginal.particles import by_particles
from genprior.measuring import measure, stated_noise
from genprior.operators.colour import Colorize
from genprior.operators.measurement import Measurement
from genprior.priors.base import Prior, supports
from genprior.priors.find import as_prior
from genprior.priors.gaussian.normal import Normal
from genprior.registry import lookup
from genprior.samplers import refuse_parameters
from genprior.samplers.base import misfit
from genprior.samplers.particles.base import Twisted
from genprior.samplers.particles.tds import TDS
from genprior.scale import warn_of_scale
from genprior.table import Estimate

# method -> what it needs of the prior; "auto" takes the first of them.
NEEDS = {"exact": "a posterior in closed form", "smc": "denoise", "importance": "decode"}
METHODS = {"smc": TDS, "importance": AnnealedImportance}


@settled
def evidence(
    img: Any,
    op: Any = "inpaint",
    prior: str | Path | Prior = "gaussian",
    *,
    noise: float | Tensor | Likelihood | str | None = None,
    method: str | Twisted | AnnealedImportance = "auto",
    clouds: int = 8,
    seed: int = 0,
    device: str = "auto",
    **operator_parameters: Any,
) -> Estimate | list[Estimate]:
    """ln p(y) = ln ∫ p(y | x) p(x) dx, in nats, and its standard error (None where it is exact).

    The density is that of the values of y that the operator sees, in the units of y. Compare figures of the same y over
    priors, operators and noise levels; do not compare figures of different y or of masks with other holes. The
    difference of two is the logarithm of the Bayes factor. For a prior of colour images, a grey y measures their luma.

    Methods:
        "exact": for Gaussians and mixtures of them, of up to 4096 values of y; see `marginal.exact`.
        "smc": for priors with `denoise`: the mean weight of the particles of TDS(), or of a TDS, TDSMoments or SMC
            given with its parameters, of at least two steps; see `marginal.particles`.
        "importance": for priors with `decode`: annealed importance sampling, by AnnealedImportance() or one
            given with its parameters; see `marginal.annealed`. Only this method takes noise that is not Gaussian.
        "auto": the first of these that suits the prior.

    The standard error is the jackknife over the clouds. The mean weight of "importance" is an unbiased estimate of
    p(y), so its logarithm is too low on average: by half of its squared standard error while that is small, without
    bound otherwise. Read an estimate with an error above about 1 nat as a lower bound. The mean weight of "smc" is an
    unbiased estimate of p(y) under the chain with so many steps, which may be too high or too low. This error falls as
    1 / steps; clouds with a quarter of the steps estimate it, and it is added to the standard error in quadrature.

    Arguments:
        img, op, noise, device, operator_parameters: as for `restore`.
        prior: as for `restore`; the default is the Gaussian of images of this shape.
        clouds: independent clouds of particles; the standard error needs at least two.
        seed: keys all randomness.

    Returns:
        An estimate, or a list of them for several images.

    Raises:
        ValueError, TypeError: one of the arguments is not as above; the message says what to do.
        UnsupportedError: the prior lacks what the method needs, or y is too large.
    """
    refuse_parameters(operator_parameters, method, METHODS, "method")
    clouds = as_integer("clouds", clouds, 1, math.inf)
    measurement, _ = measure(img, op, stated_noise(img, op, noise), operator_parameters)
    prior = as_prior(prior, device, measurement.operator.image_shape)
    warn_of_scale(measurement, prior)
    measurement = _of_luma(measurement, prior)
    shape = measurement.operator.image_shape
    prior = prior.sized(*shape[1:])
    if wrong := misfit(prior, measurement.operator):
        raise ValueError(wrong)
    if isinstance(measurement.noise, Likelihood):
        method = _of_law(method, prior, measurement.noise)
    how = find_method(method, prior)
    state = state_of(prior)
    measurement = measurement.to(state)
    if how is None:
        found = [Estimate(log_p) for log_p in exact(prior, measurement)]  # pyright: ignore[reportArgumentType]
    else:
        images = torch.arange(len(measurement.y), device=state.device).split(1)
        found = [estimate_of(prior, measurement.select(i), how, clouds, seed) for i in images]
    return found if len(found) > 1 else found[0]


def estimate_of(
    prior: Prior, one: Measurement, method: Twisted | AnnealedImportance, clouds: int, seed: int
) -> Estimate:
    """ln p(y) of one image, with its error, which for particles includes that of the finite steps.

    With ln p_N = ln p + c / N for N steps, c / N = (ln p_M - ln p_N) M / (N - M). M is a quarter of N: half of N would
    cost more, and triple the noise of the difference.

    Raises:
        ValueError: the particles take one step, whose error cannot be estimated.
        UnsupportedError: no particle has a weight.
    """
    if isinstance(method, AnnealedImportance):
        log_p = by_annealing(prior, one, method, clouds, seed)
        if not log_p.isfinite().any():
            raise UnsupportedError(
                f"No particle explains y with noise {one.noise}, so there is no estimate of p(y): give more steps and "
                "particles, or a likelihood that falls off smoothly, such as noise=0.02."
            )
        return log_mean_estimate(log_p)
    if method.steps < 2:
        raise ValueError(f"{type(method).__name__} has steps=1: give at least 2, as fewer tell their error.")
    coarse = replace(method, steps=max(1, method.steps // 4))
    log_p, rough = (log_mean_estimate(by_particles(prior, one, each, clouds, seed)) for each in (method, coarse))
    bias = (rough.value - log_p.value) * coarse.steps / (method.steps - coarse.steps)
    return Estimate(log_p.value, None if log_p.error is None else math.hypot(log_p.error, bias))


def log_mean_estimate(log_p: Tensor) -> Estimate:
    """ln of the mean of independent estimates p, given by their logarithms, (n,), and its jackknife standard error.

    If one of them outweighs the others, the error is about by how much, in nats, which a standard deviation would hide.
    """
    n = len(log_p)
    whole = log_p.logsumexp(0) - math.log(n)
    if n == 1:
        return Estimate(float(whole))
    without = torch.where(torch.eye(n, dtype=torch.bool), -math.inf, log_p).logsumexp(1) - math.log(n - 1)
    return Estimate(float(whole), float(((without - without.mean()).square().sum() * (n - 1) / n).sqrt()))


def find_method(method: str | Twisted | AnnealedImportance, prior: Prior) -> Twisted | AnnealedImportance | None:
    """The requested particles or importance sampler, None for the closed form; the prior must have what it needs."""
    defaults = {"exact": None, **{name: kind() for name, kind in METHODS.items()}}
    has = ", ".join(sorted(prior.capabilities))
    if isinstance(method, Twisted):
        kind, chosen = "smc", method
    elif isinstance(method, AnnealedImportance):
        kind, chosen = "importance", method
    elif method == "auto":
        kind = next((name for name in NEEDS if _has(prior, name)), None)
        if kind is None:
            raise UnsupportedError(
                f"{type(prior).__name__} has no way to ln p(y): that takes a posterior in closed form (exact), denoise "
                f"(smc) or decode (importance), and it has {has}."
            )
        chosen = defaults[kind]
    else:
        hint = "or auto; or give a TDS, TDSMoments, SMC or AnnealedImportance with its parameters"
        kind, chosen = method, lookup("method", method, defaults, hint=hint)
    if not _has(prior, kind):
        others = ", ".join(name for name in NEEDS if _has(prior, name)) or "none"
        raise UnsupportedError(
            f"Method {kind} needs a prior that has {NEEDS[kind]}; {type(prior).__name__} has {has}. "
            f"Methods that go with it: {others}."
        )
    return chosen


def _of_law(
    method: str | Twisted | AnnealedImportance, prior: Prior, law: Likelihood
) -> str | Twisted | AnnealedImportance:
    """Return the method, "importance" for "auto", or refuse it if it does not take y of this law."""
    suits = method in ("auto", "importance") or isinstance(method, AnnealedImportance)
    if suits and supports(prior, "decode"):
        return "importance" if method == "auto" else method
    raise UnsupportedError(
        f"y has noise of the law {law}, which importance sampling takes for priors with decode, as flows and GANs; "
        "closed forms and particles need Gaussian noise, noise=0.02."
    )


def _has(prior: Prior, method: str) -> bool:
    """Whether the prior has what the method needs; the closed form is limited by the size of y, not of x."""
    return isinstance(prior, Normal) if method == "exact" else supports(prior, NEEDS[method])


def _of_luma(measurement: Measurement, prior: Prior) -> Measurement:
    A = measurement.operator
    if A.image_shape[0] != 1 or prior.image_shape[0] != 3:
        return measurement
    return Measurement(measurement.y, A @ Colorize((3, *A.image_shape[1:])), measurement.noise)
