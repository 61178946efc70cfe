"""What methods cost beyond the network, ours and those of deepinv and azula: same network, steps and measurement.

    python recipes/benchmarks/speed.py                   (--device cuda where there is one)

A cell: the time of a draw outside the network, in percent of the time inside it. It is measured within the draw,
between the network's forward and backward passes: CPU time of one thread, or on cuda time between events. It is the
median over --repeats draws of --steps steps of 3 x 64 x 64 images, after one that does not count, by network and batch.
"small" is a stack of convolutions whose call on one image takes about 10 ms on a CPU, "bundled" is `ddpm-photo`.
Memory: by how much a draw of 4 images with the bundled network raises the resident set of a fresh process, or on cuda
what torch holds.
"""

import argparse
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from common import machine
from peers import METHODS
from torch import Tensor, nn

import genprior
from genprior.checks import UnsupportedError
from genprior.operators import Blur, Inpaint, Measurement, SuperResolution, gaussian_kernel, random_mask
from genprior.priors.base import Prior
from genprior.priors.gaussian.covariance import Covariance
from genprior.samplers import find_sampler

# The peers' versions of our methods.
PEERS = {
    "diffpir": ("deepinv diffpir", "azula diffpir"),
    "ddrm": ("deepinv ddrm",),
    "ddnm": (),
    "repaint": (),
    "dps": ("deepinv dps", "azula dps"),
    "pigdm": ("deepinv pigdm", "azula pgdm"),
    "tmpd": (),
    "mmps": ("deepinv mmps", "azula mmps"),
    "optimal-covariance": (),
}
TASKS = {
    "mask": lambda shape: Inpaint(random_mask(shape, 0.7), shape),
    "circular blur": lambda shape: Blur(gaussian_kernel(2.0), shape, "circular"),
    "super-resolution": lambda shape: SuperResolution(4, shape),
}


class Small(Prior):
    """A stack of convolutions, never trained."""

    image_shape, centre, spread, sigma_min, sigma_max = (3, None, None), 0.5, 0.25, 0.01, 10.0

    def __init__(self, depth: int = 16):
        super().__init__()
        inner = [nn.Conv2d(32, 32, 3, padding=1) for _ in range(depth)]
        self.layers = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), *inner, nn.Conv2d(32, 3, 3, padding=1))

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        return self.layers(x_t)


class Timed(Prior):
    """A prior that records when its network works, forward and back; marks are time stamps or events."""

    def __init__(self, prior: Prior, mark: Callable):
        super().__init__()
        self.prior, self.mark, self.spans = prior, mark, []
        for name in ("image_shape", "centre", "spread", "sigma_min", "sigma_max"):
            setattr(self, name, getattr(prior, name))

    @property
    def capabilities(self) -> frozenset[str]:
        return super().capabilities & self.prior.capabilities

    def posterior_covariance(self, sigma: float) -> Covariance:
        return self.prior.sized(*self.image_shape[1:]).posterior_covariance(sigma)

    def denoise(self, x_t: Tensor, sigma: float | Tensor) -> Tensor:
        began = self.mark()
        x_hat = _Edge.apply(self.prior.denoise(_Edge.apply(x_t, self, False), sigma), self, True)
        self.spans.append((began, self.mark()))
        return x_hat


class _Edge(torch.autograd.Function):
    """The identity at an edge of the network: on the backward pass it marks when the network begins or ends."""

    @staticmethod
    def forward(x: Tensor, timed: Timed, last: bool) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.timed, ctx.last = inputs

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:
        if ctx.last:
            ctx.timed.began = ctx.timed.mark()
        else:
            ctx.timed.spans.append((ctx.timed.began, ctx.timed.mark()))
        return gradient, None, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--networks", nargs="+", choices=["small", "bundled"], default=["small", "bundled"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)

    networks = {name: network(name, device) for name in options.networks}
    columns = ["task", "method", *(f"{name}, {n}" for name in networks for n in options.batches), "memory, MiB"]
    print(f"{machine(device)}\n\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for task in options.tasks:
        for name in (method for own in options.methods for method in (own, *PEERS[own])):
            cells = [
                cell(name, prior, measure(task, options.size, batch, device), options)
                for prior in networks.values()
                for batch in options.batches
            ]
            if set(cells) == {"–"}:
                continue
            memory = peak_memory(name, task, options.size, options.steps, options.device)
            print(f"| {task} | {name} | {' | '.join(cells)} | {memory:.0f} |", flush=True)


def network(name: str, device: torch.device) -> Prior:
    prior = Small() if name == "small" else genprior.load_prior("ddpm-photo", device=device)
    return prior.requires_grad_(False).to(device)


def measure(task: str, size: int, batch: int, device: torch.device) -> Measurement:
    A = TASKS[task]((3, size, size))
    x = torch.rand(batch, *A.image_shape, generator=torch.Generator().manual_seed(0)).to(device)
    return Measurement(A(x), A, 0.05)


def draw(name: str, prior: Prior, measurement: Measurement, steps: int) -> None:
    own = next(own for own, peers in PEERS.items() if name in (own, *peers))
    evaluations = find_sampler(own, prior, steps).evaluations
    if name == "azula mmps":
        evaluations = 3 * steps  # one iteration of its solver
    if name in ("deepinv pigdm", "deepinv mmps"):
        evaluations += 1  # they denoise once more at the end
    METHODS[name](prior, measurement, evaluations, 0)


def cell(name: str, prior: Prior, measurement: Measurement, options: argparse.Namespace) -> str:
    """Return the overhead in percent, or a dash if the method does not go with the prior or the operator."""
    try:
        return f"{100 * overhead(name, prior, measurement, options):.3g}"
    except UnsupportedError:
        return "–"


def overhead(name: str, prior: Prior, measurement: Measurement, options: argparse.Namespace) -> float:
    """Return the time outside the network over the time inside it, the median over some draws."""
    cuda = measurement.y.is_cuda
    found = []
    for _ in range(1 + options.repeats):
        timed = Timed(prior, _event if cuda else time.process_time)
        began = timed.mark()
        draw(name, timed, measurement, options.steps)
        ended = timed.mark()
        if cuda:
            torch.cuda.synchronize()
        within = sum(_between(*span) for span in timed.spans)
        found.append(_between(began, ended) / within - 1)
    return statistics.median(found[1:])


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(began, ended) -> float:
    return began.elapsed_time(ended) if isinstance(began, torch.cuda.Event) else ended - began


def peak_memory(*arguments) -> float:
    """Return the MiB that a draw takes, measured in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory, arguments)


def _peak_memory(name: str, task: str, size: int, steps: int, where: str) -> float:
    torch.set_num_threads(1)
    device = torch.device(where)
    prior = network("bundled", device)
    draw(name, prior, measure(task, 32, 1, device), 2)  # loads what is loaded only once
    measurement = measure(task, size, 4, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        draw(name, prior, measurement, steps)
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the largest resident set to the current one
    before = _status("VmRSS")
    draw(name, prior, measurement, steps)
    return _status("VmHWM") - before


def _status(entry: str) -> float:
    return int(re.search(rf"{entry}:\s*(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


if __name__ == "__main__":
    main()
