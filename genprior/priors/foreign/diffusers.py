"""Diffusions from the package diffusers as priors; diffusers itself is imported when it is needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genprior.ambient import settled
from genprior.checks import OpenShape
from genprior.nets.wrapped import unwrapped
from genprior.priors.base import Prior
from genprior.priors.foreign.consistency import ConsistencyPrior
from genprior.priors.foreign.diffusers_folder import (
    AUTOENCODER_KINDS,
    autoencoder_of,
    check_folder,
    read_own,
    read_part,
    read_scheduler,
    refuse_parts,
)
from genprior.priors.foreign.diffusers_latents import DiffusersLatentPrior
from genprior.priors.foreign.diffusers_levels import is_of
from genprior.priors.foreign.diffusers_network import check_kind, package
from genprior.priors.foreign.diffusers_pixels import DiffusersPrior
from genprior.priors.foreign.weights import refuse_weights

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DModel, VQModel
    from diffusers.schedulers import SchedulerMixin
    from diffusers.training_utils import EMAModel

# unet, scheduler, autoencoder; None for missing ones
Parts = tuple[Any, Any, Any]


@settled
def from_diffusers(
    source: str | Path | DiffusionPipeline | UNet2DModel | EMAModel,
    scheduler: SchedulerMixin | None = None,
    image_shape: OpenShape | None = None,
    *,
    autoencoder: VQModel | AutoencoderKL | None = None,
    variant: str | None = None,
) -> DiffusersPrior | DiffusersLatentPrior | ConsistencyPrior:
    """Make a prior of a diffusers model: a folder from `save_pretrained`, a pipeline, or a network and its scheduler.

    A diffusion gives a prior with `denoise`; one in the latents of an autoencoder, a prior with `render`; a consistency
    model, a prior with `decode`. Weights are read from .safetensors, or from pickles that hold nothing but weights; if
    a folder has them in half precision, they stay so, but the network computes in float32. For a repository on the Hub,
    see `load_prior`.

    Arguments:
        source: folder, pipeline, or `UNet2DModel`, including subclasses. The network may be in half precision, in which
            it then computes; compiled; wrapped by DataParallel, DistributedDataParallel or Accelerate; or a moving
            average of torch, ema-pytorch, timm or diffusers.
        scheduler: of the training; None for the one in the folder or pipeline.
        image_shape: see `DiffusersPrior`.
        autoencoder: whose latents a network given by itself works in; folders and pipelines have their own.
        variant: of the weights in a folder, such as "fp16"; None for full precision, or the only one.

    Raises:
        UnsupportedError: diffusers is not installed, the model needs a class or text, or has another kind of scheduler.
        ValueError: the folder holds no such model or is damaged, or there is no scheduler.
    """
    if variant is not None and not isinstance(source, str | Path):
        raise ValueError(f"variant is {variant!r}, of the weights in a folder, but no folder was given: leave it out.")
    folder = Path(source) if isinstance(source, str | Path) else None
    own_shape, decoder_variance = (None, None) if folder is None else read_own(folder)
    unet, own_scheduler, own_autoencoder = _parts(source, scheduler is None, variant)
    scheduler = own_scheduler if scheduler is None else scheduler
    autoencoder = own_autoencoder if autoencoder is None else autoencoder
    if scheduler is None:
        check_kind(unwrapped(unet))
        raise ValueError(
            "A UNet2DModel alone does not say how its noise grew: give the scheduler of its training too, "
            "from_diffusers(unet, scheduler), such as diffusers.DDPMScheduler()."
        )
    if autoencoder is not None:
        prior = DiffusersLatentPrior(autoencoder, unet, scheduler, image_shape or own_shape)
        prior.variance.fill_(math.nan if decoder_variance is None else decoder_variance)
    elif is_of(scheduler, "CMStochasticIterativeScheduler"):
        prior = ConsistencyPrior(unet, scheduler, image_shape)
    else:
        prior = DiffusersPrior(unet, scheduler, image_shape)
    if folder is not None:
        # in a file, half precision is only how weights are stored; in memory, it is how the network computes
        for part in prior.modules():
            if isinstance(part, Prior):
                part.autocast = None
    return prior


def is_of_diffusers(given: Any) -> bool:
    """Whether an object is a diffusers pipeline or network, possibly of a subclass or wrapped.

    Objects that merely inherit from its mixins, as a denoiser may, are not.
    """
    plain = unwrapped(given)
    # Check by module name: importing diffusers takes seconds, and whoever has such an object has imported it.
    if type(plain).__module__.startswith("diffusers."):
        return True
    if not any(kind.__module__.startswith("diffusers.") for kind in type(plain).__mro__):
        return False
    diffusers = package()
    return isinstance(plain, diffusers.DiffusionPipeline | diffusers.UNet2DModel)


def _parts(source: Any, with_scheduler: bool, variant: str | None) -> Parts:
    diffusers = package()
    if isinstance(source, str | Path):
        return _in_folder(Path(source), with_scheduler, variant)
    if isinstance(source, diffusers.DiffusionPipeline):
        return _in_pipeline(source)
    if isinstance(source, diffusers.training_utils.EMAModel):
        return _averaged(source), None, None
    return source, None, None


def _in_folder(folder: Path, with_scheduler: bool, variant: str | None) -> Parts:
    """Read the parts in a folder; no scheduler unless `with_scheduler`."""
    refuse_weights(folder)
    check_folder(folder)
    scheduler = read_scheduler(folder) if with_scheduler else None  # before the weights, which take longer
    name = autoencoder_of(folder)
    autoencoder = None if name is None else read_part(folder, name, AUTOENCODER_KINDS, variant)
    return read_part(folder, "unet", ("UNet2DModel",), variant), scheduler, autoencoder


def _in_pipeline(pipeline: DiffusionPipeline) -> Parts:
    """Return the parts of a pipeline, whatever their names; refuse a pipeline with other parts."""
    diffusers = package()
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    kinds = (diffusers.UNet2DModel, diffusers.SchedulerMixin, (diffusers.VQModel, diffusers.AutoencoderKL))
    unets, schedulers, codes = ([p for p in parts.values() if isinstance(unwrapped(p), kind)] for kind in kinds)
    if not len(unets) == len(schedulers) == 1 or len(codes) > 1 or len(parts) > 2 + len(codes):
        refuse_parts({name: type(unwrapped(part)).__name__ for name, part in parts.items()})
    return unets[0], schedulers[0], codes[0] if codes else None


def _averaged(ema: EMAModel) -> UNet2DModel:
    """Return the network with the weights of diffusers' moving average, which must know the network's class."""
    if ema.model_cls is None or ema.model_config is None:
        raise ValueError(
            "This EMAModel does not say of what network its weights are. Copy them into it, "
            "ema.copy_to(unet.parameters()), and give that: from_diffusers(unet, scheduler)."
        )
    unet = ema.model_cls.from_config(ema.model_config)
    ema.copy_to(unet.parameters())
    return unet.eval().requires_grad_(False)
