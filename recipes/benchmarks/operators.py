"""How fast our operators are: deepinv's seconds over ours, for A, A^T and the proximal step.

    python recipes/benchmarks/operators.py

deepinv's is the fastest equivalent: among `Blur`, directly or by FFT, and `BlurFFT` for circular blurs; of `Blur` for
boundary "valid"; and among `Downsampling` (bicubic, circular; proximal step in closed form) and `DownsamplingMatlab`
(bicubic, antialiased) for super-resolution x4. "CG" is the proximal step of `Blur` by FFT and of `DownsamplingMatlab`,
by conjugate gradients to deepinv's own tolerance. The proximal step starts from white noise, with gamma = 100, which
corresponds to noise 0.025 and images of standard deviation 0.25.

One image, float32; median (quartiles) over --repeats turns, in which ours and theirs are timed one after the other.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable

import torch
from common import machine, seconds
from deepinv.physics import Blur as DeepinvBlur
from deepinv.physics import BlurFFT, Downsampling, DownsamplingMatlab, LinearPhysics
from torch import Tensor

from genprior.operators import Blur, SuperResolution, gaussian_kernel, motion_kernel
from genprior.operators.linear import LinearOperator

GAMMA = 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", type=int, default=[256, 1024])
    parser.add_argument("--kernels", nargs="+", type=int, default=[9, 31, 61])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)

    print(f"{machine(device)}\n")
    print("| operator | image | A | A^T | prox | prox against CG |\n|---|---|---|---|---|---|")
    for size in options.sizes:
        x, z = torch.rand(2, 1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
        for name, operator, physics in pairs(size, options.kernels):
            cells = compare(operator, [p.to(device) for p in physics], x, z, options.repeats)
            print(f"| {name} | 3 x {size} x {size} | {' | '.join(cells)} |", flush=True)


def pairs(size: int, sides: list[int]):
    """Yield (name, our operator, deepinv's physics that do the same)."""
    shape = (3, size, size)
    for side in sides:
        # a Gaussian is separable, an oblique motion is not
        kernels = {f"Gaussian {side} px": gaussian_kernel(side / 6, side), f"motion {side} px": motion_kernel(side, 30)}
        for (name, kernel), boundary in itertools.product(kernels.items(), ("circular", "valid")):
            k = kernel[None, None].float()
            physics = [DeepinvBlur(k, boundary, use_fft) for use_fft in (False, True)]
            if boundary == "circular":
                physics.append(BlurFFT(shape, k))
            yield f"{name}, {boundary}", Blur(kernel, shape, boundary), physics
    # its closed form holds for circular blurs only
    down = [Downsampling(shape, "bicubic", 4, padding="circular"), DownsamplingMatlab(factor=4)]
    yield "super-resolution x4", SuperResolution(4, shape), down


def compare(operator: LinearOperator, physics: list[LinearPhysics], x: Tensor, z: Tensor, repeats: int) -> list[str]:
    """Return the cells: the seconds of the fastest of theirs over ours."""
    y = operator(x)
    measured = [p.A(x) for p in physics]
    forward = [lambda p=p: p.A(x) for p in physics]
    adjoint = [lambda p=p, v=v: p.A_adjoint(v) for p, v in zip(physics, measured)]
    closed, iterated = [], []
    for p, v in zip(physics, measured):
        by_cg = isinstance(p, DeepinvBlur | DownsamplingMatlab)
        (iterated if by_cg else closed).append(lambda p=p, v=v: p.prox_l2(z, v, GAMMA))
    prox = lambda: operator.prox(z, y, GAMMA)  # noqa: E731
    return [
        against(lambda: operator(x), forward, x.device, repeats),
        against(lambda: operator.adjoint(y), adjoint, x.device, repeats),
        against(prox, closed, x.device, repeats),
        against(prox, iterated[-1:], x.device, 3),
    ]


def against(mine: Callable, theirs: list[Callable], device: torch.device, repeats: int) -> str:
    """Return median and quartiles of the ratio of seconds, for the fastest of `theirs`."""
    found = []
    for their in theirs:
        mine()
        if (once := seconds(their, device)) > 2:
            found.append([once / seconds(mine, device)] * 2)  # slow enough for one turn to tell
            continue
        found.append([seconds(their, device) / seconds(mine, device) for _ in range(repeats)])
    if not found:
        return "–"
    low, median, high = statistics.quantiles(min(found, key=statistics.median), n=4)
    return f"{median:.3g} ({low:.3g} - {high:.3g})"


if __name__ == "__main__":
    main()
