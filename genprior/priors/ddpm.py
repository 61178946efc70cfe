"""The denoising diffusion prior: a chain of Gaussian noisings, undone step by step by one network.

Notation: u = 2x - 1 the image on the network's own [-1, 1]; alpha_bar_t the cumulative product of 1 - beta_t;
z_t = sqrt(alpha_bar_t) u + sqrt(1 - alpha_bar_t) eps the chain; s_t = sqrt((1 - alpha_bar_t) / alpha_bar_t) its noise
relative to the signal, on [-1, 1]; sigma = s / 2 the same in the units of x. Everything outside this file speaks of
x_t = x + sigma n only.

References: J. Ho, A. Jain, P. Abbeel, Denoising diffusion probabilistic models, 2020. A. Nichol, P. Dhariwal, Improved
denoising diffusion probabilistic models, 2021 (cosine betas). T. Karras et al., Elucidating the design space of
diffusion-based generative models, 2022 (preconditioning). D. Kingma et al., Variational diffusion models, 2021 (the
bound).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.nets.unet import UNet
from genprior.noise import Noise
from genprior.priors.base import Prior, as_level, autocast
from genprior.priors.given import Given
from genprior.registry import lookup

UNIT = 0.5  # one unit of the network's [-1, 1], in the units of x


def linear_betas(steps: int) -> Tensor:
    """beta_t linear from 1e-4 to 0.02 for 1000 steps (Ho et al.), scaled by 1000 / steps for others."""
    scale = 1000 / steps
    return torch.linspace(1e-4 * scale, min(0.02 * scale, 0.999), steps, dtype=torch.float64)


def cosine_betas(steps: int) -> Tensor:
    """alpha_bar_t = cos^2(pi/2 (t/T + 0.008) / 1.008), beta_t capped at 0.999 (Nichol and Dhariwal)."""
    t = torch.arange(steps + 1, dtype=torch.float64) / steps
    alpha_bar = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
    return (1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999)


def geometric_betas(steps: int) -> Tensor:
    """s_t = sqrt((1 - alpha_bar_t) / alpha_bar_t) geometric, from 0.2 of 255 grey levels to 20 (0.1 and 10 in x).

    Steps uniform in t are then uniform in ln s: the loss of the course is the bound itself, up to a factor.
    """
    s = torch.linspace(math.log(0.2 / 255 / UNIT), math.log(20), steps, dtype=torch.float64).exp()
    alpha_bar = torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + s**2)])
    return 1 - alpha_bar[1:] / alpha_bar[:-1]


BETAS = {"linear": linear_betas, "cosine": cosine_betas, "geometric": geometric_betas}


def posterior_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta-tilde_t = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t): the variance of q(z_{t-1} | z_t, x)."""
    return beta * (1 - alpha_bar_next) / (1 - alpha_bar)


def forward_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta_t, right when the data themselves are N(0, I); none in the last step, as in Ho et al."""
    return beta if alpha_bar_next < 1 else 0.0


def constant_weight_variance(beta: float, alpha_bar: float, alpha_bar_next: float) -> float:
    """beta_t^2 / ((1 - beta_t) (1 - alpha_bar_t)): makes all weights of the bound equal, and samples collapse."""
    return beta**2 / ((1 - beta) * (1 - alpha_bar)) if alpha_bar_next < 1 else 0.0


VARIANCES = {"posterior": posterior_variance, "forward": forward_variance, "constant-weight": constant_weight_variance}


class DDPM(Prior):
    """Denoising diffusion prior with a U-Net: `sample`, `denoise`, `elbo`.

    The network sees z_t and log s_t, and through Karras' preconditioning predicts u where noise is high and eps where
    it is low; s is continuous, so `denoise` holds for any sigma, whatever the steps of the chain.

    Arguments:
        image_shape: (C, H, W); H and W may be None for a prior of images of any size.
        betas: "linear" or "cosine".
        steps: T, the length of the chain, at least 2.
        data_std: standard deviation of the pixels of u (0.5 for photographs, Karras et al.).
        classes: number of class labels, 0 for none; the `label` of `denoise` and `sample` conditions on one.
        edges: show the network how far a value lies from black and from white, in multiples of the noise: for images
            with much of either, such as digits, whose bound then counts their black as known.
        widths, blocks, patch: see `UNet`.

    Raises:
        ValueError: an argument is not what is said here.
    """

    def __init__(
        self,
        image_shape: tuple[int, int | None, int | None],
        *,
        betas: str = "linear",
        steps: int = 1000,
        data_std: float = 0.5,
        classes: int = 0,
        edges: bool = False,
        widths: tuple[int, ...] = (64, 128, 192, 192),
        blocks: int = 2,
        patch: int = 2,
    ):
        super().__init__()
        _check_arguments(image_shape, steps, data_std, classes, widths, blocks, patch)
        self.config = {
            "image_shape": list(image_shape),
            "betas": betas,
            "steps": steps,
            "data_std": data_std,
            "classes": classes,
            "edges": edges,
            "widths": list(widths),
            "blocks": blocks,
            "patch": patch,
        }
        self.image_shape = tuple(image_shape)
        self.classes = classes
        self.data_std = data_std
        self.edges = edges
        features = 2 * image_shape[0] if edges else 0
        self.net = UNet(image_shape[0], tuple(widths), blocks, patch, classes=classes, features=features)
        self.betas = lookup("betas", betas, BETAS)(steps).tolist()
        self.alpha_bars = torch.cumprod(1 - torch.tensor(self.betas, dtype=torch.float64), 0).tolist()
        self.centre = 0.5
        self.spread = UNIT * data_std
        self.sigma_min = UNIT * relative_noise(self.alpha_bars[0])
        self.sigma_max = UNIT * relative_noise(self.alpha_bars[-1])
        # Variance of the decoder p(x | x_1) of the bound, in squared units of x: measured by `fit_decoder`.
        self.register_buffer("decoder_variance", torch.tensor(self.sigma_min**2))

    def raw(self, u_t: Tensor, s: Tensor, label: Tensor | None = None) -> Tensor:
        """The bare network F on u_t = u + s n, s (B, 1, 1, 1): of unit variance when it fits its target."""
        if label is not None and not self.classes:
            raise ValueError("This prior has no classes: leave the label out, or train a prior with classes.")
        if self.classes and label is None:
            label = torch.full((len(u_t),), self.classes, device=u_t.device)
        s = s.clamp_min(1e-6)  # at s = 0, where c_out = 0, any finite F will do
        inputs = u_t / (s**2 + self.data_std**2).sqrt()
        if self.edges:
            inputs = torch.cat([inputs, 4 * ((u_t + 1) / (4 * s)).tanh(), 4 * ((u_t - 1) / (4 * s)).tanh()], dim=1)
        with autocast(u_t.device, self.autocast):
            return self.net(inputs, 0.25 * s.log().flatten(), label)

    def skip_and_out(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out of u_hat = c_skip u_t + c_out F (Karras et al.)."""
        variance = s**2 + self.data_std**2
        return self.data_std**2 / variance, s * self.data_std / variance.sqrt()

    def denoise(self, x_t: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """E[x | x_t] for x_t = x + sigma n, x_t (B, C, H, W), sigma a float or (B, 1, 1, 1), label (B,) or None."""
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        c_skip, c_out = self.skip_and_out(s)
        u_hat = c_skip * u_t + c_out * self.raw(u_t, s, label).to(u_t.dtype)
        return self.centre + UNIT * u_hat

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        variance: str = "posterior",
        label: int | None = None,
    ) -> Tensor:
        """n draws by the reverse chain z_T -> z_0, (n, C, H, W).

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            steps: use this many of the T steps, evenly spread; None for all.
            variance: of each step: "posterior" (beta-tilde, default), "forward" (beta), or "constant-weight", the one
                that makes the bound's weights constant, and whose samples collapse: for teaching only.
            label: class label, 0 to classes - 1; None for images of any class.

        Raises:
            ValueError: a size, a label, a variance or a number of steps that this prior does not have.
        """
        if label is not None and label not in range(self.classes):
            raise ValueError(f"There is no label {label!r}: this prior has {self.classes} classes, counted from 0.")
        weight = next(self.parameters())
        noise = Noise(seed, torch.zeros(n, dtype=torch.long), torch.arange(n))
        z = noise(torch.empty(n, *self._shape(size), dtype=weight.dtype, device=weight.device))
        labels = None if label is None else torch.full((n,), label, device=weight.device)
        alpha_bars = self.alpha_bars if steps is None else respaced(self.alpha_bars, steps)
        return ancestral_chain(
            lambda x_t, sigma: self.denoise(x_t, sigma, labels),
            z,
            alpha_bars,
            noise,
            lookup("variance", variance, VARIANCES),
            self.centre,
        )

    @torch.no_grad()
    def elbo(self, x: Tensor, *, seed: int = 0, terms: int = 64) -> Tensor:
        """A lower bound of ln p(x) in nats, (B,), density on the units of x: see `chain_elbo`.

        p is the law of x under the hierarchy x_T -> … -> x_1 -> x over the levels below, not that of the draws of
        `sample`, whose chain has other levels and no noise in its last step.

        The decoder is N(x_hat(x_1), v I) with the learned variance v = `decoder_variance`. The T levels run evenly in
        ln sigma from sigma_min to sigma_max: with those of the linear betas, whose last steps are coarse, the bound
        stays 0.29 nats per value below ln p(x) however large T is. The sum over T is estimated without bias from
        `terms` of its terms, stratified over the levels.
        """
        T = len(self.alpha_bars)
        ratio = self.sigma_max / self.sigma_min
        sigmas = [self.sigma_min * ratio ** (t / (T - 1)) for t in range(T)]
        prior_variance = UNIT**2 / self.alpha_bars[-1]  # z_T ~ N(0, I), read in the units of x
        return chain_elbo(
            self.denoise, x, sigmas, self.centre, prior_variance, self.decoder_variance, seed=seed, terms=terms
        )

    @torch.no_grad()
    def fit_decoder(self, x: Tensor, *, seed: int = 0) -> None:
        """Set the decoder's variance to its maximum-likelihood value on x: the mean squared error at sigma_min."""
        x = x.to(self.decoder_variance)
        x_1 = x + self.sigma_min * Noise(seed, torch.arange(len(x)))(x)
        self.decoder_variance.fill_((self.denoise(x_1, self.sigma_min) - x).square().mean())

    def given(self, label: int) -> Given:
        """p(x | label), itself a prior."""
        return Given(self, label)

    def _shape(self, size: tuple[int, int] | None) -> tuple[int, int, int]:
        channels, *own = self.image_shape
        if None in own and size is None:
            raise ValueError("This prior has images of any size: say which one, as size=(height, width).")
        if size is not None and any(a is not None and a != b for a, b in zip(own, size)):
            raise ValueError(f"This prior has images of size {tuple(own)}, not {tuple(size)}.")
        return channels, *(size or own)


def _check_arguments(image_shape, steps, data_std, classes, widths, blocks, patch) -> None:
    def whole(least: int, *numbers) -> bool:
        return all(isinstance(a, int) and a >= least for a in numbers)

    channels, *sides = image_shape
    for name, value, right, wanted in (
        ("image_shape", image_shape, whole(1, channels) and len(sides) == 2, "(C, H, W)"),
        ("image_shape", image_shape, whole(1, *(a for a in sides if a is not None)), "H and W at least 1, or None"),
        ("steps", steps, whole(2, steps), "a whole number, at least 2"),
        ("data_std", data_std, isinstance(data_std, (int, float)) and 0 < data_std < math.inf, "a positive number"),
        ("classes", classes, whole(0, classes), "a whole number, 0 for none"),
        ("widths", widths, whole(1, *widths) and len(widths) > 0, "a list of whole numbers, at least 1"),
        ("blocks", blocks, whole(0, blocks), "a whole number"),
        ("patch", patch, whole(1, patch), "a whole number, at least 1"),
    ):
        if not right:
            raise ValueError(f"{name} is {value!r}: give {wanted}.")


def relative_noise(alpha_bar: float) -> float:
    """s = sqrt((1 - alpha_bar) / alpha_bar)."""
    return math.sqrt((1 - alpha_bar) / alpha_bar)


def respaced(alpha_bars: list[float], steps: int) -> list[float]:
    """`steps` values of alpha_bar, evenly spread over the chain, both ends kept; a single one is the noisiest."""
    if not 1 <= steps <= len(alpha_bars):
        raise ValueError(f"steps must lie between 1 and the {len(alpha_bars)} of the chain, got {steps}.")
    kept = torch.linspace(len(alpha_bars) - 1, 0, steps, dtype=torch.float64).tolist()
    return [alpha_bars[round(i)] for i in reversed(kept)]


def ancestral_chain(
    denoise: Callable[[Tensor, float], Tensor],
    z: Tensor,
    alpha_bars: list[float],
    noise: Callable[[Tensor], Tensor],
    variance: Callable[[float, float, float], float],
    centre: float = 0.5,
) -> Tensor:
    """The reverse chain from z_T = z to x.

    With beta_t = 1 - alpha_bar_t / alpha_bar_{t-1} and alpha_bar_0 = 1,
        mu_t = (z_t - beta_t / sqrt(1 - alpha_bar_t) eps_hat(z_t)) / sqrt(1 - beta_t),
        z_{t-1} = mu_t + sqrt(variance(beta_t, alpha_bar_t, alpha_bar_{t-1})) n.
    """
    for alpha_bar, alpha_bar_next in zip(reversed(alpha_bars), [*reversed(alpha_bars[:-1]), 1.0]):
        beta = 1 - alpha_bar / alpha_bar_next
        s = relative_noise(alpha_bar)
        u_t = z / math.sqrt(alpha_bar)
        u_hat = (denoise(centre + UNIT * u_t, UNIT * s) - centre) / UNIT
        eps_hat = (u_t - u_hat) / s
        mu = (z - beta / math.sqrt(1 - alpha_bar) * eps_hat) / math.sqrt(1 - beta)
        z = mu + math.sqrt(variance(beta, alpha_bar, alpha_bar_next)) * noise(z)
    return centre + UNIT * z


def chain_elbo(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    sigmas: list[float],
    centre: float | Tensor,
    prior_variance: float,
    decoder_variance: float | Tensor,
    *,
    seed: int = 0,
    terms: int = 64,
) -> Tensor:
    """The evidence lower bound of the chain x_T -> … -> x_1 -> x, in nats, (B,).

    In the coordinates x_t = x + sigma_t n, with p(x_T) = N(centre, prior_variance I) and steps of the posterior
    variance,
        elbo = E ln N(x; x_hat(x_1), v I) - KL(q(x_T | x) || p(x_T))
               - sum_{t=2}^{T} 1/2 (1 / sigma_{t-1}^2 - 1 / sigma_t^2) E |x - x_hat(x_t)|^2.
    `terms` steps, one drawn in each of as many strata of equal length, stand for the sum (all
    of them if terms >= T - 1).
    """
    if terms < 1:
        raise ValueError(f"terms is {terms}: give a whole number, at least 1; without the sum there is no bound.")
    batch, dimension = len(x), x[0].numel()
    noise = Noise(seed, torch.arange(batch))

    def squared_error(sigma: Tensor) -> Tensor:
        return (x - denoise(x + sigma * noise(x), sigma)).flatten(1).square().sum(1)

    v = torch.as_tensor(decoder_variance, dtype=x.dtype, device=x.device)
    decoder = -0.5 * squared_error(as_level(sigmas[0], x)) / v - 0.5 * dimension * (2 * math.pi * v).log()
    ratio = sigmas[-1] ** 2 / prior_variance
    distance = (x - centre).flatten(1).square().sum(1) / prior_variance
    kl = 0.5 * (distance + dimension * (ratio - 1 - math.log(ratio)))

    level = torch.tensor(sigmas, dtype=torch.float64, device=x.device)
    weight = 0.5 * (level[:-1] ** -2 - level[1:] ** -2)
    steps = len(weight)
    terms = min(terms, steps)
    total = torch.zeros_like(kl)
    for k in range(terms):
        low, high = k * steps // terms, (k + 1) * steps // terms
        t = low + (noise.uniform(x[:, :1, :1, :1]).flatten() * (high - low)).long().clamp(max=high - low - 1)
        sigma = level[t + 1].to(x.dtype).reshape(-1, 1, 1, 1)
        total = total + (high - low) * weight[t].to(x.dtype) * squared_error(sigma)
    return decoder - kl - total
