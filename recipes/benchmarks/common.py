"""What the benchmarks share: counted networks, crops, timing, and the description of the machine."""

import copy
import platform
import re
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from genprior import images
from genprior.priors.base import Prior


def counted(prior: Prior) -> tuple[Prior, Counter]:
    """Return the prior and a count of the images that pass its network "forward" and "back" from now on."""
    passes: Counter = Counter()

    def denoise(x_t: Tensor, sigma: float | Tensor) -> Tensor:
        passes["forward"] += len(x_t)
        return _CountBack.apply(prior.denoise(x_t, sigma), passes)

    watched = copy.copy(prior)  # shares its networks
    watched.denoise = denoise
    return watched, passes


class _CountBack(torch.autograd.Function):
    """The identity; counts the images whose gradient passes back through it."""

    @staticmethod
    def forward(x: Tensor, passes: Counter) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.passes = inputs[1]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        ctx.passes["back"] += len(gradient)
        return gradient, None


def anything(path: Path) -> bool:
    return True


def crops(folders: list[Path], each: int, side: int, keep: Callable[[Path], bool] = anything) -> dict[str, Tensor]:
    """Return centre crops (3, side, side) of `each` colour images of every folder, evenly spaced among its files.

    Files are sorted, and used if `keep` accepts them. The folders take turns, so that the first crops come from all.
    """
    found: list[list[tuple[str, Tensor]]] = []
    for folder in folders:
        paths = filter(keep, images.list_images(folder))
        pictures = [(f"{folder.name}/{path.stem}", images.read(path).seen[0]) for path in paths]
        fitting = [(name, x) for name, x in pictures if len(x) == 3 and min(x.shape[1:]) >= side]
        if len(fitting) < each:
            raise ValueError(
                f"{folder} has {len(fitting)} colour images of {side} x {side} or more; {each} are wanted."
            )
        found.append([fitting[k * len(fitting) // each] for k in range(each)])
    return {name: _centre(x, side) for turn in zip(*found) for name, x in turn}


def _centre(x: Tensor, side: int) -> Tensor:
    top, left = (x.shape[1] - side) // 2, (x.shape[2] - side) // 2
    return x[:, top : top + side, left : left + side].contiguous()


def seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the CPU time of a call, which other work affects only through the caches it takes; on cuda, wall time."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        began = time.perf_counter()
        function()
        torch.cuda.synchronize(device)
        return time.perf_counter() - began
    began = time.process_time()
    function()
    return time.process_time() - began


def machine(device: torch.device) -> str:
    """Describe what the figures were measured on."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    cpuinfo = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return f"{[*names, platform.machine()][0]}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"
