"""Samplers against the posterior of a learned prior, which two reference methods compute.

For an uninformative y, `importance` weights draws from the prior by N(y; A x, noise^2 I): correct as their number
grows, for any prior, without chains that must mix; the effective sample size shows whether there are enough. For a more
informative y, `chains` are long Hamiltonian chains in the latents of a decoder. They start at the latent of the truth,
which is an exact draw from p(x | y) if the truth is a draw from the prior. So they need no burn-in, but chains that do
not mix stay near the truth, which R-hat shows.

With m, V the mean and covariance of the referee and x the draws of a sampler,

    error = |E x - m| / sqrt(tr V)        the bias, in posterior standard deviations
    ratio = tr Cov x / tr V               variance over true variance

where each pixel counts by its variance: in digits most have almost none. The jackknife over independent groups of the
draws and of the referee subtracts the contribution of chance, and gives the standard errors; that of an error of 0 is a
little too large. The sliced Wasserstein distance to the referee's draws is compared with its floor, the distance
between two halves of the referee with as many draws.

References: B. Efron, C. Stein, The jackknife estimate of variance, 1981. A. Owen, Monte Carlo theory, methods and
examples, 2013, for importance sampling. For the chains, see `samplers.chains.mcmc` and `FisherHMC`.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape
from genprior.divergences import sliced_wasserstein
from genprior.linalg import inner, total
from genprior.noise import Noise
from genprior.operators import Inpaint, LinearOperator, Measurement, SuperResolution, random_mask
from genprior.priors.base import Prior
from genprior.samplers.base import Sampler, floored
from genprior.samplers.chains.mcmc import DualAveraging, Point, Trace, adapt, transition
from genprior.samplers.latents.fisher_hmc import FisherHMC, information_metric
from genprior.samplers.latents.latent_hmc import decoder_variance, image_given, posterior
from genprior.table import Cell, Estimate, Table
from genprior.truth.gaussian import draw, root

ENOUGH = 100  # effective draws from which on importance is the referee
GROUPS = 10  # groups of draws from the prior
CHUNK = 500  # draws from the prior at once
APART = 2**32  # separates the seeds of truths and measurements from the samplers', so none starts at a truth's latent


@dataclass(frozen=True)
class Effort:
    """The amount of work in a suite.

    Attributes:
        problems: names of the `problems` to pose.
        truths: number of images, each measured in every problem.
        weighted: number of draws from the prior, for `importance`.
        chains, burn_in, steps, leapfrog: of `chains`, see `FisherHMC`.
        draws: number of draws of each sampler.
    """

    problems: tuple[str, ...] = ("4 averages", "16 averages", "half of the pixels")
    truths: int = 2
    weighted: int = 20000
    chains: int = 8
    burn_in: int = 40
    steps: int = 200
    leapfrog: int = 10
    draws: int = 16


FULL = Effort()
QUICK = Effort(("16 averages", "half of the pixels"), 1, 3000, chains=4, burn_in=8, steps=16, leapfrog=5, draws=8)


def problems(shape: Shape) -> dict[str, tuple[LinearOperator, float]]:
    """Operators on grey images with sides that are multiples of 4, and the noise of y."""
    _, height, _ = shape
    return {
        "4 averages": (SuperResolution(height // 2, shape, "average"), 0.05),
        "16 averages": (SuperResolution(height // 4, shape, "average"), 0.2),
        "half of the pixels": (Inpaint(random_mask(shape, 0.5, 0), shape), 0.1),
    }


@dataclass(frozen=True, eq=False)
class Referee:
    """Weighted draws of a posterior in independent groups.

    Attributes:
        name: of the method.
        draws: (G, T, D).
        weights: (G, T), summing to 1.
        told: diagnostics by name.
    """

    name: str
    draws: Tensor
    weights: Tensor
    told: dict[str, float]

    def points(self, groups: slice, n: int) -> Tensor:
        """n draws of equal weight from some of the groups, (n, D)."""
        draws, weights = self.draws[groups].flatten(0, 1), self.weights[groups].flatten()
        places = (torch.arange(n, dtype=weights.dtype) + 0.5) / n * weights.sum()
        return draws[torch.searchsorted(weights.cumsum(0), places).clamp_max(len(draws) - 1)]


def importance(x: Tensor, one: Measurement) -> Referee:
    """Weight draws x from the prior, (N, C, H, W), by one measurement with noise."""
    x = x[: len(x) // GROUPS * GROUPS]
    r = one.operator(x) - one.y
    log_w = (-inner(r, r) / (2 * torch.as_tensor(one.sd) ** 2)).double().flatten()
    w = log_w.softmax(0)
    told = {"ess": float(1 / w.square().sum())}
    draws = rearrange(x.double(), "(g t) ... -> g t (...)", g=GROUPS)
    return Referee("importance", draws, rearrange(w, "(g t) -> g t", g=GROUPS), told)


def chains(prior: Prior, one: Measurement, z: Tensor, effort: Effort, seed: int = 0) -> Referee:
    """Run Hamiltonian chains from one latent, (1, *latent_shape); each chain is a group."""
    K, T = effort.chains, effort.steps
    rows = torch.zeros(K, dtype=torch.long)
    noise = Noise(seed, rows, torch.arange(K))
    measurement, v = floored(one.select(rows), FisherHMC().floor(prior)), decoder_variance(prior)
    potential = posterior(prior, v, measurement, measurement.sd)
    z = z.expand(K, *z.shape[1:])
    metric = information_metric(prior, v, measurement, z, noise, probes=16)
    sizes = DualAveraging.of(z, effort.leapfrog, 1 / 4)
    point = adapt([potential] * effort.burn_in, Point.at(potential, z), sizes, effort.leapfrog, noise, metric)
    trace, draws = Trace(point.state), []
    for _ in range(T):
        point, _ = transition(potential, point, sizes.settled, effort.leapfrog, noise, metric)
        trace.append(point.state, point.energy)
        draws.append(image_given(prior.decode(point.state), v, measurement, noise).flatten(1))
    told = trace.diagnose(noise.image)
    x = torch.stack(draws, 1).double()
    told = {"ess": float(told["ess"].sum()), "rhat": float(told["rhat"].max())}
    return Referee("chains", x, torch.full((K, T), 1 / (K * T), dtype=x.dtype), told)


def compare(x: Tensor, referee: Referee) -> dict[str, Estimate]:
    """The square of the error, the ratio, and the sliced Wasserstein distance with its floor.

    Arguments:
        x: draws (U, b, D) in U independent groups.
        referee: of at least two groups.
    """
    x, r, w = x.double(), referee.draws, referee.weights
    spread = _variance(r, w)

    def square(x: Tensor, r: Tensor, w: Tensor) -> Tensor:
        return (x.mean((0, 1)) - _average(r, w)).square().sum() / spread

    def ratio(x: Tensor, r: Tensor, w: Tensor) -> Tensor:
        return x.flatten(0, 1).var(0, correction=0).sum() / _variance(r, w)

    points, half = x.flatten(0, 1), len(r) // 2
    first, second = (referee.points(part, len(points)) for part in (slice(half), slice(half, None)))
    return {
        "square": _jackknife(square, x, r, w),
        "ratio": _jackknife(ratio, x, r, w),
        "distance": Estimate((sliced_wasserstein(points, first) + sliced_wasserstein(points, second)) / 2),
        "floor": Estimate(sliced_wasserstein(first, second)),
    }


def _average(draws: Tensor, weights: Tensor) -> Tensor:
    """(G, T, D), (G, T) -> (D,)."""
    return torch.einsum("gtd,gt->d", draws, weights) / weights.sum()


def _variance(draws: Tensor, weights: Tensor) -> Tensor:
    """The trace of the covariance, ()."""
    square = torch.einsum("gtd,gtd,gt->", draws, draws, weights) / weights.sum()
    return square - _average(draws, weights).square().sum()


def _jackknife(f: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, r: Tensor, w: Tensor) -> Estimate:
    """f less its bias, estimated by leaving out each group of x and of (r, w) in turn, and its standard error."""
    value = f(x, r, w)
    without_x = torch.stack([f(_without(x, k), r, w) for k in range(len(x))])
    without_r = torch.stack([f(x, _without(r, k), _without(w, k)) for k in range(len(r))])
    bias = sum((len(each) - 1) * (each.mean() - value) for each in (without_x, without_r))
    variance = total((len(each) - 1) * each.var(correction=0) for each in (without_x, without_r))
    return Estimate(float(value - bias), float(variance.sqrt()))


def _without(groups: Tensor, k: int) -> Tensor:
    return torch.cat([groups[:k], groups[k + 1 :]])


@settled
def flow_suite(
    samplers: Mapping[str, Sampler],
    prior: Prior,
    *,
    truths: Tensor | None = None,
    effort: Effort = FULL,
    seed: int = 0,
) -> Table:
    """Each sampler that supports the prior, on each of the problems of `effort`, a row each: means over the truths.

    Arguments:
        samplers: name -> sampler.
        prior: with `sample`, `decode` and `encode`, of grey images.
        truths: images (N, 1, H, W), the first of which are measured; None for draws from the prior.
        effort: how much work to do.
        seed: of everything.
    """
    own = APART + seed
    x = torch.cat([prior.sample(CHUNK, seed=own + 1 + k) for k in range(math.ceil(effort.weighted / CHUNK))])
    truths = (prior.sample(effort.truths, seed=own) if truths is None else truths[: effort.truths]).to(x)
    rows = []
    for problem in effort.problems:
        operator, level = problems(tuple(prior.image_shape))[problem]
        y = operator(truths)
        y = y + level * Noise(own, torch.arange(len(y)) + 1)(y)
        ones = [Measurement(y[k : k + 1], operator, level) for k in range(len(y))]
        referees = [_referee(prior, x, one, truth[None], effort, seed) for one, truth in zip(ones, truths)]
        judged = {name: s for name, s in samplers.items() if s.lacks(prior, operator) is None}
        for name, sampler in judged.items():
            found = [
                compare(draw(sampler, prior, one, effort.draws, seed), referee) for one, referee in zip(ones, referees)
            ]
            rows.append({"problem": problem, "referee": _described(referees), "sampler": name, **_means(found)})
    return Table(rows)


def _referee(prior: Prior, x: Tensor, one: Measurement, truth: Tensor, effort: Effort, seed: int) -> Referee:
    referee = importance(x, one)
    if referee.told["ess"] >= ENOUGH:
        return referee
    with torch.no_grad():
        return chains(prior, one, prior.encode(truth), effort, seed)


def _described(referees: list[Referee]) -> str:
    """Method and diagnostics for each truth."""
    told = ([each.name, *(f"{name} {value:.3g}" for name, value in each.told.items())] for each in referees)
    return "; ".join(map(", ".join, told))


def _means(found: list[dict[str, Estimate]]) -> dict[str, Cell]:
    means = {name: Estimate.average([each[name] for each in found]) for name in found[0]}
    return {
        "error": root(means["square"]),
        "ratio": means["ratio"],
        "sliced Wasserstein": means["distance"],
        "its floor": means["floor"],
    }
