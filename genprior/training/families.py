"""How `genprior train` trains each family: a prior for the given images, its objectives and its settings.

The recipes do the same with numbers chosen for their data.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from genprior.bits import dequantize
from genprior.checks import OpenShape
from genprior.nets.gan import Discriminator
from genprior.noise import Noise
from genprior.priors.base import Prior
from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.priors.gan import GAN
from genprior.priors.latent import LatentDiffusion
from genprior.priors.patches import PatchFlow
from genprior.priors.vae import VAE
from genprior.registry import lookup
from genprior.training.adversarial import gan
from genprior.training.bound import EvidenceBound
from genprior.training.flow_gan import flow_gan
from genprior.training.latent import LatentDenoising
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.objectives import Denoising, FlowMatching
from genprior.training.quality import denoising_psnr, held_out_bits, reconstruction_psnr, search_psnr

P = TypeVar("P", bound=Prior)

SMALL = 64  # pixels: smaller crops, such as digits in a folder, count as whole images

# Settings of competing networks; no momentum, since the other network moves the optimum at every step.
ADVERSARIAL = {"lr": 1e-3, "betas": (0.0, 0.99), "clip": 10.0, "warmup": 0, "weight_decay": 0.0}


@dataclass(frozen=True)
class Plan(Generic[P]):
    """How to train one prior: arguments of `genprior.training.loop.train`.

    Attributes:
        prior: new, with random weights.
        objectives: those that train it, in this order.
        settings: values for `Settings` that the user does not set.
        preview: maps the averaged prior, the number of images and their size (H, W) to images; by default, draws.
        finish: called on the averaged prior and held-out images at the end, or None.
        measure: maps the averaged prior and held-out images to numbers to log, such as a PSNR, or None. The validation
            error of a flow is already in bits per value.
    """

    prior: P
    objectives: Sequence[nn.Module]
    preview: Callable[[P, int, tuple[int, int]], Tensor] = lambda prior, n, size: prior.sample(n)
    settings: dict[str, Any] = field(default_factory=lambda: {"lr": 1e-3})
    finish: Callable[[P, Tensor], None] | None = None
    measure: Callable[[P, Tensor], dict[str, float]] | None = None


def plan(
    family: str,
    shape: OpenShape,
    classes: int,
    examples: Tensor,
    seed: int,
    vae: Prior | None = None,
    weight: float | None = None,
    objective: str | None = None,
) -> Plan:
    """Return the plan for training a prior of that family; torch's global random state stays unchanged.

    Arguments:
        family: one of `FAMILIES`.
        shape: (C, H, W) of the images; H and W are None for photographs of any size.
        classes: number of class labels, 0 for none.
        examples: some of the images, (N, C, H, W), or crops of them.
        seed: keys the initial weights and all randomness of the objectives.
        vae: for an ldm only: the trained autoencoder whose latents it models.
        weight: for a flow-gan only: see `flow_gan`; None for 10.
        objective: for a ddpm only: one of `OBJECTIVES`; None for "denoising".

    Raises:
        ValueError: there is no such family, it does not support such images or classes, the vae does not fit, or the
            weight or objective is not allowed.
    """
    if family not in FAMILIES:
        raise ValueError(f"family is {family!r}: give one of {', '.join(FAMILIES)}.")
    if (vae is not None) != (family == "ldm"):
        raise ValueError("An ldm is trained in the latents of a vae, and nothing else is: give a vae with it alone.")
    if weight is not None and family != "flow-gan":
        raise ValueError(f"weight is {weight}, but only a flow-gan has one, of its likelihood: leave it out.")
    if objective is not None and family != "ddpm":
        raise ValueError(f"objective is {objective!r}, but of all families only a ddpm has several: leave it out.")
    extra = tuple(given for given in (vae, weight, objective) if given is not None)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        chosen = FAMILIES[family](shape, classes, examples, seed, *extra)
    if classes and not chosen.prior.classes:
        raise ValueError(f"Images of this kind have no labels in an {family}: leave the labels out, or train a ddpm.")
    return chosen


def _ddpm(shape: OpenShape, classes: int, examples: Tensor, seed: int, objective: str = "denoising") -> Plan[DDPM]:
    prediction, loss = lookup("objective", objective, OBJECTIVES)
    side = _side(shape, examples)
    sized: dict[str, Any] = {"widths": _levels((48, 96, 160, 192), side / 2)} if side else {}  # cells are patches of 2
    prior = DDPM(shape, classes=classes, prediction=prediction, **sized)
    return Plan(
        prior,
        [loss(prior, seed=seed)],
        lambda prior, n, size: prior.sample(n, size=size, steps=50),
        {"lr": 1e-3} if side else {},
        finish=lambda prior, x: prior.calibrate(x),
        measure=denoising_psnr,
    )


def _vae(shape: OpenShape, classes: int, examples: Tensor, seed: int) -> Plan[VAE]:
    side = _side(shape, examples)
    sized = {}
    if side:
        widths = _levels((32, 64, 128, 128), side / 2)
        sized = {"widths": widths, "blocks": (1,) * (len(widths) - 1) + (2,)}
    prior = VAE(shape, spread=_spread(examples), classes=classes, **sized)
    return Plan(
        prior,
        [EvidenceBound(prior, seed=seed)],
        lambda prior, n, size: prior.sample(n, size=size),
        measure=None if classes else reconstruction_psnr,
    )


def _nf(shape: OpenShape, classes: int, examples: Tensor, seed: int) -> Plan:
    if None in shape:
        return _nf_of_patches(shape, examples, seed)
    prior = _flow(shape, classes, examples, seed)
    return Plan(prior, [MaximumLikelihood(prior, seed=seed)])


def _nf_of_patches(shape: OpenShape, examples: Tensor, seed: int) -> Plan[PatchFlow]:
    prior = PatchFlow(spread=_spread(examples))
    if shape[0] != prior.image_shape[0]:
        raise ValueError(f"An nf of photographs of any size is one of RGB images, not of {shape[0]} channels.")
    prior.initialise(_dequantised(examples, seed))
    return Plan(prior, [MaximumLikelihood(prior, seed=seed)], lambda prior, n, size: prior.flow.sample(n))


def _gan(shape: OpenShape, classes: int, examples: Tensor, seed: int) -> Plan[GAN]:
    if None in shape:
        raise ValueError(
            "A gan makes images of one size only: give an .npz file of images of one size, or train another family "
            "on photographs of any size."
        )
    prior = GAN(shape, spread=_spread(examples), classes=classes)
    return Plan(
        prior,
        gan(prior, Discriminator(shape, classes=classes), seed=seed),
        settings=ADVERSARIAL,
        measure=None if classes else search_psnr,
    )


def _flow_gan(shape: OpenShape, classes: int, examples: Tensor, seed: int, weight: float = 10.0) -> Plan[Flow]:
    if None in shape or any(side % 4 for side in shape[1:]):
        raise ValueError(
            "A flow-gan makes images of one size, of sides that are multiples of 4: give an .npz file of such images, "
            "or train another family."
        )
    prior = _flow(shape, classes, examples, seed)
    return Plan(
        prior,
        flow_gan(prior, Discriminator(shape, classes=classes), weight=weight, seed=seed),
        settings=ADVERSARIAL,
        measure=held_out_bits,
    )


def _ldm(shape: OpenShape, classes: int, examples: Tensor, seed: int, vae: Prior) -> Plan[LatentDiffusion]:
    if not isinstance(vae, VAE) or vae.flat or vae.image_shape[0] != shape[0]:
        raise ValueError(
            f"An ldm of these images needs a vae of images ({shape[0]}, None, None), whose latents are maps; the prior "
            f"given is a {type(vae).__name__} of {vae.image_shape}."
        )
    widths, side = (64, 128, 192), _side(shape, examples)
    if side:
        widths = _levels(widths, side / vae.stride)
    prior = LatentDiffusion(vae, DDPM(vae.latent_shape, data_std=1.0, widths=widths, patch=1))
    prior.standardise(examples)

    def preview(prior: LatentDiffusion, n: int, size: tuple[int, int]) -> Tensor:
        prior = prior.sized(*size)
        return prior.render(prior.latents.sample(n, steps=50))

    return Plan(prior, [LatentDenoising(prior, seed=seed)], preview, finish=lambda prior, x: prior.fit_decoder(x))


FAMILIES: dict[str, Callable[..., Plan]] = {
    "ddpm": _ddpm,
    "vae": _vae,
    "ldm": _ldm,
    "nf": _nf,
    "gan": _gan,
    "flow-gan": _flow_gan,
}
# For a ddpm: what its network predicts, see `priors.predictions`, and its loss.
OBJECTIVES: dict[str, tuple[str, Callable[..., nn.Module]]] = {
    "denoising": ("karras", Denoising),
    "flow-matching": ("velocity", FlowMatching),
}


def _side(shape: OpenShape, examples: Tensor) -> int | None:
    """Return the side that sizes the network: of the images, or of crops below `SMALL`; None for photographs."""
    if None not in shape:
        return min(shape[1:])
    side = min(examples.shape[-2:])
    return side if side < SMALL else None


def _levels(widths: tuple[int, ...], side: float) -> tuple[int, ...]:
    """Return as many of a network's widths as make its coarsest level about 7 cells wide.

    Networks for images of any size use all widths. For small images, further levels would see mostly zeros around the
    image, yet hold most of the weights.

    Arguments:
        widths: of the levels, finest first, each half as fine as the one before.
        side: of the images, in cells of the finest level.
    """
    return widths[: max(1, 1 + round(math.log2(side / 7)))]


def _flow(shape: OpenShape, classes: int, examples: Tensor, seed: int) -> Flow:
    mostly_black = bool((examples == 0).float().mean() > 0.5)
    prior = Flow(shape, pixels="ink" if mostly_black else "logit", spread=_spread(examples), classes=classes)
    prior.initialise(_dequantised(examples, seed))
    return prior


def _dequantised(examples: Tensor, seed: int) -> Tensor:
    return dequantize(examples, Noise(seed, torch.arange(len(examples))))


def _spread(examples: Tensor) -> float:
    """Return the root mean square deviation of values from 0.5, the centre of these priors."""
    return float((examples - 0.5).square().mean().sqrt())
