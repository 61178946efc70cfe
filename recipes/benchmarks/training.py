"""Images per second of a training step: our DDPM and flow, diffusers' UNet2DModel and normflows' Glow.

    python recipes/benchmarks/training.py                (--device cuda --precision bf16 where there is one)

Forward, backward and AdamW on one batch in memory, the same for all; noise and noise level are drawn in the step. The
peers have as many parameters as ours to within a tenth: UNet2DModel with three levels of two blocks and no attention,
like ours, at widths that give this number, and Glow with two levels of eight steps (ours have eight and four). Equal
parameters are not equal operations: our U-Net first folds 2 x 2 pixels into channels. Steps of ours and theirs take
turns; it prints the median (quartiles) of the ratio of their times. Needs `pip install diffusers normflows`.
"""

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
from common import machine, seconds
from torch import Tensor, nn

from genprior.priors.ddpm import DDPM
from genprior.priors.flow import Flow
from genprior.training.likelihood import MaximumLikelihood
from genprior.training.objectives import Denoising

Loss = Callable[[Tensor, int], Tensor]
WIDTHS = (64, 96, 160)  # of UNet2DModel
LEVELS, STEPS, HIDDEN = 2, 8, 144  # of Glow


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["no", "bf16"], default="no")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)

    print(f"{machine(device)}, batch {options.batch}, precision {options.precision}\n")
    print("| model | images | parameters, ours | theirs | time, theirs / ours |\n|---|---|---|---|---|")
    for name in options.models:
        shape, ours, theirs = PAIRS[name]
        torch.manual_seed(0)
        models = [ours(shape), theirs(shape)]
        steps = [step(*model, shape, options, device) for model in models]
        ratios = []
        for repeat in range(1 + options.repeats):
            mine, other = (seconds(partial(each, repeat), device) for each in steps)
            ratios.append(other / mine)
        low, middle, high = statistics.quantiles(ratios[1:], n=4)
        counts = " | ".join(f"{sum(p.numel() for p in module.parameters()) / 1e6:.2f} M" for module, _ in models)
        size = " x ".join(map(str, shape))
        print(f"| {name} | {size} | {counts} | {middle:.2f} ({low:.2f} - {high:.2f}) |", flush=True)


def step(module: nn.Module, loss: Loss, shape: tuple[int, ...], options: argparse.Namespace, device: torch.device):
    """Return one training step, as a function of its number."""
    module.to(device, memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    x = torch.rand(options.batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)

    def train(number: int) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            found = loss(x, number)
        found.backward()
        optimizer.step()
        optimizer.zero_grad()

    return train


def of_items(objective: nn.Module) -> tuple[nn.Module, Loss]:
    def loss(x: Tensor, number: int) -> Tensor:
        items = torch.arange(len(x), device=x.device) + number * len(x)
        return objective({"x": x, "item": items}, number)[0]

    return objective, loss


def ddpm(shape: tuple[int, ...]) -> tuple[nn.Module, Loss]:
    return of_items(Denoising(DDPM((shape[0], None, None))))


def diffusers_ddpm(shape: tuple[int, ...]) -> tuple[nn.Module, Loss]:
    from diffusers import DDPMScheduler, UNet2DModel

    model = UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        layers_per_block=2,
        block_out_channels=WIDTHS,
        down_block_types=["DownBlock2D"] * len(WIDTHS),
        up_block_types=["UpBlock2D"] * len(WIDTHS),
        add_attention=False,
    )
    scheduler = DDPMScheduler()

    def loss(x: Tensor, number: int) -> Tensor:
        noise = torch.randn_like(x)
        t = torch.randint(0, 1000, (len(x),), device=x.device)
        return nn.functional.mse_loss(model(scheduler.add_noise(2 * x - 1, noise, t), t).sample, noise)

    return model, loss


def flow(shape: tuple[int, ...]) -> tuple[nn.Module, Loss]:
    return of_items(MaximumLikelihood(Flow(shape)))


def normflows_glow(shape: tuple[int, ...]) -> tuple[nn.Module, Loss]:
    import normflows as nf

    C, H, W = shape
    bases, merges, flows = [], [], []
    for i in range(LEVELS):
        side, latent = 2 ** (LEVELS - i), C * 2 ** (LEVELS - i)
        bases.append(nf.distributions.DiagGaussian((latent if i else 2 * latent, H // side, W // side)))
        blocks = [nf.flows.GlowBlock(2 * latent, HIDDEN, split_mode="channel", scale=True) for _ in range(STEPS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        merges += [nf.flows.Merge()] if i else []
    model = nf.MultiscaleFlow(bases, flows, merges)
    return model, lambda x, number: model.forward_kld(x)


PAIRS = {
    "DDPM": ((3, 64, 64), ddpm, diffusers_ddpm),
    "flow": ((1, 28, 28), flow, normflows_glow),
}


if __name__ == "__main__":
    main()
