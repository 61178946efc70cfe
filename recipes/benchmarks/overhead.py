"""What samplers cost beyond their networks: the time of a draw over that of its network calls and nothing else.

    python recipes/benchmarks/overhead.py

Of methods with one data step per network call. The network is a stack of convolutions that takes --milliseconds. After
each call it is called once more and passed back through as often as the method does: the bare time, which is taken off
the draw's. CPU time of one thread; median (quartiles) of the ratio over --repeats draws.
"""

import argparse
import statistics
import time

import torch
from common import machine
from torch import Tensor, nn

from genprior.noise import Noise
from genprior.operators import Blur, Inpaint, Measurement, SuperResolution, gaussian_kernel, random_mask
from genprior.priors.base import Prior
from genprior.samplers import find_sampler
from genprior.samplers.base import Sampler


class Network(Prior):
    centre, spread, sigma_min, sigma_max = 0.5, 0.25, 0.01, 10.0
    passes_back, bare = 0, 0.0

    def __init__(self, size: int, depth: int):
        super().__init__()
        inner = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(depth)]
        layers = nn.Conv2d(3, 32, 3, padding=1), *inner, nn.Conv2d(32, 3, 3, padding=1)
        self.image_shape, self.layers = (3, size, size), nn.Sequential(*layers).requires_grad_(False)

    def denoise(self, x_t: Tensor, sigma: float) -> Tensor:
        x_hat, began = self.layers(x_t), time.process_time()
        with torch.set_grad_enabled(self.passes_back > 0):
            x = x_t.detach().requires_grad_(self.passes_back > 0)
            again = self.layers(x)
        for _ in range(self.passes_back):
            torch.autograd.grad(again, x, x, retain_graph=True)
        self.bare += time.process_time() - began
        return x_hat


def ratio(prior: Network, measurement: Measurement, sampler: Sampler) -> float:
    prior.bare, began = 0.0, time.process_time()
    sampler(prior, measurement, Noise(0, [0]))
    return (time.process_time() - began) / prior.bare - 1


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="diffpir ddrm ddnm repaint dps pigdm tmpd mmps")
    for name, default in (("size", 64), ("steps", 20), ("repeats", 9), ("milliseconds", 10)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()

    torch.set_num_threads(1)
    x, prior = torch.rand(1, 3, options.size, options.size), Network(options.size, 0)
    while prior.bare < options.milliseconds / 1000:
        prior = Network(options.size, len(prior.layers) - 1)
        prior.denoise(x, 1.0)
    print(f"{machine(x.device)}; a network call on {tuple(x.shape)} takes {1000 * prior.bare:.1f} ms\n")
    mask = Inpaint(random_mask(x.shape, 0.5), prior.image_shape)
    blur = Blur(gaussian_kernel(1.0), prior.image_shape, "circular")
    print("| method | passes | mask | circular blur | super-resolution |\n|---|---|---|---|---|")
    for method in options.methods.split():
        sampler, cells = find_sampler(method, prior, options.steps), []
        prior.passes_back = sampler.evaluations // sampler.calls - 1
        for A in (mask,) if method == "repaint" else (mask, blur, SuperResolution(4, prior.image_shape)):
            _, *found = (ratio(prior, Measurement(A(x), A, 0.05), sampler) for _ in range(1 + options.repeats))
            cells.append("{1:.3f} ({0:.3f} - {2:.3f})".format(*statistics.quantiles(found, n=4)))
        print(f"| {method} | {1 + prior.passes_back} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
