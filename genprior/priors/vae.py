"""The variational autoencoder: a Gaussian latent decoded to the mean of an image, with one variance for all values.

Notation: z ~ N(0, I) the latent, G(z) the decoder's mean, v its variance, D = C H W; q(z | x) = N(mean, diag(sd^2)) the
encoder; eps ~ N(0, I) the noise of the draw z = mean + sd eps from it. The networks see x in multiples of `spread` from
`centre`, and the class label where there are classes.

References: D. Kingma, M. Welling, Auto-encoding variational Bayes, 2014. D. Rezende, S. Mohamed, D. Wierstra,
Stochastic backpropagation and approximate inference in deep generative models, 2014. Y. Burda, R. Grosse,
R. Salakhutdinov, Importance weighted autoencoders, 2016. O. Rybkin, K. Daniilidis, S. Levine, Simple and effective VAE
training with calibrated decoders, 2021 (one learned variance). K. Sohn, H. Lee, X. Yan, Learning structured output
representation using deep conditional generative models, 2015 (labels).
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from genprior.checks import COUNT, COUNTS, IF_ANY, OPEN_SHAPE, POSITIVE, OpenShape, Rule, check_arguments, whole
from genprior.linalg import total
from genprior.nets.vae import flat_decoder, flat_encoder, spatial_decoder, spatial_encoder
from genprior.noise import Noise
from genprior.priors.base import as_config, autocast, checked, shape_of_draws
from genprior.priors.labels import EMBEDDING, beside, check_labels, even, labels_of
from genprior.priors.wrappers.given import Classed

LIMIT = 8.0  # bound on |ln sd| of latents: exp(-8) is finer than any image needs, exp(8) coarser
INITIAL_SD = 0.1  # of the decoder, in the units of x
# ln v moves this many times faster than other parameters: an Adam step moves all parameters equally far, and ln v must
# first come all the way from ln INITIAL_SD^2, before anything else can be judged.
PACE = 10.0


class VAE(Classed):
    """Variational autoencoder p(x) = ∫ N(x; G(z), v I) N(z; 0, I) dz: `sample`, `elbo`, `score`, `decode`, `infer`.

    v is one learned number. So for a measurement y = A x + noise n, p(x | z, y) is a Gaussian in the closed form of
    `operator.prox`, and samplers can integrate x out exactly. The likelihood is normalised: the best v is the mean
    squared error of G, and no other constant weighs fidelity against the latents.

    Images of one size have a flat latent; those of any size have a map of latents, (latent, ceil(H / s), ceil(W / s)),
    with the stride s = 2 ** len(widths). Images are padded to a multiple of s by replication before encoding, and
    decoded images are cropped to the size of the prior (see `sized`).

    Arguments:
        image_shape: (C, H, W); H and W may be None for a prior of images of any size.
        latent: number of latents; per cell, for images of any size.
        widths, blocks: channels and residual blocks of each level, finest first; see `genprior.nets.vae`.
        spread: root mean square deviation of a value of x from 0.5 (0.25 for photographs).
        skip: whether layers that see a whole image, of one size, have a linear path beside the non-linear one. With it
            `vae-flowers` has 0.3 bits/dim fewer; `vae-mnist` has 0.04 fewer without.
        classes: number of class labels, 0 for none. With classes, p(x) = sum_k w_k p(x | k) has `sample` only; all
            other methods need `given`, or the argument `label`, (B,).

    Raises:
        ValueError: an argument is not as described.
    """

    centre = 0.5
    labelled = frozenset({"elbo", "score", "decode", "encode", "infer"})

    def __init__(
        self,
        image_shape: OpenShape,
        *,
        latent: int = 16,
        widths: tuple[int, ...] = (64, 128),
        blocks: tuple[int, ...] = (1, 3),
        spread: float = 0.25,
        skip: bool = True,
        classes: int = 0,
    ):
        super().__init__()
        self.config = as_config(locals())
        each: Rule = (
            lambda numbers: len(numbers) == len(widths) and whole(0, *numbers),
            "a whole number for each of the widths",
        )
        check_arguments(locals(), image_shape=OPEN_SHAPE, latent=COUNT, widths=COUNTS, blocks=each)
        check_arguments(locals(), spread=POSITIVE, classes=IF_ANY)
        self.image_shape = tuple(image_shape)
        self.latent, self.spread, self.classes = latent, spread, classes
        self.stride = 2 ** len(widths)
        self.flat = None not in image_shape
        beyond = EMBEDDING if classes else 0  # channels that encode the label
        channels, levels = image_shape[0], (tuple(widths), tuple(blocks))
        if self.flat:
            cells = tuple(math.ceil(a / self.stride) for a in image_shape[1:])
            self.encoder = flat_encoder(channels + beyond, latent, *levels, cells, skip)
            self.decoder = flat_decoder(channels, latent + beyond, *levels, cells, skip)
        else:
            self.encoder = spatial_encoder(channels + beyond, latent, *levels)
            self.decoder = spatial_decoder(channels, latent + beyond, *levels)
        if classes:
            self.embed = nn.Embedding(classes, EMBEDDING)
            self.register_buffer("class_weights", even(classes))
        self.slow_log_variance = nn.Parameter(torch.tensor(2 * math.log(INITIAL_SD) / PACE))

    @property
    def latent_shape(self) -> OpenShape:
        """Shape of one z: (d,), or (d, rows, columns), with None where the image has any size."""
        if self.flat:
            return (self.latent,)
        return (self.latent, *(None if a is None else math.ceil(a / self.stride) for a in self.image_shape[1:]))

    @property
    def decoder_variance(self) -> Tensor:
        """v, in squared units of x."""
        return (PACE * self.slow_log_variance).exp()

    @torch.no_grad()
    def sample(
        self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None, label: int | str | None = None
    ) -> Tensor:
        """n draws from p(x), x = G(z) + sqrt(v) eps with z ~ N(0, I), (n, C, H, W).

        This is the law that `elbo` bounds, including the grain; `decode(z)` is its mean given z, without the grain.

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), needed where the prior's images have any size.
            label: class label, 0 to classes - 1, or a name; None for draws from p(x).

        Raises:
            ValueError: this prior does not have that size or label.
        """
        prior = self.sized(*shape_of_draws(self.image_shape, size)[1:])
        noise = Noise.of_draws(n, seed)
        labels = labels_of(self, label, noise)
        mean = prior.decode(noise(self.slow_log_variance.new_empty(n, *prior.latent_shape)), labels)
        return mean + self.decoder_variance.sqrt() * noise(mean)

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean G(z) of p(x | z), (B, *latent_shape) -> (B, C, H, W); differentiable; label (B,) with classes.

        For a prior of images of any size, each row and column of z gives s pixels.
        """
        z = checked(self, z, self.latent_shape)
        told = self._told(label)
        with autocast(z.device, self.autocast):
            u = self.decoder(beside(z, told))
        height, width = self.image_shape[1:]
        return self.centre + self.spread * u[..., :height, :width].to(z.dtype)

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """The mean of q(z | x), (B, C, H, W) -> (B, *latent_shape)."""
        return self.infer(x, label)[0]

    def infer(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of q(z | x), each (B, *latent_shape); ln sd lies within ±8."""
        u = (checked(self, x) - self.centre) / self.spread
        height, width = x.shape[-2:]
        u = F.pad(u, (0, -width % self.stride, 0, -height % self.stride), mode="replicate")
        told = self._told(label)
        with autocast(x.device, self.autocast):
            numbers = self.encoder(beside(u, told))
        mean, raw = numbers.to(x.dtype).chunk(2, dim=1)
        log_sd = LIMIT * (raw / LIMIT).tanh()
        return mean, log_sd.exp()

    def log_likelihood(self, x: Tensor, z: Tensor, label: Tensor | None = None) -> Tensor:
        """ln p(x | z) = -|x - G(z)|^2 / (2 v) - D/2 ln(2 pi v), in nats, (B,)."""
        v = self.decoder_variance
        squared_error = (x - self.sized(*x.shape[-2:]).decode(z, label)).square().flatten(1).sum(1)
        return -squared_error / (2 * v) - x[0].numel() / 2 * (2 * math.pi * v).log()

    def terms(self, x: Tensor, noise: Noise, draws: int = 1, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """E_q ln p(x | z), estimated by the mean of `draws` draws, and KL(q(z | x) || N(0, I)), in nats, each (B,)."""
        mean, sd = self.infer(x, label)
        likelihoods = [self.log_likelihood(x, mean + sd * noise(mean), label) for _ in range(draws)]
        return total(likelihoods) / draws, divergence(mean, sd)

    def elbo(self, x: Tensor, label: Tensor | None = None, *, seed: int = 0, draws: int = 1) -> Tensor:
        """E_q ln p(x | z) - KL(q(z | x) || N(0, I)) <= ln p(x), in nats, (B,); differentiable.

        With classes, p and q are conditioned on the label, and the bound is on ln p(x | label).

        Arguments:
            x: (B, C, H, W); the density is in the units of x.
            label: (B,), with classes.
            seed: keys the draws of z, by row.
            draws: number of draws of z that the first term is averaged over; the second is exact.

        Raises:
            ValueError: the images have another shape than the prior's, or draws is below 1.
        """
        if draws < 1:
            raise ValueError(f"draws is {draws}: give a whole number, at least 1.")
        likelihood, kl = self.terms(x, Noise(seed, torch.arange(len(x))), draws, label)
        return likelihood - kl

    @torch.no_grad()
    def iwae(self, x: Tensor, k: int, label: Tensor | None = None, *, seed: int = 0, rows: int = 1024) -> Tensor:
        """The importance-weighted bound ln 1/k sum_j p(x, z_j) / q(z_j | x) with z_j ~ q(z | x), in nats, (B,).

        Its mean equals that of `elbo` for k = 1, and grows with k towards ln p(x) (Burda et al.).

        Arguments:
            x: (B, C, H, W); the density is in the units of x.
            k: number of draws of z per image.
            label: (B,), with classes.
            seed: keys the draws, by row and j.
            rows: how many draws to decode at once, over all images; affects memory only.

        Raises:
            ValueError: the images have another shape than the prior's, or k is below 1.
        """
        if k < 1:
            raise ValueError(f"k is {k}: give a whole number, at least 1.")
        mean, sd = self.infer(x, label)
        total = mean.new_full((len(x),), -math.inf)
        at_once = max(1, rows // len(x))
        for j in range(0, k, at_once):
            n = min(at_once, k - j)
            noise = Noise(seed, torch.arange(len(x)).repeat_interleave(n), torch.arange(j, j + n).repeat(len(x)))
            x_j, mean_j, sd_j = (a.repeat_interleave(n, 0) for a in (x, mean, sd))
            eps = noise(mean_j)
            z = mean_j + sd_j * eps
            ratio = (sd_j.log() + (eps**2 - z**2) / 2).flatten(1).sum(1)  # ln p(z) - ln q(z | x)
            label_j = None if label is None else label.repeat_interleave(n, 0)
            log_weights = self.log_likelihood(x_j, z, label_j) + ratio
            total = torch.logaddexp(total, rearrange(log_weights, "(b n) -> b n", n=n).logsumexp(1))
        return total - math.log(k)

    def score(self, x: Tensor, label: Tensor | None = None, *, seed: int = 0, draws: int = 1) -> Tensor:
        """The gradient of `elbo` in x at fixed noise, shaped like x: that of the bound, not of ln p(x)."""
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            return torch.autograd.grad(self.elbo(x, label, seed=seed, draws=draws).sum(), x)[0]

    def _told(self, label: Tensor | None) -> Tensor | None:
        check_labels(self, label)
        return None if label is None else self.embed(label)


def divergence(mean: Tensor, sd: Tensor) -> Tensor:
    """KL(N(mean, diag(sd^2)) || N(0, I)) = 1/2 sum (mean^2 + sd^2 - 1 - ln sd^2), in nats, (B,)."""
    return (mean**2 + sd**2 - 1 - 2 * sd.log()).flatten(1).sum(1) / 2
