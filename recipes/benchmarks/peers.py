"""The methods compared: (prior, measurement, evaluations, seed) -> one draw per row of the measurement.

Each takes as many steps as the evaluations pay for; a forward or backward pass of the network counts as one. Ours are
the samplers by name, at their defaults except DPS, whose published step depends on the task. The peers use the same
network and measurement, and their own documented settings:

deepinv 0.5: DPS, DiffPIR and DDRM at their defaults. The others are PosteriorDiffusion as in its example on noisy data
fidelities, a variance-exploding diffusion and weight 1, but over the noise levels that the network knows, and with the
solver of its DPS, which its documentation recommends for few steps: with the example's own, all of them diverge here.
Its physics are `Inpainting` and `BlurFFT`; for super-resolution, where it has no operator with an SVD, ours.

azula 0.11: vectors on [-1, 1], as its models use, default zeta and lambda, one iteration of the solvers, DDPM sampling,
and its schedule VP, or VE where the name says so. DPS takes one image at a time, because its norm is over the batch.
PGDM ignores the noise, and uses y only through A^+ y.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Measurement
from genprior.priors.base import Prior
from genprior.samplers import find_estimator, find_sampler
from genprior.samplers.base import Sampler
from genprior.samplers.guidance.diffpir import DiffPIR
from genprior.samplers.guidance.dps import DPS
from genprior.samplers.guidance.mmps import MMPS
from genprior.samplers.guidance.tmpd import TMPD

Method = Callable[[Prior, Measurement, int, int], Tensor]
OURS = (
    *("optimal-covariance", "probed-covariance", "dpir", "diffpir", "ddrm", "ddnm", "dps", "pigdm", "tmpd", "mmps"),
    *("daps", "gibbs", "reddiff", "repaint", "sitcom"),
)


class TooFew(Exception):
    """The evaluations do not pay for a single step."""


def most_steps(cost: Callable[[int], int], evaluations: int) -> int:
    """Return the largest number of steps, at least one, that costs at most `evaluations`."""
    fitting = [steps for steps in range(1, evaluations + 1) if cost(steps) <= evaluations]
    if not fitting:
        raise TooFew(f"a step takes {cost(1)} evaluations")
    return fitting[-1]


def ours(given: str | Sampler) -> Method:
    def draw(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
        sampler = find_sampler(given, prior)
        if isinstance(sampler, DPS):
            sampler = replace(sampler, zeta=0.5 if isinstance(measurement.operator, Inpaint) else 0.3)
        steps = most_steps(lambda steps: replace(sampler, steps=steps).evaluations, evaluations)
        rows = torch.arange(len(measurement.y))
        with torch.no_grad():
            return replace(sampler, steps=steps)(prior, measurement, Noise(seed, torch.ones_like(rows), rows))

    return draw


def picture(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
    """Return the picture of `restore`, made for the least squared error: not draws, so all rows are alike."""
    estimator = find_estimator(prior, measurement.operator, evaluations)
    assert estimator is not None
    rows = torch.arange(len(measurement.y))
    with torch.no_grad():
        return estimator(prior, measurement, Noise(seed, torch.ones_like(rows), torch.zeros_like(rows)))


def as_decomposable(measurement: Measurement):
    """Return the operator as a deepinv physics with an SVD, noise included."""
    from deepinv.physics import BlurFFT, DecomposablePhysics, GaussianNoise, Inpainting

    A, y = measurement.operator, measurement.y
    noise = GaussianNoise(float(measurement.noise))
    if isinstance(A, Inpaint):
        return Inpainting(A.image_shape, mask=(~A.mask).to(y).expand(1, *A.image_shape), noise_model=noise)
    if isinstance(A, Blur):
        return BlurFFT(A.image_shape, filter=A.kernel[None].to(y), noise_model=noise)
    svd = A.svd()
    s = svd.singular_values.to(y).expand(1, *A.image_shape)
    return DecomposablePhysics(svd.U, svd.Vt, A.image_shape, svd.Ut, svd.V, s, noise_model=noise)


def deepinv_dps(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
    from deepinv.sampling import DPS

    # the levels include the last one, where nothing is evaluated
    levels = most_steps(lambda steps: 2 * steps, evaluations) + 1
    model = DPS(prior.denoise, num_steps=levels, device=measurement.y.device, rng=_generator(measurement, seed))
    return model(measurement.y, as_decomposable(measurement).to(measurement.y.device)).float()


def deepinv_diffpir(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
    from deepinv.optim.data_fidelity import L2
    from deepinv.sampling import DiffPIR

    y = measurement.y
    model = DiffPIR(prior.denoise, L2(), sigma=float(measurement.noise), max_iter=evaluations, device=y.device)
    with _global_seed(y, seed):
        return model(y, as_decomposable(measurement).to(y.device))


def deepinv_ddrm(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
    import numpy as np
    from deepinv.sampling import DDRM

    y = measurement.y
    with _global_seed(y, seed):
        # it overwrites the y that it is given
        return DDRM(prior.denoise, np.linspace(1, 0, evaluations))(y.clone(), as_decomposable(measurement).to(y.device))


def deepinv_posterior(fidelity: str, per_step: int, **options) -> Method:
    def draw(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
        from deepinv import sampling

        y = measurement.y
        # one evaluation is kept for the denoising at the end
        levels = most_steps(lambda steps: per_step * steps + 1, evaluations) + 1
        timesteps = torch.linspace(1, 0.001, levels, device=y.device, dtype=torch.float64)
        model = sampling.PosteriorDiffusion(
            getattr(sampling, fidelity)(**options),
            prior.denoise,
            sampling.VarianceExplodingDiffusion(
                sigma_min=2 * prior.sigma_min, sigma_max=2 * prior.sigma_max, device=y.device
            ),
            sampling.DDPMSolver(timesteps, rng=_generator(measurement, seed)),
            device=y.device,
        )
        return model(y, as_decomposable(measurement).to(y.device)).float()

    return draw


def azula(method: str, per_step: int, schedule: str = "vp") -> Method:
    def draw(prior: Prior, measurement: Measurement, evaluations: int, seed: int) -> Tensor:
        steps = most_steps(lambda steps: per_step * steps, evaluations)
        with _global_seed(measurement.y, seed):
            if method != "dps":
                return _azula(prior, measurement, method, steps, schedule)
            rows = torch.arange(len(measurement.y))
            return torch.cat([_azula(prior, measurement.select(row), method, steps, schedule) for row in rows.split(1)])

    return draw


def _azula(prior: Prior, measurement: Measurement, method: str, steps: int, schedule: str) -> Tensor:
    from azula.denoise import Denoiser, DiracPosterior
    from azula.guidance import DiffPIRDenoiser, DPSSampler, MMPSDenoiser, PGDMSampler
    from azula.linalg.covariance import IsotropicCovariance
    from azula.noise import VESchedule, VPSchedule
    from azula.sample import DDPMSampler

    A, noise = measurement.operator, 2 * float(measurement.noise)

    class Vectors(Denoiser):
        def __init__(self):
            super().__init__()
            low, high = 2 * prior.sigma_min, 2 * prior.sigma_max  # the levels that the network knows
            self.schedule = {"vp": VPSchedule((1 + high**2) ** -0.5, low), "ve": VESchedule(low, high)}[schedule]

        def forward(self, x_t: Tensor, t: Tensor) -> DiracPosterior:
            alpha, sigma = self.schedule(t)
            u_t = (x_t / alpha).unflatten(1, A.image_shape)
            return DiracPosterior((2 * prior.denoise((u_t + 1) / 2, sigma / alpha / 2) - 1).flatten(1))

    def forward(u: Tensor) -> Tensor:
        return A(u.unflatten(1, A.image_shape)).flatten(1)

    def pseudo_inverse(v: Tensor) -> Tensor:
        return A.pinv(v.unflatten(1, A.measurement_shape)).flatten(1)

    denoiser, options = Vectors(), {"steps": steps, "silent": True}
    x = measurement.y.new_ones(len(measurement.y), *A.image_shape)
    v = (2 * measurement.y - A(x)).flatten(1)  # A (2 x - 1) + 2 noise n
    sampler = {
        "dps": lambda: DPSSampler(denoiser, v, forward, **options),
        "pgdm": lambda: PGDMSampler(denoiser, v, forward, pseudo_inverse, **options),
        "diffpir": lambda: DDPMSampler(DiffPIRDenoiser(denoiser, v, forward, noise**2), **options),
        "mmps": lambda: DDPMSampler(MMPSDenoiser(denoiser, v, forward, IsotropicCovariance(noise**2)), **options),
    }[method]()
    u = sampler(sampler.init(x.flatten(1).shape).to(x))
    return (u.unflatten(1, A.image_shape) + 1) / 2


def _generator(measurement: Measurement, seed: int) -> torch.Generator:
    return torch.Generator(measurement.y.device).manual_seed(seed)


class _global_seed:
    """Seed the global generator, for methods that take no other, and restore it afterwards."""

    def __init__(self, like: Tensor, seed: int):
        self.fork = torch.random.fork_rng(devices=[like.device] if like.is_cuda else [])
        self.seed = seed

    def __enter__(self) -> None:
        self.fork.__enter__()
        torch.manual_seed(self.seed)

    def __exit__(self, *error) -> None:
        self.fork.__exit__(*error)


METHODS: dict[str, Method] = {
    **{name: ours(name) for name in OURS},
    "picture": picture,
    # as their documentation advises for photographs and few evaluations
    "tmpd start 4": ours(TMPD(start=4.0)),
    "mmps start 4": ours(MMPS(start=4.0, iterations=1)),
    # and for many
    "diffpir density 3": ours(DiffPIR(weight=0.7, density=3.0)),
    "deepinv dps": deepinv_dps,
    "deepinv diffpir": deepinv_diffpir,
    "deepinv ddrm": deepinv_ddrm,
    "deepinv ald": deepinv_posterior("ALDDataFidelity", 1),
    "deepinv dps annealed": deepinv_posterior("DPSDataFidelity", 2, guidance="annealed"),
    "deepinv pigdm": deepinv_posterior("PiGDMDataFidelity", 2),
    "deepinv mmps": deepinv_posterior("MomentMatchingDataFidelity", 5),
    "azula dps": azula("dps", 2),
    "azula diffpir": azula("diffpir", 1),
    "azula pgdm": azula("pgdm", 2),
    "azula mmps": azula("mmps", 3),
    "azula mmps ve": azula("mmps", 3, "ve"),
}
