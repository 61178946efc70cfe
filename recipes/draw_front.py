"""Draw the picture of the front page: measurements, draws, their mean and spread, and the truth.

    python recipes/draw_front.py --out docs/images/front.png

Rows: a photograph with holes; an unknown motion blur, identified; a digit drawn from the prior, with its upper half
hidden; with --flowers, a flower with a hidden box, and one made eight times smaller. Shown are the first three draws of
seed 0, unselected. Printed are the PSNR of the mean, and the share of values in the 50 % interval of the draws.
"""

import argparse
from pathlib import Path

import matplotlib
import torch
from demo import photograph
from torch import Tensor
from torch.nn.functional import interpolate

import genprior
from genprior.benchmark.contact import sheet
from genprior.devices import alone
from genprior.result import Restoration
from genprior.scores.metrics import psnr
from genprior.scores.uncertainty import coverage
from genprior.training.data import Arrays

NOISE = 0.02
SHOWN = 3  # draws
UPPER = torch.arange(28)[:, None].expand(28, 28) < 15  # the hidden part of a digit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flowers", type=Path, help=".npz with test_images of 64 x 64 flowers, for ddpm-flowers")
    parser.add_argument("--flower", type=int, default=200, help="which of them")
    parser.add_argument("--side", type=int, default=128, help="of the photographs, in pixels")
    parser.add_argument("--n", type=int, default=16, help="draws that mean and spread are of")
    parser.add_argument("--out", type=Path, default=Path("front.png"))
    options = parser.parse_args()
    alone("draw_front")

    def restored(what: str, x: Tensor, op: str, prior, steps=None, told=True, **parameters) -> None:
        y = genprior.degrade(x, op, noise=NOISE, seed=0, **parameters)
        given = (y,) if told else (y.y, op)
        result = genprior.restore(*given, prior=prior, n=options.n, steps=steps, seed=0)
        truth = y.operator.frame(x)
        factor = max(1, options.side // truth.shape[-1])
        for name, picture in pictures(result, result.samples, truth, SHOWN).items():
            columns.setdefault(name, []).append(interpolate(picture[None], scale_factor=factor)[0])
        found = "" if result.identification is None else f"; {result.identification.in_words}"
        held = float(coverage(result.samples[None], truth[None], 0.5))
        value = float(psnr(result.samples.mean(0), truth))
        print(f"{what}: mean {value:.2f} dB; {held:.0%} of values in the 50 % interval of the draws{found}", flush=True)

    columns: dict[str, list[Tensor]] = {}
    cat, astronaut = photograph("chelsea", options.side), photograph("astronaut", options.side + 10)
    restored("holes", cat, "inpaint", "ddpm-photo", mask="stroke", fraction=0.35)
    restored("unknown motion", astronaut, "motion-deblur", "ddpm-photo", told=False, length=11, angle=30)
    digits = genprior.load_prior("ddpm-mnist")
    five = digits.given(5).sample(1, seed=5)[0].clamp(0, 1)
    restored("hidden half", five, "inpaint", digits, steps=100, mask=UPPER)
    if options.flowers:
        flower = Arrays(options.flowers, "test_images", seed=None)[options.flower]["x"]
        restored("flower with a box", flower, "inpaint", "ddpm-flowers", mask="box", size=24)
        restored("flower x8", flower, "super-resolution", "ddpm-flowers", scale=8)
    sheet(columns).quantize(256).save(options.out, optimize=True)  # a third of the file size, hardly visible
    print(f"{options.out}: {', '.join(columns)}; {options.out.stat().st_size / 1000:.0f} kB")


def pictures(result: Restoration, samples: Tensor, truth: Tensor, shown: int) -> dict[str, Tensor]:
    """A row of pictures of the first image: y, some of its samples (n, C, H, W), their mean and spread, the truth."""
    mean, std = samples.mean(0), samples.std(0, correction=0).mean(0)
    spread = torch.from_numpy(matplotlib.colormaps["magma"]((std / max(float(std.max()), 1e-6)).numpy())[..., :3])
    y = interpolate(result.measurement.y[:1], truth.shape[1:])[0]
    draws = {f"draw {k + 1}": x for k, x in enumerate(samples[:shown])}
    return {"measured": y, **draws, "mean": mean, "spread": spread.movedim(-1, 0).float(), "truth": truth}


if __name__ == "__main__":
    main()
