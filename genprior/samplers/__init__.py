"""Posterior samplers by name."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from genprior.checks import UnsupportedError, as_integer
from genprior.likelihoods import Likelihood
from genprior.operators.base import Operator
from genprior.operators.linear import LinearOperator
from genprior.operators.masking import is_identity
from genprior.operators.measurement import Measurement
from genprior.operators.sight import sees_smooth
from genprior.posteriors.amortized import is_learned
from genprior.posteriors.exact import has_posterior
from genprior.priors.base import Prior, of_labels, supports
from genprior.registry import lookup
from genprior.samplers.amortized import Amortized
from genprior.samplers.annealing.daps import DAPS, DAPSHMC, DAPSLangevin
from genprior.samplers.annealing.ddnm import DDNM
from genprior.samplers.annealing.ddrm import DDRM
from genprior.samplers.annealing.dpir import DPIR
from genprior.samplers.annealing.gibbs import SplitGibbs
from genprior.samplers.annealing.reddiff import REDDiff
from genprior.samplers.annealing.repaint import RePaint
from genprior.samplers.annealing.sitcom import SITCOM
from genprior.samplers.base import Sampler
from genprior.samplers.chains.langevin import HMC, MALA, ULA
from genprior.samplers.chains.map import MAP
from genprior.samplers.exact import Exact, ExactMean
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.guidance.optimal_covariance import OptimalCovariance
from genprior.samplers.guidance.pigdm import PiGDM
from genprior.samplers.guidance.probed_covariance import ProbedCovariance
from genprior.samplers.guidance.quantised import QuantisedGuidance
from genprior.samplers.guidance.tmpd import TMPD
from genprior.samplers.latents.csgm import CSGM
from genprior.samplers.latents.fisher_hmc import FisherHMC
from genprior.samplers.latents.latent_daps import LatentDAPS
from genprior.samplers.latents.latent_hmc import LatentHMC
from genprior.samplers.latents.psld import PSLD
from genprior.samplers.latents.resample import ReSample
from genprior.samplers.latents.vae_gibbs import VAEGibbs
from genprior.samplers.particles.mcgdiff import MCGDiff
from genprior.samplers.particles.smc import SMC
from genprior.samplers.particles.tds import TDS, TDSMoments
from genprior.samplers.posterior_mean import PosteriorMean
from genprior.samplers.quantised_mean import QuantisedMean

__all__ = [
    "CSGM", "DAPS", "DAPSHMC", "DDNM", "DDRM", "DPIR", "DPS", "HMC", "MALA", "MAP", "MMPS", "PSLD", "SAMPLERS",
    "SITCOM", "SMC", "TDS", "TMPD", "ULA", "Amortized", "DAPSLangevin", "DiffPIR", "Exact", "ExactMean", "FisherHMC",
    "LatentDAPS", "LatentHMC", "MCGDiff", "OptimalCovariance", "PiGDM", "PosteriorMean", "ProbedCovariance",
    "QuantisedGuidance", "QuantisedMean", "REDDiff", "RePaint", "ReSample", "Sampler", "SplitGibbs", "TDSMoments",
    "VAEGibbs", "automatic", "find_estimator", "find_sampler", "refuse_parameters",
]  # fmt: skip

SAMPLERS: dict[str, type[Sampler]] = {
    "dps": DPS,
    "diffpir": DiffPIR,
    "optimal-covariance": OptimalCovariance,
    "probed-covariance": ProbedCovariance,
    "mmps": MMPS,
    "pigdm": PiGDM,
    "tmpd": TMPD,
    "ddrm": DDRM,
    "ddnm": DDNM,
    "dpir": DPIR,
    "daps": DAPS,
    "daps-langevin": DAPSLangevin,
    "daps-hmc": DAPSHMC,
    "gibbs": SplitGibbs,
    "repaint": RePaint,
    "reddiff": REDDiff,
    "sitcom": SITCOM,
    "tds": TDS,
    "tds-moments": TDSMoments,
    "smc": SMC,
    "mcgdiff": MCGDiff,
    "exact": Exact,
    "exact-mean": ExactMean,
    "posterior-mean": PosteriorMean,
    "quantised": QuantisedGuidance,
    "quantised-mean": QuantisedMean,
    "amortized": Amortized,
    "latent": LatentHMC,
    "fisher-hmc": FisherHMC,
    "csgm": CSGM,
    "vae-gibbs": VAEGibbs,
    "latent-daps": LatentDAPS,
    "psld": PSLD,
    "resample": ReSample,
    "hmc": HMC,
    "mala": MALA,
    "ula": ULA,
    "map": MAP,
}


def find_sampler(
    sampler: str | Sampler, prior: Prior, steps: int | None = None, measurement: Measurement | None = None
) -> Sampler:
    """Return the sampler given by name, by "auto" or as an object, with `steps` in place of its own if given.

    Arguments:
        measurement: what "auto" must suit; None for any measurement with Gaussian noise.

    Raises:
        ValueError: the name is unknown, or the sampler does not take this number of steps.
        UnsupportedError: "auto" finds no sampler for this prior.
    """
    if isinstance(sampler, str):
        sampler = lookup("sampler", sampler, {"auto": lambda: _suited(prior, measurement), **SAMPLERS})()
    if isinstance(sampler, type) and issubclass(sampler, Sampler):
        raise ValueError(f"{sampler.__name__} is a class: give an object of it, sampler={sampler.__name__}().")
    if not isinstance(sampler, Sampler):
        raise ValueError(f"A sampler is a name or an object such as DPS(zeta=0.5), not {sampler!r}.")
    if steps is None:
        return sampler
    if not sampler.steps:
        raise ValueError(f"{type(sampler).__name__} has no steps; leave steps={steps!r} out.")
    return dataclasses.replace(sampler, steps=as_integer("steps", steps, 1, math.inf))


def _suited(prior: Prior, measurement: Measurement | None) -> Sampler:
    """Return what "auto" means for any operator and noise.

    For rounded images, QuantisedGuidance treats the cells value by value; where no covariance was measured,
    ProbedCovariance estimates it along the chain. Of the methods for energies, a chain is for images of one size.
    """
    if measurement is not None and not isinstance(measurement.operator, LinearOperator):
        return automatic_nonlinear(prior)
    if measurement is None or not isinstance(measurement.noise, Likelihood):
        return automatic(prior)
    A, law = measurement.operator, measurement.noise
    general, by_energy = ProbedCovariance(), MAP() if None in prior.image_shape[1:] else HMC()
    for chosen in (QuantisedGuidance(), OptimalCovariance(), general, by_energy):
        if chosen.lacks(prior, A, law) is None:
            return chosen
    lack = general.lacks(prior, A, law)
    raise UnsupportedError(f"Noise of the law {law} is for samplers that this prior does not suit. {lack}")


def find_estimator(
    prior: Prior, operator: Operator, steps: int | None = None, likelihood: Likelihood | None = None
) -> Sampler | None:
    """Return the method of least squared error among those "auto" may choose; None for the mean of draws.

    Arguments:
        likelihood: of y given A x; None for Gaussian noise.
        steps: replaces the method's own number of steps, if it has one.
    """
    if not isinstance(operator, LinearOperator):
        return None
    estimator = _estimator(prior, operator) if likelihood is None else _estimator_of(prior, operator, likelihood)
    if steps is None or estimator is None or not estimator.steps:
        return estimator
    return dataclasses.replace(estimator, steps=as_integer("steps", steps, 1, math.inf))


def _estimator_of(prior: Prior, operator: LinearOperator, likelihood: Likelihood) -> Sampler | None:
    patches = _is_of_patches(prior)
    chosen = (
        QuantisedMean(turns=patches, grain=0.8 if patches else 0.0),
        PosteriorMean(turns=patches),
        OptimalCovariance(start=32.0, integrator="fresh", iterations=32, turns=patches),
        ProbedCovariance(steps=10, start=32.0, integrator="fresh", iterations=32, turns=patches),
    )
    return next((sampler for sampler in chosen if sampler.lacks(prior, operator, likelihood) is None), None)


def _is_of_patches(prior: Prior) -> bool:
    """Whether turned images are as likely: patches are; faces and digits, which have a fixed size, are not."""
    return prior.reach is not None and prior.any_size


def _estimator(prior: Prior, operator: LinearOperator) -> Sampler | None:
    if has_posterior(prior):
        return ExactMean()
    if not supports(prior, "denoise") or is_learned(prior):
        return None
    if is_identity(operator):
        return PosteriorMean()
    patches = _is_of_patches(prior)
    if sees_smooth(operator):
        return DPIR(turns=patches, grain=0.7 if patches else 0.0)
    # High noise decides what fills the holes, which takes a covariance that reaches into them.
    if supports(prior, "posterior_covariance"):
        return OptimalCovariance(start=32.0, integrator="fresh", iterations=32, turns=patches)
    if None in prior.image_shape[1:]:
        return ProbedCovariance(steps=10, start=32.0, integrator="fresh", iterations=32, turns=patches)
    return None


def refuse_parameters(
    parameters: Mapping[str, Any], given: Any, kinds: Mapping[str, type], argument: str = "sampler"
) -> None:
    """Refuse sampler parameters among those of an operator, and say where they belong.

    Arguments:
        parameters: by name; operators and samplers have no parameter name in common.
        given: the sampler, or its name.
        kinds: the available samplers, by name.
        argument: the name of the argument that takes samplers.

    Raises:
        TypeError: one of the parameters is a sampler's.
    """
    own = kinds.get(given, type(given)) if isinstance(given, str) else type(given)
    for name, value in parameters.items():
        having = [kind for kind in kinds.values() if name in {field.name for field in dataclasses.fields(kind)}]
        if not having:
            continue
        chosen = own if own in having else having[0]
        others = f" Those that have it: {', '.join(kind.__name__ for kind in having)}." if own not in having else ""
        raise TypeError(
            f"{name} is a parameter of samplers, not of the operator: give {argument}={chosen.__name__}"
            f"({name}={value!r}), by `from {chosen.__module__} import {chosen.__name__}`.{others}"
        )


def automatic_nonlinear(prior: Prior) -> Sampler:
    """Return the sampler that suits the prior's methods, among those for any differentiable operator."""
    if supports(prior, "denoise"):
        return DAPSHMC()
    if supports(prior, "decode"):
        return CSGM()
    if supports(prior, "energy"):
        return HMC()
    raise UnsupportedError(f"{type(prior).__name__} goes with no sampler of operators that are not linear.")


def automatic(prior: Prior) -> Sampler:
    """Return the first sampler below that suits the prior's methods."""
    # The posterior itself, at no cost.
    if has_posterior(prior):
        return Exact()
    # No other sampler is made for a learned posterior.
    if is_learned(prior):
        return Amortized()
    # Draws with the right spread, for one evaluation per step.
    if supports(prior, "posterior_covariance"):
        return OptimalCovariance()
    # For two evaluations per step, if that covariance was never measured and images of any size look alike everywhere.
    if supports(prior, "denoise") and None in prior.image_shape[1:]:
        return ProbedCovariance()
    # On digits, it has a lower squared error than the sampler above; its spread means less.
    if supports(prior, "denoise"):
        return DiffPIR()
    # On photographs, PSLD needs far more steps than this to fit y (docs/latent.md).
    if supports(prior, "render") and None in prior.image_shape[1:]:
        return ReSample(steps=40, every=2, iterations=20, rate=0.02)
    # On a few digits, its draws have the lower squared error on 2 of 3 tasks; the spread of LatentDAPS means more.
    if supports(prior, "render"):
        return PSLD(steps=300)
    # On digits, it finds far better images than LatentHMC for a flow and a GAN, and about as good ones for a VAE;
    # CSGM is a point estimate, and VAEGibbs hardly moves where v is small.
    if supports(prior, "decode"):
        return FisherHMC()
    # A chain on all pixels of a photograph does not mix in any acceptable time.
    if supports(prior, "energy"):
        return MAP()
    has = ", ".join(sorted(prior.capabilities)) or "nothing"
    raise UnsupportedError(f"No sampler works with {type(prior).__name__}, which has {has}. {of_labels(prior)}".strip())
