"""The network of ADM: of the published sizes, and to rounding that of other libraries with the same weights."""

import deepinv.models.diffunet as reference
import pytest
import torch
from torch import nn

from genprior.nets.adm import ADMUNet
from genprior.priors.foreign.adm_published import PUBLISHED, layout_of

# Millions, as published (ADM: table 4 of Dhariwal and Nichol; FFHQ: its file), to the digits that are.
COUNTS = {
    "ffhq_10m.pt": 93.56,
    "256x256_diffusion_uncond.pt": 552.81,
    "64x64_diffusion.pt": 296,
    "128x128_diffusion.pt": 422,
    "256x256_diffusion.pt": 554,
    "512x512_diffusion.pt": 559,
    "imagenet64_cond_270M_250K.pt": 273,
}
ATTENTION = ("head_channels", "heads", "order")


class Reference(nn.Module):
    """The network by deepinv's layers, put together as the paper says, for the set-ups that its DiffUNet does not have.

    Arguments as those of `ADMUNet`.
    """

    def __init__(self, base, widths, blocks, attention, head_channels, heads, order, scale_shift, resample, classes):
        super().__init__()
        E = 4 * base
        self.base = base
        self.time_embed = nn.Sequential(nn.Linear(base, E), nn.SiLU(), nn.Linear(E, E))
        if classes:
            self.label_emb = nn.Embedding(classes, E)

        def residual(width, out, **change):
            return reference.ResBlock(width, E, 0.0, out, use_scale_shift_norm=scale_shift, **change)

        def attend(width):
            return reference.AttentionBlock(
                width, heads or 1, head_channels or -1, use_new_attention_order=order == "new"
            )

        layers = reference.TimestepEmbedSequential
        width, skips = widths[0], [widths[0]]
        self.input_blocks = nn.ModuleList([layers(nn.Conv2d(3, width, 3, padding=1))])
        for level, out in enumerate(widths):
            for _ in range(blocks):
                self.input_blocks.append(layers(residual(width, out), *[attend(out)] * (level in attention)))
                width = out
                skips.append(width)
            if level < len(widths) - 1:
                down = residual(width, width, down=True) if resample else reference.Downsample(width, True)
                self.input_blocks.append(layers(down))
                skips.append(width)
        self.middle_block = layers(residual(width, width), attend(width), residual(width, width))
        self.output_blocks = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for k in range(blocks + 1):
                parts = [residual(width + skips.pop(), widths[level])]
                width = widths[level]
                parts += [attend(width)] * (level in attention)
                if level and k == blocks:
                    parts.append(residual(width, width, up=True) if resample else reference.Upsample(width, True))
                self.output_blocks.append(layers(*parts))
        self.out = nn.Sequential(nn.GroupNorm(32, width), nn.SiLU(), nn.Conv2d(width, 6, 3, padding=1))

    def forward(self, x, t, label=None):
        angles = t[:, None] * 10000 ** (-torch.arange(self.base // 2) / (self.base // 2))
        embedding = self.time_embed(torch.cat([angles.cos(), angles.sin()], 1))
        if label is not None:
            embedding = embedding + self.label_emb(label)
        h, skips = x, []
        for block in self.input_blocks:
            h = block(h, embedding)
            skips.append(h)
        h = self.middle_block(h, embedding)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], 1), embedding)
        return self.out(h)


def randomized(network):
    """Weights that keep the scale of what they see, none of them 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        std = 0.1 if parameter.ndim < 2 else parameter[0].numel() ** -0.5
        parameter.data = std * torch.randn(parameter.shape, generator=generator)
    return network.eval()


def alike(ours, theirs, side, classes=0):
    """To 1e-5 of the largest output, float32."""
    generator = torch.Generator().manual_seed(1)
    x, t = torch.randn(2, 3, side, 2 * side, generator=generator), torch.tensor([3.0, 700.0])
    label = {"label": torch.tensor([1, classes - 1])} if classes else {}
    with torch.no_grad():
        found, wanted = ours(x, t, **label), theirs(x, t, **label)
    assert found.shape == (2, 6, side, 2 * side)
    assert wanted.abs().max() > 0.1
    assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max()
    if classes:
        other = ours(x, t, label=torch.tensor([0, 0]))
        assert (other - wanted).abs().max() > 1e-3 * wanted.abs().max()


def name_of(known):
    return known.files[0].removesuffix(".pt")


@pytest.mark.parametrize("known", PUBLISHED, ids=name_of)
def test_every_published_setup_is_the_reference_with_fewer_channels(known):
    """The eleven set-ups with an eighth to a quarter of their channels, as many heads as theirs at least."""
    layout, setup = dict(known.layout), {key: known.setup[key] for key in ATTENTION}
    small = 8 if layout["base"] > 128 else 4
    layout["base"] //= small
    layout["widths"] = [max(32, width // small // 32 * 32) for width in layout["widths"]]
    layout["classes"] = min(layout["classes"], 7)
    if setup["head_channels"]:
        setup["head_channels"] //= 4
    ours = randomized(ADMUNet(**layout, **setup))
    same = {key: layout[key] for key in ("base", "widths", "blocks", "attention", "scale_shift", "classes")}
    theirs = Reference(**same, **setup, resample=layout["resample_blocks"])
    theirs.load_state_dict(ours.state_dict())
    alike(ours, theirs.eval(), side=ours.multiple, classes=layout["classes"])


def test_ffhq_at_its_full_size_is_that_of_deepinv():
    """DiffUNet itself, 93.56 M weights, by the names of its state dict."""
    theirs = randomized(reference.DiffUNet(pretrained=None))
    known = PUBLISHED[0]
    ours = ADMUNet(**known.layout, **{key: known.setup[key] for key in ATTENTION})
    ours.load_state_dict({key: t for key, t in theirs.state_dict().items() if "alphas" not in key})
    alike(ours.eval(), theirs.forward_diffusion, side=32)


@pytest.mark.parametrize("known", PUBLISHED, ids=name_of)
def test_sizes_are_those_published_and_the_shapes_tell_the_layout(known):
    with torch.device("meta"):
        network = ADMUNet(**known.layout, **{key: known.setup[key] for key in ATTENTION})
    count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    if wanted := COUNTS.get(known.files[0]):
        assert count == pytest.approx(wanted, abs=0.005 if wanted % 1 else 0.5)
    assert layout_of(network.state_dict()) == known.layout


def test_no_two_published_setups_have_one_layout():
    assert all(a.layout != b.layout for k, a in enumerate(PUBLISHED) for b in PUBLISHED[:k])


@pytest.mark.parametrize("wrong", [{"heads": 2, "order": "new"}, {"head_channels": 16, "order": "legacy"}])
def test_what_shapes_do_not_tell_changes_the_answer(wrong):
    """So it has to be known: another order, or other heads, with the same weights, is another function."""
    small = {"base": 32, "widths": (32, 64), "blocks": 1, "attention": (1,)}
    right, other = ADMUNet(**small, heads=2), ADMUNet(**small, **wrong)
    other.load_state_dict(randomized(right).state_dict())
    x, t = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([10.0])
    with torch.no_grad():
        assert (right(x, t) - other(x, t)).abs().max() > 1e-3 * right(x, t).abs().max()


@pytest.mark.parametrize("wrong", [{}, {"heads": 1, "head_channels": 32}, {"head_channels": 48}, {"heads": 5}])
def test_heads_that_do_not_fit_are_refused(wrong):
    with pytest.raises(ValueError, match="head_channels"):
        ADMUNet(base=32, widths=(32, 64), attention=(1,), **wrong)
