"""Networks of ADM (guided-diffusion) as priors, from published files: `ffhq_10m.pt`, `256x256_diffusion.pt`, …

Notation: u = 2x - 1 the image on [-1, 1], u_t = u + s n; z = sqrt(alpha_bar) u_t the network's input,
alpha_bar = 1 / (1 + s^2), and t its step; sigma = s / 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import COUNT, POSITIVE, UnsupportedError, check_arguments
from genprior.devices import state_of
from genprior.files import sha256
from genprior.nets.adm import ADMUNet
from genprior.nets.kept import computing
from genprior.nets.padding import mirrored
from genprior.noise import Noise
from genprior.priors.base import as_config, as_level, shape_of_draws
from genprior.priors.chain import (
    BETAS,
    UNIT,
    ancestral_chain,
    interpolated,
    posterior_variance,
    relative_noise,
    respaced,
)
from genprior.priors.foreign.adm_published import PUBLISHED, layout_of, published
from genprior.priors.foreign.adm_schedule import SCHEDULE, chain_in
from genprior.priors.foreign.diffusers_levels import HIGHEST
from genprior.priors.foreign.weights import fill, listed, misfit, read_weights, taken_from
from genprior.priors.labels import check_labels, number_of
from genprior.priors.posterior_covariance import MeasuredCovariance, PosteriorCovariance
from genprior.priors.probability_flow import FlowDensity, flow_log_prob
from genprior.priors.wrappers.given import Given
from genprior.registry import lookup

FIRST = "time_embed.0.weight"  # a name that every such network has, and few others do
ALIKE = (
    " (EDM's and consistency models of openai/consistency_models are laid out alike, without learned variances, but "
    "are told ln sigma in place of a step: they are no such priors.)"
)
COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step")  # of moving averages
SETUP = ("head_channels", "heads", "order", "betas", "steps", "time_scale")


class ADM(MeasuredCovariance):
    """Denoising diffusion prior with the network of ADM, which predicts eps: u_hat = u_t - s eps(z, t).

    t interpolates linearly in ln s between the steps of the chain. If the network also learned the variances of its
    steps, that half of its output is dropped: samplers here do not use it. Nothing is clipped. Images of any size are
    padded by mirroring to the multiple that the network's levels need, but the network knows images of its training
    size only. Levels above 80, in the units of x, are left out.

    The network has no weights yet: they are read, see `from_adm`, never drawn at random.

    Arguments:
        network: arguments of `ADMUNet`.
        betas: "linear", "cosine" or "geometric", see `chain`, or the numbers themselves.
        steps: T, the length of the chain.
        time_scale: the network receives time_scale times t: 1, or 1000 / T if it was trained with rescaled timesteps.
        residuals: form of the measured `posterior_covariance`, see `fit_covariance`; None if none was measured.

    Raises:
        ValueError: the arguments do not describe a network or a chain.
    """

    log_levels: Tensor
    labelled = frozenset({"denoise", "sample", "flow_log_prob"})

    def __init__(
        self,
        network: Mapping[str, Any],
        *,
        betas: str | Sequence[float] = "linear",
        steps: int = 1000,
        time_scale: float = 1.0,
        residuals: str | None = None,
    ):
        super().__init__()
        self.config = as_config(locals())
        check_arguments(locals(), steps=COUNT, time_scale=POSITIVE)
        with torch.device("meta"):
            self.net = ADMUNet(**network)
        self.image_shape = (network["channels"], None, None)
        self.classes = network["classes"]
        self.multiple = self.net.multiple
        self.time_scale = time_scale
        self.centre = 0.5
        self.spread = UNIT * 0.5  # that of photographs (Karras et al., 2022)
        self.alpha_bars = [a for a in alpha_bars_of(betas, steps) if UNIT * relative_noise(a) <= HIGHEST]
        levels = [relative_noise(a) for a in self.alpha_bars]
        self.sigma_min, self.sigma_max = UNIT * levels[0], UNIT * levels[-1]
        self.register_buffer("log_levels", torch.tensor(levels).log(), persistent=False)
        if residuals is not None:
            self.residuals = PosteriorCovariance.blank(self.image_shape, residuals)

    def denoise(self, x_t: Tensor, sigma: float | Tensor, label: Tensor | None = None) -> Tensor:
        """E[x | x_t], with labels (B,) for a network with classes."""
        check_labels(self, label)
        u_t = (x_t - self.centre) / UNIT
        s = as_level(sigma, x_t) / UNIT
        return self.centre + UNIT * (u_t - s * self._eps(u_t / (1 + s**2).sqrt(), self.step(s), label))

    def step(self, s: Tensor) -> Tensor:
        """t of the levels s, (B, 1, 1, 1) -> (B,), counted from 0; it may lie between steps, but not beyond them."""
        levels = self.log_levels
        counted = torch.arange(len(levels), dtype=levels.dtype, device=levels.device)
        return interpolated(s.flatten().log().to(levels), levels, counted)

    def _eps(self, z: Tensor, t: Tensor, label: Tensor | None) -> Tensor:
        height, width = z.shape[-2:]
        padded = mirrored(z, self.multiple)
        with computing(self.net, z.device, self.autocast):
            answer = self.net(padded, self.time_scale * t, label)
        return answer[:, : z.shape[1], :height, :width].to(z.dtype)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        *,
        seed: int = 0,
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        label: int | str | None = None,
        progress: bool = False,
    ) -> Tensor:
        """n draws by the reverse chain, with the posterior variances and without clipping, (n, C, H, W).

        Arguments:
            seed: keys the noise; draw k is the same whatever n is.
            size: (H, W), preferably that of the training.
            steps: use this many of the chain's steps, evenly spaced; None for all.
            label: class label, for a network with classes.
            progress: show a progress bar.

        Raises:
            ValueError: size is missing, or the prior does not have that number of steps or label.
            UnsupportedError: the network has classes, but label is missing.
        """
        like = state_of(self)
        labels = None if label is None else torch.full((n,), number_of(self, label), device=like.device)
        check_labels(self, labels)
        noise = Noise.of_draws(n, seed)
        z = noise(like.new_empty(n, *shape_of_draws(self.image_shape, size)))
        return ancestral_chain(
            lambda x_t, sigma: self.denoise(x_t, sigma, labels),
            z,
            respaced(self.alpha_bars, steps),
            noise,
            posterior_variance,
            self.centre,
            progress,
        )

    def flow_log_prob(
        self, x: Tensor, label: Tensor | None = None, *, seed: int = 0, steps: int = 100, probes: int = 4
    ) -> FlowDensity:
        """ln p(x), given labels (B,) ln p(x | label), of images with sigma_min noise, by the probability flow."""
        return flow_log_prob(self, x, label, seed=seed, steps=steps, probes=probes)

    def fit_covariance(
        self, images: Tensor, form: str = "stationary", *, inflation: float = 1.0, seed: int = 0
    ) -> None:
        super().fit_covariance(images, form, inflation=inflation, seed=seed)
        self.config["residuals"] = form

    def given(self, label: int | str) -> Given:
        """Return p(x | label), itself a prior."""
        return Given(self, label)


def alpha_bars_of(betas: str | Sequence[float], steps: int) -> list[float]:
    """alpha_bar of the T steps of a chain.

    Raises:
        ValueError: there are no betas of that name, or the numbers are not `steps` betas between 0 and 1.
    """
    if isinstance(betas, str):
        chain = lookup("betas", betas, BETAS)(steps)
    else:
        chain = torch.as_tensor(betas, dtype=torch.float64)
        if chain.shape != (steps,) or not bool(((chain > 0) & (chain < 1)).all()):
            raise ValueError(
                f"betas are {tuple(chain.shape)} numbers: give a name, or {steps} numbers between 0 and 1."
            )
    return (1 - chain).cumprod(0).tolist()


@settled
def from_adm(
    source: str | Path | Mapping[str, Tensor],
    *,
    head_channels: int | None = None,
    heads: int | None = None,
    order: str | None = None,
    betas: str | Sequence[float] | None = None,
    steps: int | None = None,
    time_scale: float | None = None,
) -> ADM:
    """Make a prior of an ADM checkpoint: of guided-diffusion, improved-diffusion, or trained with their code.

    Widths, blocks, attention, classes, learned variances and the form of the residual blocks follow from the shapes of
    the weights. All other settings are those of the published checkpoint with the same network, if there is one; give
    them for other networks, or if yours was trained differently. If the file also has a moving average, that is used.
    Weights in half precision stay so, but the network computes in float32. A schedule in the file (betas,
    alphas_cumprod) is used.

    Arguments:
        source: a .pt, .pth, .ckpt or .safetensors file, or the state dict itself.
        head_channels, heads, order: of the attention, see `ADMUNet` (num_head_channels, num_heads; order is "new" with
            use_new_attention_order, else "legacy").
        betas, steps, time_scale: of the chain of its training, see `ADM` (noise_schedule, diffusion_steps;
            rescale_timesteps). Respacing concerns samplers, not networks.

    Raises:
        TypeError: the source is neither a file nor a state dict of tensors.
        ValueError: the file is of another kind, damaged or cut short, would run code, or lacks weights; or a setting
            that shapes do not determine is missing.
        UnsupportedError: the weights belong to another network.
    """
    if not isinstance(source, Mapping | str | Path):
        raise TypeError(f"source is a {type(source).__name__}: give a file, or a state dict, network.state_dict().")
    name = "The state dict" if isinstance(source, Mapping) else str(source)
    state = dict(source) if isinstance(source, Mapping) else read_weights(Path(source))
    if odd := [key for key, value in state.items() if not isinstance(value, Tensor)]:
        raise TypeError(f"{name} holds what are no tensors, {listed(odd)}: give a state dict, network.state_dict().")
    state, buffers = _network_in(state, name)
    layout = _layout(state, name)
    if steps is None and isinstance(betas, Sequence) and not isinstance(betas, str):
        steps = len(betas)
    values = (head_channels, heads, order, betas, steps, time_scale)
    given = {key: value for key, value in zip(SETUP, values) if value is not None}
    setup = _setup(layout, given, chain_in(buffers, name) or {}, name)
    attention = {key: setup.pop(key) for key in ("head_channels", "heads", "order")}
    prior = ADM(layout | attention, **setup)
    missing, others, unlike, broken = misfit(state, prior.net)
    if missing:
        raise ValueError(f"{name} is incomplete: it lacks {listed(missing)}.")
    if others:
        raise UnsupportedError(f"{name} is of another network than ADM's: it has {listed(others)} besides.")
    if unlike:
        raise UnsupportedError(f"{name} is of another network than ADM's, which has other shapes of {listed(unlike)}.")
    if broken:
        raise ValueError(f"{name} is damaged: there are values that are no finite numbers in {listed(broken)}.")
    fill(prior.net, taken_from(state))
    return prior.eval().requires_grad_(False)


def card_of(path: Path) -> dict[str, Any]:
    """Return the card of a checkpoint, as for a genprior prior, with the set-up it is read with."""
    return about(from_adm(path)) | {"file": path.name, "sha256": sha256(path)}


def about(prior: ADM) -> dict[str, Any]:
    """Return the set-up with which a checkpoint is read, for its card."""
    network, chain = prior.config["network"], {key: prior.config[key] for key in ("betas", "steps", "time_scale")}
    known = published({key: value for key, value in network.items() if key not in SETUP})
    attention = {key: network[key] for key in ("head_channels", "heads", "order")}
    return {
        "summary": "a checkpoint of ADM's network",
        "network": f"as that of {', '.join(known.files)} ({known.images})" if known else "as none that was published",
        "taken for": {key: value for key, value in (attention | chain).items() if value is not None},
    }


def _network_in(state: dict[str, Tensor], name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights of the network, by its own names, and the schedule stored beside them.

    Raises:
        ValueError: there are several networks, and not exactly one moving average among them.
        UnsupportedError: there is no network of ADM, or something else besides.
    """
    prefixes = sorted(key.removesuffix(FIRST) for key in state if key.endswith(FIRST))
    if not prefixes:
        raise UnsupportedError(
            f"{name} is not of ADM's network: there is no {FIRST}, but {listed(list(state)) or 'nothing'}."
        )
    averages = [prefix for prefix in prefixes if "ema" in prefix.lower()]
    chosen = averages if len(prefixes) > 1 and averages else prefixes
    if len(chosen) > 1:
        raise ValueError(f"{name} holds several networks, {', '.join(chosen)}: give genprior.from_adm one of them.")
    (prefix,) = chosen
    network, buffers, unknown = {}, {}, []
    for key, tensor in state.items():
        if key in COUNTERS:
            continue
        last = key.rsplit(".", 1)[-1]
        if last in SCHEDULE:
            buffers[last] = tensor
        elif key.startswith(prefix) and not any(key.startswith(p) for p in prefixes if len(p) > len(prefix)):
            network[key.removeprefix(prefix)] = tensor
        elif not any(key.startswith(p) for p in prefixes):
            unknown.append(key)
    if unknown:
        raise UnsupportedError(
            f"{name} holds more than ADM's network, {listed(unknown)}: if that is no part of it, as the autoencoder "
            "of a latent diffusion is, give genprior.from_adm the rest."
        )
    return network, buffers


def _layout(state: dict[str, Tensor], name: str) -> dict[str, Any]:
    """Return what the shapes determine, for a network from images to images."""
    if any(key.startswith("out.") and "positional_embedding" in key for key in state) or "out.2.c_proj.weight" in state:
        raise UnsupportedError(f"{name} is a classifier of guided-diffusion, which is no prior.")
    try:
        layout = layout_of(state)
    except (LookupError, ValueError, ArithmeticError) as error:
        lacks = f"it lacks {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{name} is incomplete, or not of ADM's network: {lacks}.") from error
    channels, outputs = layout["channels"], layout["outputs"]
    if channels == 6 and outputs in (3, 6):
        raise UnsupportedError(
            f"{name} is an upsampler of guided-diffusion: it sees a smaller image too, and is no prior."
        )
    if outputs not in (channels, 2 * channels):
        raise UnsupportedError(
            f"{name} has {channels} channels in and {outputs} out. A prior's has as many out as in, or twice as many "
            "where it learned variances."
        )
    return layout


def _setup(layout: dict[str, Any], given: dict[str, Any], stored: dict[str, Any], name: str) -> dict[str, Any]:
    """Return what shapes do not determine: as given, else from the file's own schedule, else as published."""
    if any(given.get(key, value) != value for key, value in stored.items()):
        raise ValueError(
            f"{name} keeps the schedule of its training among its weights, {_told(stored)}, and another one is given, "
            f"{_told(given)}: leave it out, or give genprior.from_adm the weights alone."
        )
    known = published(layout)
    setup: dict[str, Any] = dict.fromkeys(SETUP) | (known.setup if known else {})
    steps = setup["steps"]
    if "head_channels" in given or "heads" in given:
        setup |= {"head_channels": None, "heads": None}
    setup |= stored | given
    if "time_scale" not in given and setup["steps"] != steps:
        setup["time_scale"] = 1.0 if setup["steps"] == 1000 else None  # 1000 steps need no rescaling
    needed = {"head_channels or heads": setup["head_channels"] or setup["heads"], **setup}
    missing = [key for key, value in needed.items() if value is None and key not in ("head_channels", "heads")]
    if missing:
        raise ValueError(
            f"{name} is none of the published checkpoints ({', '.join(k.files[0] for k in PUBLISHED)}), and its shapes "
            f"do not tell {', '.join(missing)}. Give them as in the flags of its training, such as genprior.from_adm("
            'file, head_channels=64, order="legacy", betas="linear", steps=1000, time_scale=1).'
            f"{ALIKE if layout['outputs'] == layout['channels'] else ''}"
        )
    return setup


def _told(setup: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in setup.items() if key in ("betas", "steps")}
    return ", ".join(f"{k} {v if isinstance(v, str | int) else 'as numbers'}" for k, v in shown.items())
