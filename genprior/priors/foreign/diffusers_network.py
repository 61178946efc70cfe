"""A `UNet2DModel` of diffusers: whether it can be a prior, and its output at any size and in any precision."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import torch
from torch import Tensor, nn

from genprior.checks import OpenShape, UnsupportedError
from genprior.devices import state_of
from genprior.nets.kept import computing, half_of
from genprior.nets.padding import mirrored
from genprior.nets.wrapped import COMPILED, on_one_device, unwrapped

if TYPE_CHECKING:
    from diffusers import UNet2DModel


def package() -> Any:
    """Import diffusers when it is needed, and return it."""
    try:
        import diffusers
    except ImportError as error:
        raise UnsupportedError(
            'Models of diffusers need the package diffusers: pip install "genprior[hub]".'
        ) from error
    return diffusers


def checked(unet: UNet2DModel, image_shape: OpenShape | None) -> tuple[UNet2DModel, OpenShape]:
    """Return the network, on one device, and the shape of its images: the given one, or that of its training.

    Raises:
        UnsupportedError: the network needs a class label, or is of another kind.
        ValueError: its images have other channels than image_shape.
    """
    plain = unwrapped(unet)
    check_kind(plain)
    config = plain.config
    check_config(config)
    shape = _shape_of(config.sample_size, config.in_channels) if image_shape is None else tuple(image_shape)
    if shape[0] != config.in_channels:
        raise ValueError(f"image_shape is {shape}, but the network's images have {config.in_channels} channels.")
    return on_one_device(unet), shape


def multiple_of(unet: UNet2DModel) -> int:
    """Return the number that image sides must be multiples of, for the network's levels."""
    return 2 ** (len(unwrapped(unet).config.block_out_channels) - 1)


def answer(unet: UNet2DModel, z: Tensor, t: Tensor, multiple: int, precision: torch.dtype | None) -> Tensor:
    """Return the output of the network for z (B, C, H, W) and t (B,).

    A network that learned variances gives twice the channels; the second half is dropped.

    Arguments:
        multiple: see `multiple_of`; z is padded to it by mirroring.
        precision: see `Prior.autocast`.
    """
    height, width = z.shape[-2:]
    padded = mirrored(z, multiple)
    padded, around = prepared(unet, padded, precision)
    with around:
        found = unet(padded, t).sample
    return found[:, : z.shape[1], :height, :width].to(z.dtype)


def prepared(
    network: nn.Module, x: Tensor, precision: torch.dtype | None
) -> tuple[Tensor, contextlib.AbstractContextManager]:
    """Return x in the dtype that a network takes, and the context in which it computes; see `Prior.autocast`.

    A network already in the requested half precision, or compiled in half precision, computes unchanged.
    """
    half = half_of(network)
    if half is not None and (precision == half or COMPILED in network._modules):
        return x.to(half), contextlib.nullcontext()
    return x.to(state_of(network).dtype), computing(network, x.device, precision)


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse, judging by its configuration, a network that is not a prior of images alone."""
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


def check_kind(network: Any) -> None:
    """Refuse anything but a `UNet2DModel`."""
    if not isinstance(network, package().UNet2DModel):
        _refuse(type(network).__name__)


def check_name(name: str | None) -> None:
    """Check as `check_kind`, by the class name in a folder: a class that diffusers lacks cannot be built from it."""
    diffusers = package()
    kind = getattr(diffusers, str(name), None)
    if isinstance(kind, type) and issubclass(kind, diffusers.UNet2DModel):
        return
    own = (
        " If it is a subclass of yours, load it and give it with its scheduler: "
        f"genprior.from_diffusers({name}.from_pretrained(folder), scheduler)."
    )
    _refuse(str(name), "" if isinstance(kind, type) else own)


def _refuse(name: str, advice: str = "") -> NoReturn:
    raise UnsupportedError(
        f"The network is a {name}. Only unconditional diffusions, of diffusers' UNet2DModel, are priors here.{advice}"
    )


def _shape_of(size: int | list[int] | None, channels: int) -> OpenShape:
    height, width = (size, size) if size is None or isinstance(size, int) else size
    return channels, height, width
