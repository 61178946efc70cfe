"""The normalizing flow: an invertible network from images to white noise, which gives their exact density.

Notation: z = h(x) the latent, u the image on the flow's own scale (see `genprior.nets.pixels`), D = C H W; k a class
label, w_k its weight.

References: L. Dinh, J. Sohl-Dickstein, S. Bengio, Density estimation using Real NVP, 2017. D. Kingma, P. Dhariwal,
Glow: generative flow with invertible 1x1 convolutions, 2018. P. Izmailov, P. Kirichenko, M. Finzi, A. Wilson,
Semi-supervised learning with normalizing flows, 2020 (a Gaussian for each class in the space of one flow).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from genprior.checks import COUNT, COUNTS, IF_ANY, POSITIVE, SHAPE, WHOLE, Rule, Shape, check_arguments, whole
from genprior.nets.coupling import ActNorm, Coupling, Mixing, PerClass, Squeeze, full_precision
from genprior.nets.pixels import PIXELS, Ink
from genprior.priors.base import as_config, checked
from genprior.priors.labels import check_labels, even, mixed
from genprior.priors.wrappers.given import Classed
from genprior.registry import lookup


def log_density(z: Tensor, logdet: Tensor) -> Tensor:
    """ln p(x) = ln N(z; 0, I) + logdet in nats, (B,), from z = h(x) (B, D) and logdet = ln |det dh / dx|."""
    return logdet - 0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


class Flow(Classed):
    """Multi-scale flow of affine couplings: `sample`, `log_prob`, `energy`, `score`, `decode`, `encode`.

        z = h(x), z ~ N(0, I),
        ln p(x) = ln N(h(x); 0, I) + ln |det dh / dx|.

    At each scale, blocks of pixels become channels, followed by steps of actnorm, 1x1 convolution and affine coupling.
    Then half of the channels leave: those that the last coupling scaled and shifted as functions of the others. The
    others continue to the next scale. z concatenates the channels that end at each scale.

    With classes, each class has its own Gaussian of latents, and all classes share the rest of the flow:

        p(x | k):  z = (h(x) - m_k) / s_k,    p(x) = sum_k w_k p(x | k),

    where p(x), too, costs one pass. `decode` and `encode`, for z ~ N(0, I), need a class.

    All methods compute in the precision of x, whatever `autocast` is, because a density and an inverse need it. Only in
    `forward`, for training, do the networks of the couplings follow a surrounding autocast.

    Arguments:
        image_shape: (C, H, W).
        widths: of the couplings' networks at each scale.
        steps: number of steps at each scale, one number per width.
        blocks: residual blocks of each network.
        squeeze: side of the blocks of pixels that become channels, at each scale whose sides are multiples of it.
        bound: largest log-scale of a coupling.
        pixels: "logit", for images in [0, 1]; "ink", for 8-bit images in [0, 1] with much exact black, such as digits;
            "linear", for images with values beyond [0, 1]. Outside [0, 1], apart from a margin of about 1e-5 at most,
            the first two have log_prob = -inf, and no score or encode (nan).
        spread: see `Prior`, in the units of x.
        classes: number of class labels, 0 for none.

    Raises:
        ValueError: an argument is not as described.
    """

    decoder_variance = 0.0
    labelled = frozenset({"decode", "encode"})

    def __init__(
        self,
        image_shape: Shape,
        *,
        widths: tuple[int, ...] = (32, 64),
        steps: tuple[int, ...] = (8, 4),
        blocks: int = 1,
        squeeze: int = 2,
        bound: float = 2.0,
        pixels: str = "logit",
        spread: float = 0.3,
        classes: int = 0,
    ):
        super().__init__()
        self.config = as_config(locals())
        each: Rule = (
            lambda numbers: len(numbers) == len(widths) and whole(1, *numbers),
            "as many whole numbers as widths, at least 1",
        )
        check_arguments(locals(), image_shape=SHAPE, widths=COUNTS, steps=each, blocks=WHOLE, squeeze=COUNT)
        check_arguments(locals(), bound=POSITIVE, spread=POSITIVE, classes=IF_ANY)
        self.image_shape = tuple(image_shape)
        self.latent_shape = (math.prod(image_shape),)
        self.centre = 0.5
        self.spread = spread
        self.pixels: Any = lookup("pixels", pixels, PIXELS)()
        self.bounded = self.pixels.high < math.inf
        self.scales = nn.ModuleList()
        self.parts: list[Shape] = []  # shapes of the parts of z that leave at each scale
        channels, height, width = image_shape
        for k in range(len(widths)):
            layers = []
            if squeeze > 1 and height % squeeze == width % squeeze == 0:
                layers.append(Squeeze(squeeze))
                channels, height, width = channels * squeeze**2, height // squeeze, width // squeeze
            if channels < 2:
                raise ValueError(
                    f"A coupling needs at least 2 channels, but images of {tuple(image_shape)} have {channels} at "
                    f"scale {k}: give fewer widths, or sides that are multiples of squeeze={squeeze}."
                )
            for _ in range(steps[k]):
                coupling = Coupling(channels, (height, width), widths[k], blocks, bound)
                layers += [ActNorm(channels), Mixing(channels), coupling]
            self.scales.append(nn.ModuleList(layers))
            done = channels // 2 if k < len(widths) - 1 else channels
            self.parts.append((done, height, width))
            channels -= done
        self.classes = classes
        if classes:
            self.base = PerClass(classes, *self.latent_shape)
            self.register_buffer("class_weights", even(classes))

    def forward(self, x: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """z = h(x), or given labels (B,) z = (h(x) - m_k) / s_k, (B, D); and ln |det dz / dx|, (B,)."""
        check_labels(self, label)
        z, logdet = self._transform(x)
        if label is None:
            return z, logdet
        z, change = self.base(z, label)
        return z, logdet + change

    def _transform(self, x: Tensor) -> tuple[Tensor, Tensor]:
        u, logdet = self.pixels(x)
        done = []
        for layers, part in zip(self.scales, self.parts):
            for layer in layers.children():
                u, change = layer(u)
                logdet = logdet + change
            done.append(u[:, : part[0]].flatten(1))
            u = u[:, part[0] :]
        return torch.cat(done, dim=1), logdet

    def inverse(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """x = h^-1(z), given labels (B,) if there are classes, (B, C, H, W)."""
        check_labels(self, label)
        if label is not None:
            z = self.base.inverse(z, label)
        done = z.split([math.prod(part) for part in self.parts], dim=1)
        u = None
        for layers, part, own in zip(reversed(self.scales), reversed(self.parts), reversed(done)):
            own = own.unflatten(1, part)
            u = own if u is None else torch.cat([own, u], dim=1)
            for layer in reversed([*layers.children()]):
                u = layer.inverse(u)  # pyright: ignore[reportCallIssue]
        return self.pixels.inverse(u)

    @torch.no_grad()
    def initialise(self, x: Tensor, *, whiten: bool = False) -> None:
        """Set the layers that have statistics to those of x, before training.

        Arguments:
            x: dequantised images, (B, C, H, W); a few hundred.
            whiten: begin with white channels, for small patches of photographs, whose pixels are alike.
        """
        if isinstance(self.pixels, Ink):
            self.pixels.fit(x)
        u, _ = self.pixels(x)
        for layers, part in zip(self.scales, self.parts):
            for layer in layers.children():
                if isinstance(layer, ActNorm) or (whiten and isinstance(layer, Mixing)):
                    layer.fit(u)
                u, _ = layer(u)
            u = u[:, part[0] :]

    def log_prob(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """ln p(x), given labels (B,) ln p(x | label), in nats, exact, (B,).

        -inf where a pixel of an image lies outside the domain of p.
        """
        x = checked(self, x)
        with full_precision(x):
            inside = ((x > self.pixels.low) & (x < self.pixels.high)).flatten(1).all(1)
            marginal = self.classes > 0 and label is None
            density = self._marginal(x) if marginal else log_density(*self(x, label))
            return torch.where(inside, density, -math.inf)

    def _marginal(self, x: Tensor) -> Tensor:
        """ln sum_k w_k p(x | k), (B,)."""
        u, logdet = self._transform(x)
        each = torch.arange(self.classes, device=x.device)
        densities = [log_density(z, logdet + change) for z, change in (self.base(u, k[None]) for k in each)]
        return mixed(torch.stack(densities, dim=1), self.class_weights)

    def score(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """grad_x ln p(x), given labels (B,) grad_x ln p(x | label), (B, C, H, W)."""
        with torch.enable_grad(), full_precision(x):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_prob(x, label).sum(), x)
        return gradient

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """x = h^-1(z), (B, D) -> (B, C, H, W); differentiable."""
        z = checked(self, z, self.latent_shape)
        with full_precision(z):
            return self.inverse(z, label)

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """z = h(x), (B, C, H, W) -> (B, D); differentiable."""
        x = checked(self, x)
        with full_precision(x):
            return self(x, label)[0]
