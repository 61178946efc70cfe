"""Checks, by one evaluation at low noise, that a function given as a denoiser denoises.

D(x, sigma) is near x where sigma is small. A network that predicts the noise, or the score, is not.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from genprior.checks import Shape
from genprior.noise import Noise
from genprior.priors.base import Prior

# Other targets that networks predict from x_t = x + sigma n: their slope in n, and the denoiser they give.
OTHERS = {
    "the noise n": (lambda sigma: 1.0, "x_t - sigma * f(x_t, sigma)"),
    "the noise sigma n": (lambda sigma: sigma, "x_t - f(x_t, sigma)"),
    "the score": (lambda sigma: -1 / sigma, "x_t + sigma**2 * f(x_t, sigma)"),
}
# Share of the slope: where noise equals the spread of images, a denoiser finds from a third to all of the noise.
FOUND = 0.6


@torch.no_grad()
def check_denoises(prior: Prior, image_shape: Shape, like: Tensor) -> bool:
    """Refuse a prior whose D(x, sigma_min) is not near x, for a smooth x.

    A denoiser moves x by about sigma_min. A function that predicts noise gives about 0 for a smooth image, so it misses
    x by at least the spread. D(x, sigma_min) counts as near if its root-mean-square error is at most sigma_min plus
    three quarters of the spread.

    Arguments:
        prior: has `denoise`.
        image_shape: (C, H, W) of x.
        like: a tensor of the dtype and on the device that the function computes with.

    Returns:
        Whether the check was possible: a function that fails here does not take such images, or will fail again later.

    Raises:
        ValueError: D(x, sigma_min) is not near x; the message says what the function seems to predict.
    """
    _, height, width = image_shape
    centre, spread = prior.centre, prior.spread
    # waves of a few periods, with the spread of images
    waves = (torch.linspace(0, 9, height)[:, None] + torch.linspace(0, 14, width)).sin()
    wave = (math.sqrt(2) * spread * waves).to(like).expand(1, *image_shape)
    x = torch.as_tensor(centre).to(like) + wave
    low, high = prior.sigma_min, prior.sigma_max
    try:
        off = float((prior.denoise(x, low) - x).square().mean().sqrt())
    except Exception:
        return False
    if off <= 0.75 * spread + low:
        return True
    where = f"an image around {float(torch.as_tensor(centre).mean()):.3g} of spread {spread:.3g}"
    raise ValueError(
        f"The denoiser D is none: D(x, sigma) should be near x for small sigma, and D(x, {low:.3g}) is off by "
        f"{off:.3g} for {where}. {_advice(prior.denoise, x, min(spread, high))}"
    )


def _advice(denoise: Callable[[Tensor, float], Tensor], x: Tensor, sigma: float) -> str:
    """Return advice on what the function seems to predict, judged by how its output changes with the noise."""
    n = Noise(0, torch.zeros(1, dtype=torch.long))(x)
    change = (denoise(x + sigma * n, sigma) - denoise(x - sigma * n, sigma)) / 2
    slope = float((change * n).mean() / n.square().mean())
    alike = abs(slope) * float((n.square().mean() / change.square().mean()).sqrt())
    off = {what: slope / (FOUND * own(sigma)) for what, (own, _) in OTHERS.items()}
    near = {what: abs(math.log(ratio)) for what, ratio in off.items() if 0.25 < ratio < 4}
    if alike > 0.5 and near:
        what = min(near, key=near.__getitem__)
        return (
            f"It seems to predict {what}: give genprior.from_denoiser(lambda x_t, sigma: {OTHERS[what][1]}), with f "
            "your function. (Of diffusers' networks and their schedulers, genprior.from_diffusers makes that.)"
        )
    return (
        "Is it trained, is its image on [0, 1], and is it E[x | x_t] that it gives? Of a network that predicts the "
        "noise n give lambda x_t, sigma: x_t - sigma * f(x_t, sigma); of a score, x_t + sigma**2 * f(x_t, sigma)."
    )
