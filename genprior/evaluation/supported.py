"""What goes together: priors, samplers and operators, from what the code of each says of itself."""

import math
from collections.abc import Callable, Mapping

import torch

from genprior.evaluation.table import Table
from genprior.operators.base import LinearOperator
from genprior.priors.amortized import LearnedPosterior
from genprior.priors.base import Prior, UnsupportedError, supports
from genprior.priors.ddpm import DDPM
from genprior.priors.field import GaussianField
from genprior.priors.flow import Flow
from genprior.priors.gan import GAN
from genprior.priors.gaussian import Gaussian
from genprior.priors.gaussian_mixture import GaussianMixture
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE
from genprior.samplers import SAMPLERS
from genprior.samplers.base import Sampler
from genprior.samplers.repaint import projection
from genprior.samplers.tds import LARGEST

SHAPE = (3, 8, 8)


def supported(prior: Prior, sampler: Sampler | type[Sampler], operator: LinearOperator) -> str | None:
    """None if the sampler draws from p(x | y) of that prior and operator, or else what is missing, in a few words."""
    prior = prior.sized(*operator.image_shape[1:])
    if not supports(prior, sampler.needs):
        return f"the prior has no {sampler.needs}"
    if sampler.everywhere and prior.bounded:
        return "the prior's energy is not finite everywhere"
    if tuple(prior.image_shape) != tuple(operator.image_shape):
        return f"the prior is of images of {prior.image_shape}, the operator of {operator.image_shape}"
    if isinstance(prior, LearnedPosterior) and not prior.knows(operator):
        return "the posterior was learned for another operator"
    if _LACKS[sampler.needs_operator](operator):
        return f"the operator has no {sampler.needs_operator}"
    return None


def table() -> Table:
    """For each sampler, what it needs, and for each family of priors the operators it takes."""
    # The suites need `supported`, and this the operators of the suites.
    from genprior.evaluation.truth import operators

    kinds, priors = operators(SHAPE), examples()
    rows = []
    for name, sampler in SAMPLERS.items():
        needs = [sampler.needs, sampler.needs_operator, "finite energy" if sampler.everywhere else None]
        taken = {
            family: _listed({kind: supported(prior, sampler, A) is None for kind, A in kinds.items()})
            for family, prior in priors.items()
        }
        rows.append({"sampler": name, "needs": ", ".join(filter(None, needs)), **taken})
    return Table(rows)


def examples() -> dict[str, Prior]:
    """A small prior of each family, untrained, on colour images of 8 x 8: what it supports does not depend on more."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        networks = {
            "nf": Flow(SHAPE, widths=(4, 4), steps=(1, 1)),
            "nf-patch": PatchFlow(patch=2, width=4, steps=1),
            "vae": VAE(SHAPE, latent=3, widths=(4, 4), blocks=(0, 1)),
            "ddpm": DDPM((3, None, None), widths=(8, 8), blocks=1),
            "ldm": LatentDiffusion(
                VAE((3, None, None), latent=2, widths=(4, 4), blocks=(0, 1)),
                DDPM((2, None, None), data_std=1.0, widths=(8, 8), blocks=1, patch=1),
            ),
            "gan": GAN(SHAPE, latent=3, widths=(4, 4), hidden=4),
            "amortized": LearnedPosterior(SHAPE, operator={"name": "Inpaint"}, noise=(0, 1), widths=(8, 8), blocks=1),
        }
    mean = torch.full(SHAPE, 0.5)
    fields = Gaussian(mean, torch.full(SHAPE, 0.06)).sample(9).clamp(0, 1)
    return {
        "gaussian": Gaussian(mean, torch.full(SHAPE, 0.06)),
        "gaussian-field": GaussianField.fit(fields),
        "mixture": GaussianMixture(torch.tensor([0.3, 0.7]), torch.stack([mean - 0.2, mean]), torch.full(SHAPE, 0.06)),
        **{name: prior.eval().requires_grad_(False) for name, prior in networks.items()},
    }


def _refused(build: Callable[[LinearOperator], object], operator: LinearOperator) -> bool:
    try:
        build(operator)
    except UnsupportedError:
        return True
    return False


# Whether an operator lacks what samplers may need.
_LACKS: Mapping[str | None, Callable[[LinearOperator], bool]] = {
    None: lambda operator: False,
    "svd": lambda operator: _refused(lambda A: A.svd(), operator),
    "projection": lambda operator: _refused(projection, operator),
    "few values": lambda operator: math.prod(operator.measurement_shape) > LARGEST,
}


def _listed(works: Mapping[str, bool]) -> str:
    """Those that work, in as few words as they take."""
    taken = [name for name, there in works.items() if there]
    rest = [name for name in works if name not in taken]
    if not rest:
        return "all"
    return f"all but {', '.join(rest)}" if len(rest) < len(taken) else ", ".join(taken) or "none"
