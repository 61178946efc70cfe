"""Diffusion models of the package diffusers as priors; diffusers itself is imported when it is needed.

Notation: u = 2x - 1 the image on the network's own [-1, 1], u_t = u + s n; z what the network sees of u_t, and t its
timestep; sigma = s / 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from safetensors import SafetensorError
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import OpenShape, UnsupportedError
from genprior.devices import state_of
from genprior.files import sha256
from genprior.nets.padding import mirrored
from genprior.nets.wrapped import on_one_device, unwrapped
from genprior.noise import Noise
from genprior.priors.base import Prior, as_level, autocast, shape_of_draws
from genprior.priors.chain import (
    UNIT,
    ancestral_chain,
    posterior_variance,
    relative_noise,
    respaced,
)
from genprior.priors.foreign.diffusers_levels import AS_A_FUNCTION, levels_of
from genprior.priors.foreign.weights import refuse_weights
from genprior.priors.probability_flow import FlowDensity, flow_log_prob

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, UNet2DModel
    from diffusers.schedulers import SchedulerMixin
    from diffusers.training_utils import EMAModel

WEIGHTS = "diffusion_pytorch_model.safetensors"
# What describes a model, and its weights: laid out as a pipeline is saved, or all in one folder, as older ones are.
DESCRIPTION = ("model_index.json", "config.json", "scheduler_config.json", "*/config.json", "*/scheduler_config.json")
DATA = (WEIGHTS, f"unet/{WEIGHTS}")
# For those that have no others.
HALVED = tuple(path.replace(".safetensors", ".fp16.safetensors") for path in DATA)


class DiffusersPrior(Prior):
    """An unconditional `UNet2DModel` of diffusers and the noise that it was trained on.

    At any level sigma = s / 2 the network's answer gives u_hat as its scheduler says, see `diffusers_levels`. A network
    that learned variances gives twice the channels, of which the second half is left out. Nothing is clipped.
    Levels above 80, in the units of x, are left out. The network computes in its own precision.

    Arguments:
        unet: with its configuration; in evaluation mode, it is not copied. It may be compiled, or wrapped for several
            devices or as a moving average.
        scheduler: of the training: with alphas_cumprod, such as DDPM or DDIM, of EDM, or of flow matching. Only the
            levels of its training and its prediction_type matter.
        image_shape: (C, H, W), axes of any size None; by default the size that the network was trained at, any if it
            does not say. Others are continued, mirrored, to what the network's levels divide.

    Raises:
        UnsupportedError: the network wants a class, or works on latents, or the scheduler is of another kind.
        ValueError: the network's images are not of image_shape, or the scheduler's numbers are no levels of noise.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        image_shape: OpenShape | None = None,
    ):
        super().__init__()
        plain = unwrapped(unet)
        _check_kind(plain)
        config = plain.config
        _check_network(config)
        self.unet = on_one_device(unet)
        self.levels = levels_of(scheduler, learned_times=config.time_embedding_type == "learned")
        self.image_shape = _shape_of(config.sample_size, config.in_channels) if image_shape is None else image_shape
        if self.image_shape[0] != config.in_channels:
            raise ValueError(
                f"image_shape is {image_shape}, but the network's images have {config.in_channels} channels."
            )
        self.multiple = 2 ** (len(config.block_out_channels) - 1)
        self.centre = 0.5
        self.spread = UNIT * 0.5  # that of photographs (Karras et al., 2022)
        self.sigma_min, *_, self.sigma_max = (UNIT * relative_noise(a) for a in self.levels.alpha_bars)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        return self.centre + UNIT * self.levels.estimate(self._network, u_t, s)

    @torch.no_grad()
    def sample(self, n: int, *, seed: int = 0, size: tuple[int, int] | None = None, steps: int | None = None) -> Tensor:
        """n draws by the reverse chain, with the posterior variances and without clipping, (n, C, H, W).

        Arguments:
            seed: keys the noise.
            size: (H, W), needed where the prior's images have any size.
            steps: use this many of the chain's steps, evenly spread; None for all.

        Raises:
            ValueError: no size where there has to be one, or a number of steps that the chain does not have.
        """
        noise = Noise.of_draws(n, seed)
        z = noise(state_of(self.unet).new_empty(n, *shape_of_draws(self.image_shape, size)))
        return ancestral_chain(
            self.denoise, z, respaced(self.levels.alpha_bars, steps), noise, posterior_variance, self.centre
        )

    def flow_log_prob(self, x: Tensor, *, seed: int = 0, steps: int = 100, probes: int = 4) -> FlowDensity:
        return flow_log_prob(self, x, seed=seed, steps=steps, probes=probes)

    def _network(self, z: Tensor, t: Tensor) -> Tensor:
        height, width = z.shape[-2:]
        padded = mirrored(z, self.multiple)
        # pipelines of half precision give it to their networks, which take no other
        dtype = next((p.dtype for p in self.unet.parameters()), z.dtype)
        with autocast(z.device, self.autocast):
            answer = self.unet(padded.to(dtype), t).sample
        return answer[:, : z.shape[1], :height, :width].to(z.dtype)


@settled
def from_diffusers(
    source: str | Path | DiffusionPipeline | UNet2DModel | EMAModel,
    scheduler: SchedulerMixin | None = None,
    image_shape: OpenShape | None = None,
) -> DiffusersPrior:
    """The prior of a diffusers model: of the folder of `save_pretrained`, a pipeline, or a network and its scheduler.

    Weights are read from .safetensors only, in float32. For a repository of the Hub, see `load_prior`.

    Arguments:
        source: folder, pipeline of a `UNet2DModel` and a scheduler, or a `UNet2DModel`, all of them of subclasses too.
            The network may be in half precision, compiled, wrapped by DataParallel or DistributedDataParallel, or a
            moving average of torch, ema-pytorch, timm or diffusers.
        scheduler: of the training; None for the one in the folder or pipeline.
        image_shape: see `DiffusersPrior`.

    Raises:
        UnsupportedError: diffusers is not installed, or the model has a class, latents or another kind of scheduler.
        ValueError: the folder holds no such model or is damaged, or there is no scheduler.
    """
    diffusers = _package()
    if isinstance(source, str | Path):
        unet, own = _read(Path(source), scheduler is None)
    elif isinstance(source, diffusers.DiffusionPipeline):
        unet, own = _parts(source)
    elif isinstance(source, diffusers.training_utils.EMAModel):
        unet, own = _averaged(source), None
    else:
        unet, own = source, None
    scheduler = scheduler or own
    if scheduler is None:
        _check_kind(unwrapped(unet))
        raise ValueError(
            "A UNet2DModel alone does not say how its noise grew: give the scheduler of its training too, "
            "from_diffusers(unet, scheduler), such as diffusers.DDPMScheduler()."
        )
    return DiffusersPrior(unet, scheduler, image_shape)


def is_of_diffusers(given: Any) -> bool:
    """Whether an object is a pipeline or a network of diffusers, perhaps of a subclass or wrapped.

    Others that merely inherit from its mixins, as a denoiser may, are not.
    """
    plain = unwrapped(given)
    # Whoever has one has imported diffusers, which takes seconds and is not imported here to ask.
    if type(plain).__module__.startswith("diffusers."):
        return True
    if not any(kind.__module__.startswith("diffusers.") for kind in type(plain).__mro__):
        return False
    diffusers = _package()
    return isinstance(plain, diffusers.DiffusionPipeline | diffusers.UNet2DModel)


def is_diffusers(folder: Path) -> bool:
    """Whether a folder holds, by its own account, something that diffusers saved."""
    return (folder / "model_index.json").exists() or "_diffusers_version" in _json(folder / "config.json")


def check_folder(folder: Path) -> None:
    """Refuse, by what describes it and without its weights, a model that is no prior.

    Raises:
        UnsupportedError: diffusers is not installed, or the model has a class, latents or another kind of scheduler.
        ValueError: a part of it is missing or cannot be read.
    """
    _package()
    if (folder / "model_index.json").exists():
        index = _json(folder / "model_index.json")  # {name: [library, class]}
        parts = {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1] is not None}
        if "unet" not in parts or "scheduler" not in parts or len(parts) > 2:
            _refuse_parts(parts)
        _check_name(parts["unet"])
    network = _json(_home(folder, "unet") / "config.json")
    if not network:
        raise ValueError(f"{folder} holds no config.json of a network that can be read.")
    _check_name(network.get("_class_name"))
    _check_network(network)


def card_of(folder: Path) -> dict[str, Any]:
    """What there is to say of the model in a folder, as in the card of a prior of ours."""
    return {"summary": "a UNet2DModel of diffusers", "sha256": sha256(weights_of(folder)[0])}


def weights_of(folder: Path) -> tuple[Path, str | None]:
    """The weights in a folder, those of full precision if they are there, and the variant that they are, as "fp16".

    Raises:
        ValueError: there are none in .safetensors, or several variants of which none is the full one.
    """
    home = _home(folder, "unet")
    stem, suffix = WEIGHTS.split(".")
    variants = {path.name.split(".")[1]: path for path in sorted(home.glob(f"{stem}.*.{suffix}"))}
    if (home / WEIGHTS).exists():
        return home / WEIGHTS, None
    if len(variants) == 1:
        ((variant, path),) = variants.items()
        return path, variant
    there = f"only {', '.join(p.name for p in variants.values())}" if variants else "the only weights that are read"
    raise ValueError(
        f"{home} has no {WEIGHTS}, {there}. Where there are others that you trust, load and save them with diffusers "
        "once: DDPMPipeline.from_pretrained(…).save_pretrained(folder)."
    )


def _read(folder: Path, with_scheduler: bool) -> tuple[UNet2DModel, SchedulerMixin | None]:
    diffusers = _package()
    refuse_weights(folder)
    check_folder(folder)
    scheduler = _scheduler(_home(folder, "scheduler")) if with_scheduler else None
    home = _home(folder, "unet")
    _, variant = weights_of(folder)
    try:
        both: Any = diffusers.UNet2DModel.from_pretrained(
            home, use_safetensors=True, local_files_only=True, output_loading_info=True, variant=variant
        )
        unet, loaded = both
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The UNet2DModel in {home} is damaged or incomplete: {error}") from error
    if loaded["missing_keys"] or loaded["mismatched_keys"]:
        raise ValueError(f"The UNet2DModel in {home} is incomplete: it lacks {', '.join(loaded['missing_keys'])}.")
    return unet.float().eval().requires_grad_(False), scheduler


def _parts(pipeline: DiffusionPipeline) -> tuple[UNet2DModel, SchedulerMixin]:
    """The network and the scheduler of a pipeline, under whatever names, if it has nothing else that computes."""
    diffusers = _package()
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    unets = [part for part in parts.values() if isinstance(unwrapped(part), diffusers.UNet2DModel)]
    schedulers = [part for part in parts.values() if isinstance(part, diffusers.SchedulerMixin)]
    if len(unets) != 1 or len(schedulers) != 1 or len(parts) > 2:
        _refuse_parts({name: type(unwrapped(part)).__name__ for name, part in parts.items()})
    return unets[0], schedulers[0]


def _averaged(ema: EMAModel) -> UNet2DModel:
    """The network with the weights of diffusers' moving average, which alone does not know what network it is of."""
    if ema.model_cls is None or ema.model_config is None:
        raise ValueError(
            "This EMAModel does not say of what network its weights are. Copy them into it, "
            "ema.copy_to(unet.parameters()), and give that: from_diffusers(unet, scheduler)."
        )
    unet = ema.model_cls.from_config(ema.model_config)
    ema.copy_to(unet.parameters())
    return unet.eval().requires_grad_(False)


def _scheduler(home: Path) -> SchedulerMixin:
    diffusers = _package()
    config = _json(home / "scheduler_config.json")
    if not config:
        raise ValueError(
            f"{home} has no scheduler_config.json that can be read, which would say how the network's noise grew: give "
            "the scheduler of its training, genprior.from_diffusers(folder, scheduler=diffusers.DDPMScheduler())."
        )
    kind = getattr(diffusers, str(config.get("_class_name")), None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise ValueError(f"{home} is of the scheduler {config.get('_class_name')!r}, which diffusers does not have.")
    return kind.from_config(config)  # pyright: ignore[reportAttributeAccessIssue]


def _package():
    try:
        import diffusers
    except ImportError as error:
        raise UnsupportedError(
            'Models of diffusers need the package diffusers: pip install "genprior[hub]".'
        ) from error
    return diffusers


def _home(folder: Path, part: str) -> Path:
    """Where a part of a pipeline lies: in a folder of its own, or among the others."""
    return folder / part if (folder / part).is_dir() else folder


def _json(path: Path) -> dict[str, Any]:
    """The dictionary in a file, an empty one if there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _refuse_parts(parts: dict[str, str]) -> NoReturn:
    """Say what a pipeline is made of, {name: class}, and what it should be made of."""
    latent = any(name in parts for name in ("vae", "vqvae", "movq"))
    raise UnsupportedError(
        f"This pipeline has {', '.join(f'{name} ({kind})' for name, kind in sorted(parts.items()))}"
        f"{', so it works on latents' if latent else ''}. Only unconditional models of pixels are priors here: "
        "pipelines of a unet (UNet2DModel) and a scheduler, such as DDPMPipeline."
    )


def _check_network(config: Mapping[str, Any]) -> None:
    if config.get("num_class_embeds") is not None or config.get("class_embed_type") is not None:
        raise UnsupportedError(
            "This network wants a class label with every image. Only unconditional ones are priors here."
        )
    channels, answers = config.get("in_channels", 3), config.get("out_channels", 3)
    if answers not in (channels, 2 * channels):
        raise UnsupportedError(
            f"This network has {channels} channels in and {answers} out. A prior's has as many out as in, or twice as "
            "many where it learned variances."
        )
    if config.get("time_embedding_type") == "fourier":
        raise UnsupportedError(
            "This network is told its noise as such (time_embedding_type fourier), not as a step of a chain. "
            f"{AS_A_FUNCTION}"
        )


def _check_kind(network: Any) -> None:
    if not isinstance(network, _package().UNet2DModel):
        _refuse_network(type(network).__name__)


def _check_name(name: str | None) -> None:
    """As `_check_kind`, by what a folder says: a class that diffusers does not have cannot be made from it."""
    diffusers = _package()
    kind = getattr(diffusers, str(name), None)
    if isinstance(kind, type) and issubclass(kind, diffusers.UNet2DModel):
        return
    own = (
        " If it is a subclass of yours, load it and give it with its scheduler: "
        f"genprior.from_diffusers({name}.from_pretrained(folder), scheduler)."
    )
    _refuse_network(str(name), "" if isinstance(kind, type) else own)


def _refuse_network(name: str, advice: str = "") -> NoReturn:
    raise UnsupportedError(
        f"The network is a {name}. Only unconditional models of pixels, of diffusers' UNet2DModel, are priors here."
        f"{advice}"
    )


def _shape_of(size: int | list[int] | None, channels: int) -> OpenShape:
    height, width = (size, size) if size is None or isinstance(size, int) else size
    return channels, height, width
