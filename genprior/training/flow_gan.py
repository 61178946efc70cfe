"""Flow-GAN: a flow trained as the generator of a GAN, by likelihood, or by the weighted sum of both losses.

Notation: h the flow, so that x = h^-1(z), z ~ N(0, I), is a generator with a density; l(x) the discriminator's logit,
-ln d = softplus(-l); w the weight. The steps alternate, as in `genprior.training.adversarial`:

    discriminator:  -ln(1 - d(h^-1(z))) - ln d(x),
    flow:           -ln d(h^-1(z)) + w b(x),    b(x) = -ln p(x) / (D ln 2) + 8.

In both, x is a dequantised image: a flow models those, and exact grey levels would give real images away. If a batch
has labels, both networks receive them.

References: A. Grover, M. Dhar, S. Ermon, Flow-GAN: combining maximum likelihood and adversarial learning in generative
models, 2018; their weight multiplies nats per image.
"""

import math

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.flow import Flow
from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
from genprior.training.likelihood import MaximumLikelihood

DEQUANTISATION = 2  # the `sample` number of its noise, distinct from those of both networks' latents


def flow_gan(prior: Flow, discriminator: nn.Module, *, weight: float, seed: int = 0) -> list[nn.Module]:
    """The objectives of a flow, from adversarial training (weight 0) to maximum likelihood (weight inf).

    Arguments:
        prior: the flow to train.
        discriminator: images (B, C, H, W) -> logits (B,).
        weight: of the mean bits per value, relative to the mean of -ln d.
        seed: keys all randomness, together with the items.

    Raises:
        ValueError: the weight is negative or not a number.
    """
    if not weight >= 0:
        raise ValueError(f"weight is {weight!r}: give a number from 0, adversarial alone, to inf, likelihood alone.")
    if weight == math.inf:
        return [MaximumLikelihood(prior, seed=seed)]
    judge = FlowDiscriminatorLoss(prior, discriminator, seed=seed)
    if weight == 0:
        return [judge, GeneratorLoss(prior, discriminator, seed=seed)]
    return [judge, HybridLoss(prior, discriminator, weight, seed=seed)]


class FlowDiscriminatorLoss(nn.Module):
    """`DiscriminatorLoss` on dequantised images, no gradient to the flow; for the arguments see `flow_gan`."""

    def __init__(self, prior: Flow, discriminator: nn.Module, *, seed: int = 0):
        super().__init__()
        self.loss, self.seed = DiscriminatorLoss(prior, discriminator, seed=seed), seed

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        items = batch["item"]
        noise = Noise(self.seed, items, torch.full_like(items, DEQUANTISATION))
        return self.loss(batch | {"x": dequantize(batch["x"], noise)}, step)


class HybridLoss(nn.Module):
    """-ln d(h^-1(z)) + w b(x), no gradient to d; for the arguments see `flow_gan`."""

    def __init__(self, prior: Flow, discriminator: nn.Module, weight: float, *, seed: int = 0):
        super().__init__()
        self.likelihood = MaximumLikelihood(prior, seed=seed)
        self.unregistered = (GeneratorLoss(prior, discriminator, seed=seed),)  # the flow is registered once
        self.weight = weight

    def forward(self, batch: dict[str, Tensor], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        (adversarial,) = self.unregistered
        unlike, logs = adversarial(batch, step)
        bits, _ = self.likelihood(batch, step)
        return unlike + self.weight * bits, logs | {"bits": bits.detach()}
