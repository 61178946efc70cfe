"""What `genprior train` trains, family by family: a prior for the images at hand, its objectives, its settings.

The recipes do the same with figures chosen for their data.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.noise import Noise
from genprior.priors.base import Prior

Shape = tuple[int, int | None, int | None]


@dataclass(frozen=True)
class Plan:
    """How to train one prior: arguments of `genprior.training.loop.train`.

    Attributes:
        prior: new, of random weights.
        objectives: that train it, in this order.
        settings: of `Settings`, where the user does not say.
        preview: from the averaged prior and the number of images and their size (H, W) to images.
        finish: called on the averaged prior and held-out images at the end, or None.
        measure: from the averaged prior and held-out images to numbers to log, such as a PSNR, or None. The validation
            error of a flow is already in bits per value.
    """

    prior: Prior
    objectives: list[nn.Module]
    preview: Callable[[Prior, int, tuple[int, int]], Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    finish: Callable[[Prior, Tensor], None] | None = None
    measure: Callable[[Prior, Tensor], dict[str, float]] | None = None


def plan(family: str, shape: Shape, classes: int, examples: Tensor, seed: int) -> Plan:
    """How to train a prior of that family; torch's global random state stays as it was.

    Arguments:
        family: one of `FAMILIES`.
        shape: (C, H, W) of the images; H and W are None for photographs of any size.
        classes: number of class labels, 0 for none.
        examples: some of the images, (N, C, H, W), or crops of them.
        seed: keys the initial weights and all randomness of the objectives.

    Raises:
        ValueError: there is no such family, or it has no priors of such images or of classes.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}: give one of {', '.join(FAMILIES)}.")
    if classes and family not in CONDITIONAL:
        raise ValueError(f"A {family} has no classes: leave the labels out, or train {' or '.join(CONDITIONAL)}.")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return FAMILIES[family](shape, classes, examples, seed)


def _ddpm(shape: Shape, classes: int, examples: Tensor, seed: int) -> Plan:
    from genprior.priors.ddpm import DDPM
    from genprior.training.objectives import Denoising
    from genprior.training.quality import denoising_psnr

    prior = DDPM(shape, classes=classes)
    return Plan(
        prior,
        [Denoising(prior, seed=seed)],
        lambda prior, n, size: prior.sample(n, size=size, steps=50),
        finish=lambda prior, x: prior.fit_decoder(x),
        measure=denoising_psnr,
    )


def _vae(shape: Shape, classes: int, examples: Tensor, seed: int) -> Plan:
    from genprior.priors.vae import VAE
    from genprior.training.bound import EvidenceBound
    from genprior.training.quality import reconstruction_psnr

    prior = VAE(shape, spread=_spread(examples))
    return Plan(
        prior,
        [EvidenceBound(prior, seed=seed)],
        lambda prior, n, size: prior.sample(n, size=size),
        {"lr": 1e-3},
        measure=reconstruction_psnr,
    )


def _nf(shape: Shape, classes: int, examples: Tensor, seed: int) -> Plan:
    from genprior.priors.flow import Flow
    from genprior.training.likelihood import MaximumLikelihood

    if None in shape:
        return _nf_of_patches(shape, examples, seed)
    mostly_black = bool((examples == 0).float().mean() > 0.5)
    prior = Flow(shape, pixels="ink" if mostly_black else "logit", spread=_spread(examples))
    prior.initialise(_dequantised(examples, seed))
    return Plan(
        prior,
        [MaximumLikelihood(prior, seed=seed)],
        lambda prior, n, size: prior.sample(n),
        {"lr": 1e-3},
    )


def _nf_of_patches(shape: Shape, examples: Tensor, seed: int) -> Plan:
    from genprior.priors.patches import PatchFlow
    from genprior.training.likelihood import PatchLikelihood

    prior = PatchFlow(spread=_spread(examples))
    if shape[0] != prior.image_shape[0]:
        raise ValueError(f"An nf of photographs of any size is one of RGB images, not of {shape[0]} channels.")
    prior.initialise(_dequantised(examples, seed))
    return Plan(
        prior,
        [PatchLikelihood(prior, seed=seed)],
        lambda prior, n, size: prior.flow.sample(n),
        {"lr": 1e-3},
    )


def _gan(shape: Shape, classes: int, examples: Tensor, seed: int) -> Plan:
    from genprior.nets.gan import Discriminator
    from genprior.priors.gan import GAN
    from genprior.training.adversarial import DiscriminatorLoss, GeneratorLoss
    from genprior.training.quality import search_psnr

    if None in shape:
        raise ValueError(
            "A gan makes images of one size only: give an .npz file of images of one size, or train another family "
            "on photographs of any size."
        )
    prior = GAN(shape, spread=_spread(examples))
    discriminator = Discriminator(shape)
    return Plan(
        prior,
        [
            DiscriminatorLoss(prior, discriminator, seed=seed),
            GeneratorLoss(prior, discriminator, seed=seed),
        ],
        lambda prior, n, size: prior.sample(n),
        # No momentum: the other network moves the optimum at every step.
        {"lr": 1e-3, "betas": (0.0, 0.99), "clip": 10.0, "warmup": 0, "weight_decay": 0.0},
        measure=search_psnr,
    )


FAMILIES: dict[str, Callable[[Shape, int, Tensor, int], Plan]] = {"ddpm": _ddpm, "vae": _vae, "nf": _nf, "gan": _gan}
CONDITIONAL = ("ddpm",)


def _dequantised(examples: Tensor, seed: int) -> Tensor:
    return dequantize(examples, Noise(seed, torch.arange(len(examples))))


def _spread(examples: Tensor) -> float:
    """Root mean square deviation of a value from 0.5, the centre of these priors."""
    return float((examples - 0.5).square().mean().sqrt())
