"""The two objectives of adversarial training, one optimiser step each, in turn: discriminator, then generator.

Notation: f the generator; z ~ N(0, I); l(x) the discriminator's logit, d(x) = 1 / (1 + exp(-l(x))) its probability
that x is real. With softplus(a) = ln(1 + e^a),  -ln d = softplus(-l)  and  -ln(1 - d) = softplus(l),  which never
take the logarithm of 0. Where a batch has labels, both networks are told them: f(z | label), l(x, label).

Each objective has the parameters that it trains and no others. It reaches the other network through a tuple, in which
torch does not look for parameters; no gradient passes to that network, and its `requires_grad` is left alone.

References: I. Goodfellow et al., Generative adversarial networks, 2014. L. Mescheder, A. Geiger, S. Nowozin, Which
training methods for GANs do actually converge?, 2018 (the penalty R1). T. Karras et al., Analyzing and improving the
image quality of StyleGAN, 2020 (R1 at some of the steps only).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.ambient import deliberate
from genprior.noise import Noise
from genprior.priors.base import Prior

DISCRIMINATOR, GENERATOR = 0, 1  # whose latents: the `sample` number of their noise
REAL, FAKE, JUDGED = 2, 3, 4  # the same of what images are varied with: the discriminator's two, the generator's

Augment = Callable[[Tensor, Noise], Tensor]


def as_they_are(x: Tensor, noise: Noise) -> Tensor:
    return x


def gan(
    prior: Prior, discriminator: nn.Module, *, seed: int = 0, gamma: float = 0.25, augment: Augment = as_they_are
) -> list[nn.Module]:
    """The objectives of a GAN, in turn; for the arguments see `DiscriminatorLoss`."""
    return [
        DiscriminatorLoss(prior, discriminator, seed=seed, gamma=gamma, augment=augment),
        GeneratorLoss(prior, discriminator, seed=seed, augment=augment),
    ]


class DiscriminatorLoss(nn.Module):
    """-ln(1 - d(f(z))) - ln d(x), no gradient to f, and the penalty R1 = gamma/2 |grad_x l(x)|^2 on real images.

    At the best discriminator the loss without the penalty is 2 ln 2 - 2 JS(data, generated), JS in nats. R1 is added at
    every `every`-th step, `every` times as strong, in training mode only.

    Arguments:
        prior: one with `decode`, whose images the discriminator tells from real ones.
        discriminator: images (B, C, H, W) -> logits (B,); trained.
        seed: keys the latents, with the items.
        gamma: weight of the penalty; the gradient is with respect to x in its own units, so a gamma of images in
            [-1, 1] is a quarter of it here.
        every: steps from one penalty to the next.
        augment: the augmentation of images for the discriminator, see `augmentation`; none by default.
    """

    def __init__(
        self,
        prior: Prior,
        discriminator: nn.Module,
        *,
        seed: int = 0,
        gamma: float = 0.25,
        every: int = 4,
        augment: Augment = as_they_are,
    ):
        super().__init__()
        self.discriminator = discriminator
        self.unregistered = (prior,)
        self.seed, self.gamma, self.every, self.augment = seed, gamma, every, augment

    @deliberate
    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        (prior,) = self.unregistered
        penalised = self.training and (step + 1) % self.every == 0
        x = batch["x"].detach().requires_grad_(penalised)  # detached: the batch's own tensor stays as it is
        with torch.no_grad():
            fake = prior.decode(latents(prior, batch, self.seed, DISCRIMINATOR), *labels(batch))
        shown = self.augment(x, keyed(batch, self.seed, REAL))
        fake = self.augment(fake, keyed(batch, self.seed, FAKE))
        logit = self.discriminator(shown, *labels(batch)).float()
        loss = F.softplus(self.discriminator(fake, *labels(batch)).float()).mean() + F.softplus(-logit).mean()
        logs = {"discriminator": loss.detach()}
        if penalised:
            penalty = self.gamma / 2 * squared_gradient(logit, x).mean()
            loss = loss + self.every * penalty
            logs["penalty"] = penalty.detach()
        return loss, logs


class GeneratorLoss(nn.Module):
    """-ln d(f(z)), no gradient to d: the non-saturating replacement of ln(1 - d(f(z))).

    Arguments:
        prior: one with `decode`, to train.
        discriminator: images (B, C, H, W) -> logits (B,); the one that `DiscriminatorLoss` trains.
        seed: keys the latents, with the items; they are others than the discriminator's.
        augment: that of `DiscriminatorLoss`.
    """

    def __init__(self, prior: Prior, discriminator: nn.Module, *, seed: int = 0, augment: Augment = as_they_are):
        super().__init__()
        self.prior = prior
        self.unregistered = (discriminator,)
        self.seed, self.augment = seed, augment

    @deliberate
    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        (discriminator,) = self.unregistered
        fake = self.prior.decode(latents(self.prior, batch, self.seed, GENERATOR), *labels(batch))
        fake = self.augment(fake, keyed(batch, self.seed, JUDGED))
        frozen = {name: parameter.detach() for name, parameter in discriminator.named_parameters()}
        logit = torch.func.functional_call(discriminator, frozen, (fake, *labels(batch))).float()
        loss = F.softplus(-logit).mean()
        return loss, {"generator": loss.detach()}


def latents(prior: Prior, batch: dict[str, Tensor], seed: int, whose: int) -> Tensor:
    """z ~ N(0, I), one per item of the batch and a function of (seed, item, whose), (B, d)."""
    x = batch["x"]
    return keyed(batch, seed, whose)(x.new_empty(len(x), *prior.latent_shape))


def keyed(batch: dict[str, Tensor], seed: int, whose: int) -> Noise:
    """Noise that is a function of (seed, item, whose)."""
    return Noise(seed, batch["item"], torch.full_like(batch["item"], whose))


def labels(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """The labels of a batch that has some, as a last argument of networks that are told them."""
    return (batch["label"],) if "label" in batch else ()


def squared_gradient(logit: Tensor, x: Tensor) -> Tensor:
    """|grad_x l(x)|^2, (B,), through which gradients flow; of a batch whose rows are coupled, of their sum."""
    (gradient,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)
