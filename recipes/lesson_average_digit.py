"""Asked for a 5, a regressor draws the average five; a sampler of p(x | 5) draws sharp, different ones.

    python recipes/lesson_average_digit.py --data mnist.npz --out average-digit.png

`mnist.npz` holds `train_images`, uint8 (N, 28, 28), and `train_labels`. The regressor is trained here, from the label
to the image, on the squared error, whose minimiser is E[x | label]: the mean of the digits of that class.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from einops import rearrange
from torch import nn

import genprior
from genprior import images
from genprior.devices import alone
from genprior.training.data import Arrays


def regressor(x: torch.Tensor, label: torch.Tensor, steps: int) -> nn.Module:
    """Train a network from labels to images on the squared error."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Embedding(10, 32), nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, x[0].numel()))
    adam = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(steps):
        adam.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        rows = torch.randint(len(x), (256,), generator=draw)
        adam.zero_grad()
        (net(label[rows]) - x[rows].flatten(1)).square().mean().backward()
        adam.step()
    return net.requires_grad_(False)


def grey(x: torch.Tensor) -> float:
    """Return the share of values that are neither nearly black nor nearly white: high where images are blurred."""
    return float(((x > 0.1) & (x < 0.9)).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help=".npz with train_images and train_labels")
    parser.add_argument("--label", type=int, default=5)
    parser.add_argument("--prior", default="ddpm-mnist", help="name or folder of a prior with classes")
    parser.add_argument("--steps", type=int, default=1500, help="of the regressor's training")
    parser.add_argument("--n", type=int, default=8, help="draws")
    parser.add_argument("--out", type=Path, default=Path("average-digit.png"))
    options = parser.parse_args()
    alone("lesson_average_digit")

    data = Arrays(options.data, "train_images", "train_labels", keep=slice(0, 55000), seed=None)
    x = rearrange(torch.from_numpy(data.images), "b h w c -> b c h w").float() / 255
    label = torch.from_numpy(data.labels)
    own = x[label == options.label]
    asked = regressor(x, label, options.steps)(torch.tensor([options.label])).reshape(1, *x.shape[1:])
    drawn = genprior.load_prior(options.prior).given(options.label).sample(options.n, seed=0).clamp(0, 1)
    distance = float((asked - own.mean(0)).square().mean().sqrt())
    print(f"The regressor's {options.label} is {distance:.4f} (root mean square) from the mean of the data's.")
    print(f"Grey values: {grey(own):.3f} of the data, {grey(asked):.3f} of the regressor, {grey(drawn):.3f} of draws.")

    rows = {
        "regressor": asked.repeat(options.n, 1, 1, 1),
        "p(x | label)": drawn,
        "data": own[: options.n],
    }
    figure, axes = plt.subplots(len(rows), figsize=(6, 2.6), layout="constrained")
    for axis, (name, digits) in zip(axes, rows.items()):
        axis.imshow(images.grid(digits.clamp(0, 1), columns=options.n)[0], cmap="gray", vmin=0, vmax=1)
        axis.set_ylabel(name, rotation=0, ha="right", va="center")
        axis.set_xticks([]), axis.set_yticks([])
    figure.savefig(options.out, dpi=100)


if __name__ == "__main__":
    main()
