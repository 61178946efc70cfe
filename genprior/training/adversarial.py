"""The two objectives of adversarial training, one optimiser step each, in turn: discriminator, generator.

Notation: f the generator; z ~ N(0, I); l(x) the discriminator's logit, d(x) = 1 / (1 + exp(-l(x))) its probability
that x is real. With softplus(a) = ln(1 + e^a),  -ln d = softplus(-l)  and  -ln(1 - d) = softplus(l),  which never
take the logarithm of 0. If a batch has labels, both networks receive them: f(z | label), l(x, label).

Each objective registers only the parameters it trains. It reaches the other network through a tuple, which torch does
not search for parameters; no gradient reaches that network, and its `requires_grad` stays unchanged.

References: I. Goodfellow et al., Generative adversarial networks, 2014. L. Mescheder, A. Geiger, S. Nowozin, Which
training methods for GANs do actually converge?, 2018 (the R1 penalty). T. Karras et al., Analyzing and improving the
image quality of StyleGAN, 2020 (R1 at some steps only).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.ambient import deliberate
from genprior.noise import Noise
from genprior.priors.base import Prior

DISCRIMINATOR, GENERATOR = 0, 1  # `sample` numbers of the noise of each network's latents
REAL, FAKE, JUDGED = 2, 3, 4  # `sample` numbers of the augmentations: two of the discriminator, one of the generator

Augment = Callable[[Tensor, Noise], Tensor]


def as_they_are(x: Tensor, noise: Noise) -> Tensor:
    return x


def gan(
    prior: Prior, discriminator: nn.Module, *, seed: int = 0, gamma: float = 0.25, augment: Augment = as_they_are
) -> list[nn.Module]:
    """Return the objectives of a GAN, in order; for the arguments see `DiscriminatorLoss`."""
    return [
        DiscriminatorLoss(prior, discriminator, seed=seed, gamma=gamma, augment=augment),
        GeneratorLoss(prior, discriminator, seed=seed, augment=augment),
    ]


class DiscriminatorLoss(nn.Module):
    """-ln(1 - d(f(z))) - ln d(x), no gradient to f, plus the penalty R1 = gamma/2 |grad_x l(x)|^2 on real images.

    For the optimal discriminator, the loss without the penalty is 2 ln 2 - 2 JS(data, generated), JS in nats. R1 is
    added at every `every`-th step, multiplied by `every`, in training mode only.

    Arguments:
        prior: one with `decode`; the discriminator learns to tell its images from real ones.
        discriminator: images (B, C, H, W) -> logits (B,); trained.
        seed: keys the latents, together with the items.
        gamma: weight of the penalty; the gradient is with respect to x in its own units, so divide by 4 a gamma that
            was chosen for images in [-1, 1].
        every: steps from one penalty to the next.
        augment: augmentation of the discriminator's images, see `augmentation`; none by default.
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
        x = batch["x"].detach().requires_grad_(penalised)  # detached: the batch's own tensor stays unchanged
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
    """-ln d(f(z)), no gradient to d: the non-saturating replacement for ln(1 - d(f(z))).

    Arguments:
        prior: one with `decode`; trained.
        discriminator: images (B, C, H, W) -> logits (B,); the one that `DiscriminatorLoss` trains.
        seed: keys the latents, together with the items; they differ from the discriminator's.
        augment: as for `DiscriminatorLoss`.
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
    """Draw z ~ N(0, I), one per item of the batch, as a function of (seed, item, whose), (B, d)."""
    x = batch["x"]
    return keyed(batch, seed, whose)(x.new_empty(len(x), *prior.latent_shape))


def keyed(batch: dict[str, Tensor], seed: int, whose: int) -> Noise:
    """Noise that is a function of (seed, item, whose)."""
    return Noise(seed, batch["item"], torch.full_like(batch["item"], whose))


def labels(batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """Return the batch's labels, if any, as the last argument of conditional networks."""
    return (batch["label"],) if "label" in batch else ()


def squared_gradient(logit: Tensor, x: Tensor) -> Tensor:
    """Return |grad_x l(x)|^2, (B,), differentiable; if the batch's rows are coupled, the gradient is of their sum."""
    (gradient,) = torch.autograd.grad(logit.sum(), x, create_graph=True)
    return gradient.flatten(1).square().sum(1)
