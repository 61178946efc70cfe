"""Which priors, samplers and operators are compatible, derived from their code."""

from collections.abc import Mapping

from genprior.checks import Shape
from genprior.likelihoods.named import LIKELIHOODS
from genprior.operators import PhaseRetrieval
from genprior.operators.base import Operator
from genprior.priors.base import Prior
from genprior.samplers import SAMPLERS
from genprior.samplers.base import Sampler
from genprior.table import Table
from genprior.truth.gaussian import operators

SIDE = 8  # used for priors of images of any size


def kinds(shape: Shape) -> dict[str, Operator]:
    """One operator of each kind on images of that shape, see `truth.gaussian.operators`, and a nonlinear one."""
    return {**operators(shape), "phase retrieval": PhaseRetrieval(shape)}


def table(priors: Mapping[str, Prior]) -> Table:
    """For each sampler, what it needs, the noise it supports, and the operators it supports for each prior."""
    tried = {name: kinds(tuple(a or SIDE for a in prior.image_shape)) for name, prior in priors.items()}
    rows = []
    for name, kind in SAMPLERS.items():
        sampler = kind()
        needs = [sampler.needs, sampler.needs_operator, "finite energy" if sampler.everywhere else None]
        taken = {
            other: _listed({op: sampler.lacks(prior, A) is None for op, A in tried[other].items()})
            for other, prior in priors.items()
        }
        rows.append({"sampler": name, "needs": ", ".join(filter(None, needs)), "noise": laws(kind), **taken})
    return Table(rows)


def laws(sampler: type[Sampler]) -> str:
    """The names of the laws of y given A x that a sampler supports."""
    return _listed({name: issubclass(law, sampler.likelihoods) for name, law in LIKELIHOODS.items()})


def _listed(works: Mapping[str, bool]) -> str:
    """List the names that work, as briefly as possible."""
    taken = [name for name, there in works.items() if there]
    rest = [name for name in works if name not in taken]
    if not rest:
        return "all"
    return f"all but {', '.join(rest)}" if len(rest) < len(taken) else ", ".join(taken) or "none"
