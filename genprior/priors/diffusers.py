"""Diffusion models of the package diffusers as priors; diffusers itself is imported when it is needed.

Notation: u = 2x - 1 the image on the network's own [-1, 1], u_t = u + s n; s_t = sqrt((1 - alpha_bar_t) / alpha_bar_t)
the levels of the scheduler's chain; z = sqrt(alpha_bar) u_t what the network sees, and t its timestep; sigma = s / 2.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from genprior.nets.padding import mirrored
from genprior.noise import Noise
from genprior.priors.base import Prior, UnsupportedError, as_level, autocast
from genprior.priors.chain import (
    UNIT,
    ancestral_chain,
    posterior_variance,
    relative_noise,
    respaced,
    shape_of_draws,
)
from genprior.priors.probability_flow import FlowDensity, flow_log_prob

if TYPE_CHECKING:
    from diffusers import DDPMPipeline, UNet2DModel
    from diffusers.schedulers import SchedulerMixin

WEIGHTS = "diffusion_pytorch_model.safetensors"
# What describes a model, and its weights: laid out as a pipeline is saved, or all in one folder, as older ones are.
DESCRIPTION = ("model_index.json", "config.json", "scheduler_config.json", "*/config.json", "*/scheduler_config.json")
DATA = (WEIGHTS, f"unet/{WEIGHTS}")
# In the units of x. Cosine chains go on to 10^4, where a predicted eps no longer says anything of u.
HIGHEST = 80.0


class DiffusersPrior(Prior):
    """An unconditional `UNet2DModel` of diffusers and the chain that it was trained on.

    At any level sigma = s / 2, with alpha_bar = 1 / (1 + s^2) and z = sqrt(alpha_bar) u_t, the network's answer gives
        u_hat = u_t - s eps                                   where it predicts "epsilon",
        u_hat = sqrt(alpha_bar) (z - s v)                     "v_prediction",
        u_hat itself                                          "sample".
    Its timestep t is where ln s lies between those of the chain, linearly; the nearest one where timesteps are learned
    vectors. A network that learned variances gives twice the channels, of which the second half is left out. Nothing is
    clipped. Levels above 80, in the units of x, are left out.

    Arguments:
        unet: with its configuration; in evaluation mode, it is not copied.
        scheduler: of a chain of betas, such as DDPM or DDIM; only its betas and its prediction_type matter.
        image_shape: (C, H, W), axes of any size None; by default the size that the network was trained at, any if it
            does not say. Others are continued, mirrored, to what the network's levels divide.

    Raises:
        UnsupportedError: the network wants a class, or works on latents, or the scheduler is of another kind.
        ValueError: the network's images are not of image_shape.
    """

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        image_shape: tuple[int, int | None, int | None] | None = None,
    ):
        super().__init__()
        config = unet.config
        _check_network({**config, "_class_name": type(unet).__name__})
        self.prediction = _prediction_of(scheduler)
        self.unet = unet
        self.image_shape = _shape_of(config.sample_size, config.in_channels) if image_shape is None else image_shape
        if self.image_shape[0] != config.in_channels:
            raise ValueError(
                f"image_shape is {image_shape}, but the network's images have {config.in_channels} channels."
            )
        self.multiple = 2 ** (len(config.block_out_channels) - 1)
        self.learned_times = config.time_embedding_type == "learned"
        alpha_bars = torch.cumprod(1 - scheduler.betas.double(), 0).tolist()
        # a chain that ends at no signal at all has no s there
        self.alpha_bars = [a for a in alpha_bars if a > 0 and UNIT * relative_noise(a) <= HIGHEST]
        log_levels = torch.tensor([math.log(relative_noise(a)) for a in self.alpha_bars])
        self.register_buffer("log_levels", log_levels, persistent=False)
        self.centre = 0.5
        self.spread = UNIT * 0.5  # that of photographs (Karras et al., 2022)
        self.sigma_min = UNIT * relative_noise(self.alpha_bars[0])
        self.sigma_max = UNIT * relative_noise(self.alpha_bars[-1])

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        alpha_bar = 1 / (1 + s**2)
        z = alpha_bar.sqrt() * u_t
        answer = self._network(z, self.timestep(s))
        if self.prediction == "epsilon":
            u_hat = u_t - s * answer
        elif self.prediction == "v_prediction":
            u_hat = alpha_bar.sqrt() * (z - s * answer)
        else:
            u_hat = answer
        return self.centre + UNIT * u_hat

    def timestep(self, s: Tensor) -> Tensor:
        """The timesteps t, (B,), of the levels s, (B, 1, 1, 1): between 0 and the last of the chain."""
        level = s.flatten().log().to(self.log_levels)
        last = len(self.alpha_bars) - 1
        above = torch.searchsorted(self.log_levels, level).clamp(1, last)
        low, high = self.log_levels[above - 1], self.log_levels[above]
        t = (above - 1 + (level - low) / (high - low)).clamp(0, last)
        return t.round().long() if self.learned_times else t.to(s.dtype)

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
        state = next(self.unet.parameters())
        noise = Noise(seed, torch.zeros(n, dtype=torch.long), torch.arange(n))
        shape = shape_of_draws(self.image_shape, size)
        z = noise(torch.empty(n, *shape, dtype=state.dtype, device=state.device))
        alpha_bars = self.alpha_bars if steps is None else respaced(self.alpha_bars, steps)
        return ancestral_chain(self.denoise, z, alpha_bars, noise, posterior_variance, self.centre)

    def flow_log_prob(self, x: Tensor, *, seed: int = 0, steps: int = 100, probes: int = 4) -> FlowDensity:
        exact = copy.copy(self)  # shares the network
        exact.autocast = None  # the noise of the lowest levels is finer than bfloat16
        sigmas = (self.sigma_min, self.sigma_max)
        return flow_log_prob(exact.denoise, x, sigmas, self.centre, self.spread, seed=seed, steps=steps, probes=probes)

    def _network(self, z: Tensor, t: Tensor) -> Tensor:
        height, width = z.shape[-2:]
        padded = mirrored(z, self.multiple)
        with autocast(z.device, self.autocast):
            answer = self.unet(padded, t).sample
        return answer[:, : z.shape[1], :height, :width].to(z.dtype)


def from_diffusers(
    source: str | Path | DDPMPipeline | UNet2DModel,
    scheduler: SchedulerMixin | None = None,
    image_shape: tuple[int, int | None, int | None] | None = None,
) -> DiffusersPrior:
    """The prior of a diffusers model: of the folder of `save_pretrained`, a pipeline, or a network and its scheduler.

    Weights are read from .safetensors only, in float32. For a repository of the Hub, see `load_prior`.

    Arguments:
        source: folder, pipeline of a `UNet2DModel` and a scheduler, or a `UNet2DModel`.
        scheduler: of the training; None for the one in the folder or pipeline.
        image_shape: see `DiffusersPrior`.

    Raises:
        UnsupportedError: diffusers is not installed, or the model has a class, latents or another kind of scheduler.
        ValueError: the folder holds no such model or is damaged, or there is no scheduler.
    """
    if isinstance(source, str | Path):
        unet, own = _read(Path(source), scheduler is None)
    elif isinstance(source, nn.Module):
        unet, own = source, None
    else:
        parts = source.components
        _check_components({name: [None, type(part).__name__] for name, part in parts.items()})
        unet, own = parts["unet"], parts["scheduler"]
    scheduler = scheduler or own
    if scheduler is None:
        raise ValueError(
            "A UNet2DModel alone does not say how its noise grew: give the scheduler of its training too, "
            "from_diffusers(unet, scheduler), such as diffusers.DDPMScheduler()."
        )
    return DiffusersPrior(unet, scheduler, image_shape)


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
        _check_components(_json(folder / "model_index.json"))
    network = _json(_home(folder, "unet") / "config.json")
    if not network:
        raise ValueError(f"{folder} holds no config.json of a network that can be read.")
    _check_network(network)


def card_of(folder: Path) -> dict[str, Any]:
    """What there is to say of the model in a folder, as in the card of a prior of ours."""
    weights = (_home(folder, "unet") / WEIGHTS).read_bytes()
    return {"summary": "a UNet2DModel of diffusers", "sha256": hashlib.sha256(weights).hexdigest()}


def _read(folder: Path, with_scheduler: bool) -> tuple[UNet2DModel, SchedulerMixin | None]:
    diffusers = _package()
    check_folder(folder)
    scheduler = _scheduler(_home(folder, "scheduler")) if with_scheduler else None
    home = _home(folder, "unet")
    if not (home / WEIGHTS).exists():
        raise ValueError(
            f"{home} has no {WEIGHTS}, the only weights that are read. Where there are others that you trust, load and "
            "save them with diffusers once: DDPMPipeline.from_pretrained(…).save_pretrained(folder)."
        )
    try:
        unet, loaded = diffusers.UNet2DModel.from_pretrained(
            home, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(f"The UNet2DModel in {home} is damaged or incomplete: {error}") from error
    if loaded["missing_keys"] or loaded["mismatched_keys"]:
        raise ValueError(f"The UNet2DModel in {home} is incomplete: it lacks {', '.join(loaded['missing_keys'])}.")
    return unet.float().eval().requires_grad_(False), scheduler


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
    return kind.from_config(config)


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


def _check_components(index: dict[str, Any]) -> None:
    """Refuse pipelines of more than a UNet2DModel and a scheduler; {name: [library, class]}."""
    parts = {name: part[1] for name, part in index.items() if isinstance(part, list) and part[1] is not None}
    if "unet" not in parts or "scheduler" not in parts or len(parts) > 2:
        latent = [name for name in ("vae", "vqvae", "movq") if name in parts]
        raise UnsupportedError(
            f"This pipeline has {', '.join(f'{name} ({kind})' for name, kind in sorted(parts.items()))}"
            f"{', so it works on latents' if latent else ''}. Only unconditional models of pixels are priors here: "
            "pipelines of a unet (UNet2DModel) and a scheduler, such as DDPMPipeline."
        )
    _check_kind(parts["unet"])


def _check_network(config: dict[str, Any]) -> None:
    _check_kind(config.get("_class_name"))
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
            "This network is told its noise as such (time_embedding_type fourier), not as a step of a chain. Write "
            "its E[x | x_t] as a function, and give that to genprior.from_denoiser."
        )


def _check_kind(name: str | None) -> None:
    if name != "UNet2DModel":
        raise UnsupportedError(
            f"The network is a {name}. Only unconditional models of pixels, of diffusers' UNet2DModel, are priors here."
        )


def _prediction_of(scheduler: SchedulerMixin) -> str:
    config = scheduler.config
    kind, prediction = type(scheduler).__name__, config.get("prediction_type", "epsilon")
    if not isinstance(getattr(scheduler, "betas", None), Tensor):
        raise UnsupportedError(
            f"{kind} is no chain of betas; those of DDPM, DDIM and their like are. Write the network's "
            "E[x | x_t] as a function, and give that to genprior.from_denoiser."
        )
    if prediction not in ("epsilon", "v_prediction", "sample"):
        raise UnsupportedError(
            f"{kind} says that the network predicts {prediction!r}; give epsilon, v_prediction or sample."
        )
    return prediction


def _shape_of(size: int | list[int] | None, channels: int) -> tuple[int, int | None, int | None]:
    height, width = (size, size) if size is None or isinstance(size, int) else size
    return channels, height, width
