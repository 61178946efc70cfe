"""The published checkpoints of ADM's network: the settings that their shapes determine, and those that they do not.

References: P. Dhariwal, A. Nichol, Diffusion models beat GANs on image synthesis, 2021, and the flags in the README of
openai/guided-diffusion ("imagenet", "lsun"). A. Nichol, P. Dhariwal, Improved denoising diffusion probabilistic models,
2021, and the flags in the README of openai/improved-diffusion ("small"). J. Choi et al., ILVR, 2021, whose FFHQ network
H. Chung et al., Diffusion posterior sampling for general noisy inverse problems, 2023, and later papers use.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

Layout = dict[str, Any]


class Published(NamedTuple):
    """A set-up with which checkpoints were published.

    Attributes:
        files: their names.
        images: what they were trained on.
        layout: arguments of `ADMUNet` that shapes determine.
        setup: those that shapes do not determine: head_channels or heads, and order, of the attention; betas and steps
            of the chain; time_scale, by which the step is multiplied for the network.
    """

    files: tuple[str, ...]
    images: str
    layout: Layout
    setup: dict[str, Any]


def _layout(base: int, multipliers: tuple[float, ...], blocks: int, attention: tuple[int, ...], **others) -> Layout:
    return {
        "channels": 3,
        "outputs": 6,
        "base": base,
        "widths": [int(base * m) for m in multipliers],
        "blocks": blocks,
        "attention": list(attention),
        "scale_shift": True,
        "resample_blocks": True,
        "classes": 0,
        **others,
    }


HEADS_OF_64 = {"head_channels": 64, "heads": None, "order": "legacy"}
LINEAR = {"betas": "linear", "steps": 1000, "time_scale": 1.0}
COSINE = {"betas": "cosine", "steps": 1000, "time_scale": 1.0}
# 4000 steps, which the network sees rescaled to 1000 unless the flags say otherwise
SMALL = {"head_channels": None, "heads": 4, "order": "legacy", "betas": "cosine", "steps": 4000}
SIDE_256 = (1, 1, 2, 2, 4, 4)
SIDE_512 = (0.5, 1, 1, 2, 2, 4, 4)

PUBLISHED = (
    Published(
        ("ffhq_10m.pt", "afhqdog_4m.pt"),
        "FFHQ, or dogs of AFHQ, 256 x 256",
        _layout(128, SIDE_256, 1, (4,)),
        HEADS_OF_64 | LINEAR,
    ),
    Published(
        ("256x256_diffusion_uncond.pt", "lsun_bedroom.pt", "lsun_cat.pt", "lsun_horse.pt", "lsun_horse_nodropout.pt"),
        "ImageNet, or bedrooms, cats or horses of LSUN, 256 x 256",
        _layout(256, SIDE_256, 2, (3, 4, 5)),
        HEADS_OF_64 | LINEAR,
    ),
    Published(
        ("256x256_diffusion.pt",),
        "ImageNet with labels, 256 x 256",
        _layout(256, SIDE_256, 2, (3, 4, 5), classes=1000),
        HEADS_OF_64 | LINEAR,
    ),
    Published(
        ("128x128_diffusion.pt",),
        "ImageNet with labels, 128 x 128",
        _layout(256, (1, 1, 2, 3, 4), 2, (2, 3, 4), classes=1000),
        {"head_channels": None, "heads": 4, "order": "legacy"} | LINEAR,
    ),
    Published(
        ("64x64_diffusion.pt",),
        "ImageNet with labels, 64 x 64",
        _layout(192, (1, 2, 3, 4), 3, (1, 2, 3), classes=1000),
        {"head_channels": 64, "heads": None, "order": "new"} | COSINE,
    ),
    Published(
        ("512x512_diffusion.pt",),
        "ImageNet with labels, 512 x 512",
        _layout(256, SIDE_512, 2, (4, 5, 6), classes=1000),
        HEADS_OF_64 | LINEAR,
    ),
    Published(
        ("512x512_diffusion_uncond_finetune_008100.pt",),
        "ImageNet, 512 x 512, by K. Crowson",
        _layout(256, SIDE_512, 2, (4, 5, 6)),
        HEADS_OF_64 | LINEAR,
    ),
    Published(
        ("imagenet64_uncond_100M_1500K.pt", "imagenet64_uncond_vlb_100M_1500K.pt"),
        "ImageNet, 64 x 64",
        _layout(128, (1, 2, 3, 4), 3, (2, 3), resample_blocks=False),
        SMALL | {"time_scale": 0.25},
    ),
    Published(
        ("imagenet64_cond_270M_250K.pt",),
        "ImageNet with labels, 64 x 64",
        _layout(192, (1, 2, 3, 4), 3, (2, 3), resample_blocks=False, classes=1000),
        SMALL | {"time_scale": 1.0},
    ),
    Published(
        ("cifar10_uncond_50M_500K.pt", "cifar10_uncond_vlb_50M_500K.pt"),
        "CIFAR-10, 32 x 32",
        _layout(128, (1, 2, 2, 2), 3, (1, 2), resample_blocks=False),
        SMALL | {"time_scale": 0.25},
    ),
    Published(
        ("lsun_uncond_100M_1200K_bs128.pt", "lsun_uncond_100M_2400K_bs64.pt"),
        "bedrooms of LSUN, 256 x 256",
        _layout(128, SIDE_256, 2, (4,), resample_blocks=False, scale_shift=False),
        {"head_channels": None, "heads": 1, "order": "legacy"} | LINEAR,
    ),
)


def published(layout: Layout) -> Published | None:
    """Return the published set-up of such a network, or None."""
    return next((known for known in PUBLISHED if known.layout == layout), None)


def layout_of(shapes: Mapping[str, Tensor]) -> Layout:
    """Return the arguments of `ADMUNet` that the shapes of a state dict determine.

    Raises:
        LookupError, ValueError, ArithmeticError: it belongs to another network; even without an error, `ADMUNet` with
            these arguments may still be another one.
    """
    count = 1 + max(int(name.split(".")[1]) for name in shapes if name.startswith("output_blocks."))
    # On the way up, the last block of each level ends with a change of resolution: a second residual or a convolution.
    seconds = [f"{i}.{layer}.weight" for i in (1, 2) for layer in ("in_layers.0", "conv")]
    ends = [k for k in range(count) if any(f"output_blocks.{k}.{second}" in shapes for second in seconds)]
    blocks = ends[0] if ends else count - 1
    firsts = [1 + level * (blocks + 1) for level in range(count // (blocks + 1))]
    widths = [shapes[f"input_blocks.{k}.0.out_layers.3.weight"].shape[0] for k in firsts]
    return {
        "channels": shapes["input_blocks.0.0.weight"].shape[1],
        "outputs": shapes["out.2.weight"].shape[0],
        "base": shapes["time_embed.0.weight"].shape[1],
        "widths": widths,
        "blocks": blocks,
        "attention": [level for level, k in enumerate(firsts) if f"input_blocks.{k}.1.qkv.weight" in shapes],
        "scale_shift": shapes["input_blocks.1.0.emb_layers.1.weight"].shape[0] == 2 * widths[0],
        "resample_blocks": f"input_blocks.{1 + blocks}.0.op.weight" not in shapes,
        "classes": shapes["label_emb.weight"].shape[0] if "label_emb.weight" in shapes else 0,
    }
