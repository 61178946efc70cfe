"""Memory: how much there was need of, and how many pixels to work on at once, which bounds it."""

import importlib.util
import math
import sys

import torch

# What a denoiser keeps for a backward pass, and much more than an operator or a decoder needs.
BYTES_PER_PIXEL = 10_000
PIXELS_AT_ONCE = {"cpu": 2**18, "mps": 2**19}
# Smaller tiles are mostly overlap; without a graph, 0.2 GB of activations are enough for the larger.
LEAST_TILE = {"cpu": 1024}


def pixels_at_once(device: torch.device) -> int:
    """A number of pixels that fits: on a GPU, into half of what is free."""
    if device.type != "cuda":
        return PIXELS_AT_ONCE.get(device.type, 2**18)
    free, _ = torch.cuda.mem_get_info(device)
    # What torch keeps for reuse is free too.
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return (free + cached) // 2 // BYTES_PER_PIXEL


def rows_at_once(image_shape: tuple[int, int, int], device: torch.device) -> int:
    """How many images of that shape to work on at once."""
    return max(1, pixels_at_once(device) // (image_shape[-2] * image_shape[-1]))


def tile_side(device: torch.device) -> int:
    """Side of the largest square that fits, and of the tiles of larger images."""
    return max(LEAST_TILE.get(device.type, 512), math.isqrt(pixels_at_once(device)))


def forget_peak(device: torch.device) -> None:
    """Measure `peak_memory` from now on, where that can be."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int | None:
    """In MiB: on cuda what torch held at most since `forget_peak`, else the process's largest resident set so far.

    None where nobody counts, on Windows.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    if importlib.util.find_spec("resource") is None:
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)
