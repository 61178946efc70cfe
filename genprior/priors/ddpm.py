"""The denoising diffusion prior: one network reverses a chain of Gaussian noise steps.

Notation: u = 2x - 1 the image on the network's own [-1, 1], u_t = u + s n; sigma = s / 2 the same noise in the units of
x. The chain itself is in `chain`; everything outside these two files uses x_t = x + sigma n only.

References: J. Ho, A. Jain, P. Abbeel, Denoising diffusion probabilistic models, 2020. T. Karras et al., Elucidating the
design space of diffusion-based generative models, 2022. J. Ho, T. Salimans, Classifier-free diffusion
guidance, 2022.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from genprior.checks import (
    COUNT,
    COUNTS,
    IF_ANY,
    NUMBER,
    OPEN_SHAPE,
    POSITIVE,
    WHOLE,
    OpenShape,
    Rule,
    check_arguments,
    whole,
)
from genprior.nets.unet import UNet
from genprior.noise import Noise
from genprior.priors.base import as_config, as_level, autocast, shape_of_draws
from genprior.priors.chain import (
    BETAS,
    UNIT,
    VARIANCES,
    ancestral_chain,
    chain_elbo,
    gaussian_decoder,
    grey_level_decoder,
    relative_noise,
    respaced,
)
from genprior.priors.labels import number_of
from genprior.priors.posterior_covariance import LARGEST_FULL, MeasuredCovariance, PosteriorCovariance
from genprior.priors.predictions import PREDICTIONS
from genprior.priors.probability_flow import FlowDensity, flow_estimates, flow_log_prob
from genprior.priors.wrappers.given import Given, Guided
from genprior.registry import lookup

EMBEDDED = 0.5  # standard deviation of new embeddings of labels, beside features of 0.7
STEPS: Rule = (lambda n: whole(2, n), "a whole number, at least 2")


class DDPM(MeasuredCovariance):
    """Denoising diffusion prior with a U-Net: `sample`, `denoise`, `elbo`, `flow_log_prob`, `posterior_covariance`.

    The network sees the scaled u_t and log s; `prediction` states how its output is read. s is continuous, so `denoise`
    takes any sigma, whatever the steps of the chain.

    Arguments:
        image_shape: (C, H, W); H and W may be None for a prior of images of any size.
        betas: "linear", "cosine" or "geometric"; see `chain`.
        steps: T, the length of the chain, at least 2.
        data_std: standard deviation of the pixels of u (0.5 for photographs, Karras et al.).
        prediction: what the network predicts: "karras", by Karras' preconditioning u at high noise and eps at low
            noise; "velocity", u - eps as in flow matching; see `predictions`.
        classes: number of class labels, 0 for none; the `label` of `denoise` and `sample` conditions on one.
        edges: show the network each value's distance from black and from white, in multiples of the noise: for images
            with much of either, such as digits, whose bound then counts their black as known.
        widths, blocks, patch: see `UNet`.
        features: channels that the network sees besides x_t, such as a measurement; see `priors.amortized`.
        residuals: form of the measured `posterior_covariance`, see `fit_covariance`; None if none was measured.

    Raises:
        ValueError: an argument is not as described.
    """

    decoder_variance: Tensor

    def __init__(
        self,
        image_shape: OpenShape,
        *,
        betas: str = "linear",
        steps: int = 1000,
        data_std: float = 0.5,
        prediction: str = "karras",
        classes: int = 0,
        edges: bool = False,
        widths: tuple[int, ...] = (64, 128, 192, 192),
        blocks: int = 2,
        patch: int = 2,
        features: int = 0,
        residuals: str | None = None,
    ):
        super().__init__()
        self.config = as_config(locals())
        check_arguments(locals(), image_shape=OPEN_SHAPE, steps=STEPS, data_std=POSITIVE, classes=IF_ANY)
        check_arguments(locals(), widths=COUNTS, blocks=WHOLE, patch=COUNT, features=IF_ANY)
        self.image_shape = tuple(image_shape)
        self.classes = classes
        self.data_std = data_std
        self.reading = lookup("prediction", prediction, PREDICTIONS)
        self.edges = edges
        shown = features + (2 * image_shape[0] if edges else 0)
        self.net = UNet(image_shape[0], tuple(widths), blocks, patch, classes=classes, features=shown)
        self.reach, self.multiple = self.net.reach, self.net.multiple
        self.betas = lookup("betas", betas, BETAS)(steps).tolist()
        self.alpha_bars = torch.cumprod(1 - torch.tensor(self.betas, dtype=torch.float64), 0).tolist()
        self.centre = 0.5
        self.spread = UNIT * data_std
        self.sigma_min = UNIT * relative_noise(self.alpha_bars[0])
        self.sigma_max = UNIT * relative_noise(self.alpha_bars[-1])
        # Variance of the bound's decoder p(x | x_1), in squared units of x; `fit_decoder` measures it.
        self.register_buffer("decoder_variance", torch.tensor(self.sigma_min**2))
        if residuals is not None:
            self.residuals = PosteriorCovariance.blank(self.image_shape, residuals)

    def raw(self, u_t: Tensor, s: Tensor, label: Tensor | None = None, features: Tensor | None = None) -> Tensor:
        """The bare network's output F for u_t = u + s n, s (B, 1, 1, 1)."""
        if label is not None and not self.classes:
            raise ValueError("This prior has no classes: leave the label out, or train a prior with classes.")
        if self.classes and label is None:
            label = torch.full((len(u_t),), self.classes, device=u_t.device)
        s = s.clamp_min(1e-6)  # at s = 0, where c_out = 0, any finite F will do
        scale, _, _ = self.reading(s, self.data_std)
        inputs = u_t / scale
        if self.edges:
            inputs = torch.cat([inputs, 4 * ((u_t + 1) / (4 * s)).tanh(), 4 * ((u_t - 1) / (4 * s)).tanh()], dim=1)
        if features is not None:
            inputs = torch.cat([inputs, features], dim=1)
        with autocast(u_t.device, self.autocast):
            return self.net(inputs, 0.25 * s.log().flatten(), label)

    def skip_and_out(self, s: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out in u_hat = c_skip u_t + c_out F."""
        _, c_skip, c_out = self.reading(s, self.data_std)
        return c_skip, c_out

    def denoise(
        self,
        x_t: Tensor,
        sigma: float | Tensor,
        label: Tensor | None = None,
        guidance: float = 1.0,
        features: Tensor | None = None,
    ) -> Tensor:
        """E[x | x_t] for x_t = x + sigma n, x_t (B, C, H, W), sigma a float or (B, 1, 1, 1), label (B,) or None.

        With `features`, (B, features, H, W), it is E[x | x_t, features].

        Guidance w other than 1 gives D(x_t) + w (D(x_t | label) - D(x_t)) instead: for w > 1, images more typical of
        the label than those of p(x | label), but no longer the expectation under any one law.
        """
        if label is not None and guidance != 1:
            free = self.denoise(x_t, sigma, features=features)
            return free + guidance * (self.denoise(x_t, sigma, label, features=features) - free)
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        c_skip, c_out = self.skip_and_out(s)
        # Below sigma_min the network was not trained, so it is told sigma_min; c_out takes x_hat to x_t.
        known = s.clamp_min(self.sigma_min / UNIT)
        u_hat = c_skip * u_t + c_out * self.raw(u_t, known, label, features).to(u_t.dtype)
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
        label: int | str | None = None,
        guidance: float = 1.0,
        progress: bool = False,
    ) -> Tensor:
        """n draws by the reverse chain z_T -> z_0, (n, C, H, W).

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            steps: use this many of the T steps, evenly spaced; None for all.
            variance: of each step: "posterior" (beta-tilde, the default), "forward" (beta), or "constant-weight", which
                makes the bound's weights constant but collapses the samples: for teaching only.
            label: class label, 0 to classes - 1, or a name; None for images of any class.
            guidance: of the label, see `denoise`.
            progress: show a progress bar.

        Raises:
            ValueError: this prior does not have that size, label, variance or number of steps, or the guidance is no
                number.
        """
        check_arguments(locals(), guidance=NUMBER)
        if label is not None:
            label = number_of(self, label)
        weight = next(self.parameters())
        noise = Noise.of_draws(n, seed)
        z = noise(weight.new_empty(n, *shape_of_draws(self.image_shape, size)))
        labels = None if label is None else torch.full((n,), label, device=weight.device)
        return ancestral_chain(
            lambda x_t, sigma: self.denoise(x_t, sigma, labels, guidance),
            z,
            respaced(self.alpha_bars, steps),
            noise,
            lookup("variance", variance, VARIANCES),
            self.centre,
            progress,
        )

    @torch.no_grad()
    def elbo(
        self, x: Tensor, label: Tensor | None = None, *, seed: int = 0, terms: int = 64, progress: bool = False
    ) -> Tensor:
        """A lower bound on ln p(x), given labels (B,) on ln p(x | label), in nats, (B,): see `chain_elbo`.

        The density is in the units of x.

        p is the law of x under the hierarchy x_T -> … -> x_1 -> x over the levels below, not the law of the draws of
        `sample`, whose chain has other levels and no noise in its last step.

        The decoder is N(x_hat(x_1), v I) with the measured variance v = `decoder_variance`. The T levels are evenly
        spaced in ln sigma from sigma_min to sigma_max: with those of the linear betas, whose last steps are coarse, the
        bound stays 0.29 nats per value below ln p(x), however large T is. `terms` terms, stratified over the levels,
        estimate the sum over T without bias; `progress` shows a bar over them.
        """
        return self._bound(x, gaussian_decoder(self.decoder_variance), seed, terms, label, progress)

    @torch.no_grad()
    def elbo_8bit(self, x: Tensor, *, seed: int = 0, terms: int = 64, progress: bool = False) -> Tensor:
        """A lower bound on ln P(x) + D ln 256 in nats, (B,), for 8-bit x: `elbo` with its decoder discretised.

        This bounds the log-density of dequantised images, see `bits`, and so is comparable with other priors.
        """
        return self._bound(x, grey_level_decoder(self.decoder_variance), seed, terms, None, progress)

    def flow_log_prob(
        self, x: Tensor, label: Tensor | None = None, *, seed: int = 0, steps: int = 100, probes: int = 4
    ) -> FlowDensity:
        """ln p(x), given labels (B,) ln p(x | label), of images with sigma_min noise, by the probability flow.

        See `probability_flow.flow_log_prob` for the arguments and the errors.
        """
        return flow_log_prob(self, x, label, seed=seed, steps=steps, probes=probes)

    def flow_bound_8bit(self, x: Tensor, *, seed: int = 0, steps: int = 100) -> Tensor:
        """A lower bound on ln P(x) + D ln 256 in nats, (B,), as `elbo_8bit`, but with the flow's density.

        ln P(x) >= E [ln p(x_1) + ln P(x | x_1) - ln N(x_1; x, sigma_min^2 I)], x_1 = x + sigma_min n, from one draw.
        """
        n = Noise(seed, torch.arange(len(x)))(x)
        x_1 = x + self.sigma_min * n
        with torch.no_grad():
            decoder = grey_level_decoder(self.decoder_variance)(x, self.denoise(x_1, self.sigma_min))
        proposal = gaussian_decoder(self.sigma_min**2)(x_1, x)
        return flow_estimates(self, x_1, None, seed, steps, probes=1)[0] + decoder - proposal

    @torch.no_grad()
    def fit_decoder(self, x: Tensor, *, seed: int = 0) -> None:
        """Set the decoder's variance to its maximum-likelihood value on x: the mean squared error at sigma_min."""
        x = x.to(self.decoder_variance)
        x_1 = x + self.sigma_min * Noise(seed, torch.arange(len(x)))(x)
        self.decoder_variance.fill_((self.denoise(x_1, self.sigma_min) - x).square().mean())

    def calibrate(self, x: Tensor, *, seed: int = 0) -> None:
        """Measure what training does not determine, on images (N, C, H, W) that the prior was not trained on.

        This is the variance of the decoder and the posterior covariance, for which see also `fit_covariance`. The
        covariance is measured along the principal axes of images of one size that have at most 1024 values, and no more
        than there are images; as stationary for others.
        """
        self.fit_decoder(x, seed=seed)
        axes = x[0].numel() <= min(len(x), LARGEST_FULL) and None not in self.image_shape
        self.fit_covariance(x, "full" if axes else "stationary", seed=seed)

    def fit_covariance(
        self, images: Tensor, form: str = "stationary", *, inflation: float = 1.0, seed: int = 0
    ) -> None:
        super().fit_covariance(images, form, inflation=inflation, seed=seed)
        self.config["residuals"] = form

    def with_classes(self, classes: int, image_shape: OpenShape, *, seed: int = 0) -> "DDPM":
        """Return a prior with labels, of images (C, H, W), to train on; until then it equals this one, without a label.

        The embeddings of the labels are random, so that the network soon tells them apart; that of no label is zero.
        The measured posterior covariance is left out, and its inflation with it.

        Raises:
            ValueError: this prior has classes already.
        """
        if self.classes:
            raise ValueError(f"This prior has {self.classes} classes already: train it on as it is.")
        prior = DDPM(**self.config | {"image_shape": image_shape, "classes": classes, "residuals": None})
        prior.to(next(self.parameters())).load_state_dict(self.state_dict(), strict=False)
        embeddings = prior.get_parameter("net.label.weight").detach()
        embeddings[:classes] = EMBEDDED * Noise.of_draws(classes, seed)(embeddings[:classes])
        embeddings[classes] = 0
        return prior

    def given(self, label: int | str, guidance: float = 1.0) -> Given | Guided:
        """Return p(x | label), itself a prior; for guidance other than 1, see `denoise`."""
        return Given(self, label) if guidance == 1 else Guided(self, label, guidance)

    def _bound(
        self,
        x: Tensor,
        decoder: Callable[[Tensor, Tensor], Tensor],
        seed: int,
        terms: int,
        label: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        T = len(self.alpha_bars)
        ratio = self.sigma_max / self.sigma_min
        sigmas = [self.sigma_min * ratio ** (t / (T - 1)) for t in range(T)]
        prior_variance = UNIT**2 / self.alpha_bars[-1]  # z_T ~ N(0, I), converted to the units of x
        denoise = partial(self.denoise, label=label)
        given = {"seed": seed, "terms": terms, "progress": progress}
        return chain_elbo(denoise, x, sigmas, self.centre, prior_variance, decoder, **given)
