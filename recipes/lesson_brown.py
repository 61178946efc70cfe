"""Asked for the colours of a grey photograph, a regressor paints it brown; a sampler of p(x | y) finds several ways.

    python recipes/lesson_brown.py --data PHOTOS --posterior runs/colorize-photo/prior --out brown.png

The posterior is that of `recipes/train_colorize_photo.py`. The regressor is its network at the highest noise, where x_t
says nothing about x: trained on the squared error, it returns E[x | x_t, y] = E[x | y], the mean of all colours that y
leaves open. The sampler `amortized` draws with the same network.
"""

import argparse
from pathlib import Path

import torch

import genprior
from genprior import images
from genprior.devices import alone
from genprior.noise import Noise
from genprior.operators import Colorize, Measurement
from genprior.posteriors.amortized import observe
from genprior.training.data import Photos, first


def saturation(x: torch.Tensor) -> float:
    """Return the root mean square deviation of the channels from their mean: 0 for grey."""
    return float((x - x.mean(-3, keepdim=True)).square().mean().sqrt())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of photographs that the posterior was not trained on")
    parser.add_argument("--posterior", required=True, help="folder of a learned posterior for Colorize")
    parser.add_argument("--photos", type=int, default=6)
    parser.add_argument("--size", type=int, default=64, help="side of the photographs, made small, in pixels")
    parser.add_argument("--n", type=int, default=4, help="draws of each")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("brown.png"))
    options = parser.parse_args()
    alone("lesson_brown")

    whole = first(Photos(options.data, 4 * options.size, augment=False), options.photos)
    x = torch.nn.functional.interpolate(whole, size=(options.size,) * 2, mode="area")
    posterior = genprior.load_prior(options.posterior)
    A = Colorize(tuple(x.shape[1:]))
    measurement = Measurement(A(x), A, 0.005)

    x_t = 0.5 + posterior.sigma_max * Noise(0, torch.arange(len(x)))(x)
    with torch.no_grad():
        mean = posterior.denoise_given(x_t, posterior.sigma_max, observe(posterior, measurement))
    draws = genprior.restore(
        measurement, prior=posterior, sampler="amortized", steps=options.steps, n=options.n, seed=0, progress=False
    ).samples
    draws = draws.reshape(len(x), options.n, *x.shape[1:])
    between = float((draws - draws.mean(1, keepdim=True)).square().sum(1).div(max(options.n - 1, 1)).mean().sqrt())
    print("| images | saturation |\n|---|---|")
    for name, shown in (("photographs", x), ("regressor", mean), ("draws", draws), ("mean of draws", draws.mean(1))):
        print(f"| {name} | {saturation(shown):.4f} |")
    print(f"Standard deviation between draws of one photograph: {between:.4f}")

    columns = [measurement.y.repeat(1, 3, 1, 1), mean, *draws.unbind(1), x]
    sheet = torch.stack(columns, dim=1).flatten(0, 1).clamp(0, 1)
    images.save(images.grid(sheet, columns=len(columns)), options.out)
    print(f"{options.out}: measurement, regressor, {options.n} draws, photograph")


if __name__ == "__main__":
    main()
